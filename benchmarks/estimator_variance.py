"""Noise of each estimator's gradient, at the same weights.

python benchmarks/estimator_variance.py [--samples=N] [--output=FILE.json]

Two Composers, Figure 2's and one of nine paths, are trained on the digits data,
then kept fixed while baselines with a state learn it. On a few batches each
estimator makes gradients that differ only in the sampled paths. All are
unbiased except for logits at their floor (`floor_gaps`), so the mean squared
distance to the exact gradient is the trace of the covariance, plus any bias
there is. It is given relative to REINFORCE without a baseline, with the
standard error of that ratio.
"""

import functools
import pathlib
from collections.abc import Callable
from typing import Any, get_args

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags
from pictures import Bar, draw

import composer_tf as ct
from composer_tf import datasets, models
from composer_tf.estimators.reinforce import Baseline
from composer_tf.files import write_json
from composer_tf.policy import tile_rows

_SAMPLES = flags.DEFINE_integer("samples", 200, "Gradients on each batch.")
_STEPS = flags.DEFINE_integer("steps", 500, "Training steps before measuring.")
_OUTPUT = flags.DEFINE_string(
    "output", None, "JSON file to write, with a picture beside it."
)

_BATCH_SIZE = 128
_NUM_BATCHES = 8
_ESTIMATORS: dict[str, Callable[[], ct.Estimator]] = {
    **{
        f"reinforce, {name}": functools.partial(ct.Reinforce, name)
        for name in get_args(Baseline)
    },
    **{
        f"leave_one_out, {k}": functools.partial(ct.LeaveOneOut, k)
        for k in (2, 4)
    },
    "exact": ct.Exact,
}


def nine_paths() -> ct.Composer:
    """Two metalayers of three modules that differ in size."""

    def module(units: int, *first: keras.layers.Layer) -> keras.Model:
        dense = [keras.layers.Dense(units, "relu"), keras.layers.Dense(20)]
        return keras.Sequential([*first, keras.layers.Flatten(), *dense])

    readers = [module(16, ct.Glimpse(width=28)), module(16), module(64)]
    classifiers = [module(8), module(32), module(128)]
    glimpse = ct.GlimpsePreference(ct.Uniform(-2.0, 6.0))
    return ct.Composer(
        stem=keras.layers.Rescaling(1.0 / 255.0),
        metalayers=[ct.Metalayer(readers), ct.Metalayer(classifiers)],
        preferences=[glimpse, ct.BatchEntropyPreference(0.1)],
    )


_COMPOSERS: dict[str, Callable[[], ct.Composer]] = {
    "Figure 2": functools.partial(models.WideMnist().build, seed=0),
    "nine paths": nine_paths,
}


def gradient_function(
    model: ct.Composer, estimator: ct.Estimator, weights: Any
) -> Any:
    """Maps images and labels to a training step's gradients of weights."""
    paths = estimator.paths(model.num_modules)
    num_paths = len(paths)
    low, high = model.preferences.swept().gamma.support

    @tf.function(autograph=False)
    def gradients(images: tf.Tensor, labels: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            composition: Any = model(
                images,
                gamma=tf.linspace(low, high, _BATCH_SIZE),
                paths=paths,
                training=True,
                return_composition=True,
            )
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                tile_rows(labels, num_paths), composition.outputs
            )
            surrogate: Any = estimator(
                tf.reshape(losses, [num_paths, _BATCH_SIZE]),
                policy=composition.policy.split_paths(num_paths),
                preferences=model.preferences,
                gamma=composition.gamma,
                context=composition.context,
            )
            loss = tf.reduce_mean(surrogate)
        return tape.gradient(loss, weights)

    return gradients


def settle(model: ct.Composer, estimator: ct.Estimator, batches: Any) -> None:
    """Lets a baseline learn its state while the model is kept fixed."""
    weights = estimator.trainable_weights
    gradients = gradient_function(model, estimator, weights)
    optimizer = keras.optimizers.Adam()
    for batch in batches if estimator.weights else ():
        update = gradients(*batch)
        if update:
            optimizer.apply(update, weights)


def distance_function(gradients: Any) -> Any:
    """Maps a batch and its true gradients to squared distances `[N, 2]`."""

    @tf.function(autograph=False)
    def distances(batch: Any, truth: Any) -> tf.Tensor:
        def distance(_: tf.Tensor) -> tf.Tensor:
            error = tf.nest.map_structure(tf.subtract, gradients(*batch), truth)
            return tf.stack([tf.linalg.global_norm(e) ** 2 for e in error])

        samples = tf.zeros([_SAMPLES.value])
        return tf.map_fn(distance, samples, parallel_iterations=1)

    return distances


def measure(model: ct.Composer, data: tf.data.Dataset) -> dict[str, np.ndarray]:
    """Squared distances of controller and modules `[N, 2]`, by estimator."""
    batches = list(data.take(_NUM_BATCHES))
    composition: Any = model(batches[0][0], return_composition=True)
    modules = [
        w for layer in model.routed_layers for w in layer.trainable_weights
    ]
    weights = (model.controller.trainable_weights, modules)
    exact = gradient_function(model, ct.Exact(), weights)
    truths = [exact(*batch) for batch in batches]
    results = {}
    for name, make in _ESTIMATORS.items():
        estimator = make()
        estimator.build(composition.context.shape)
        settle(model, estimator, data.take(_STEPS.value))
        # The same paths for all that sample as many.
        model.seed_generator.state.assign([0, 0])
        gradients = gradient_function(model, estimator, weights)
        distances = distance_function(gradients)
        results[name] = np.concatenate(list(map(distances, batches, truths)))
    return results


def tables(report: dict[str, Any]) -> dict[str, dict[str, Bar]]:
    """Variances with their standard errors, by Composer and part."""

    def bar(row: dict[str, Any], part: int) -> Bar:
        ratio, error = row["ratio"][part], row["error"][part]
        return Bar(ratio, ratio - error, ratio + error)

    return {
        f"{composer}: variance of the gradient of the {name}": {
            estimator: bar(row, part) for estimator, row in rows.items()
        }
        for composer, rows in report.items()
        for part, name in enumerate(("controller", "modules"))
    }


def compare(model: ct.Composer) -> dict[str, Any]:
    """Trains a Composer, and measures and prints each estimator."""
    (data,) = datasets.load(
        "wide_mnist/digits", _BATCH_SIZE, splits=("train",), passes=100
    )
    model.compile()
    model.fit(data.take(_STEPS.value), verbose=0)
    distances = measure(model, data)
    reference = distances["reinforce, none"]
    unit = reference.mean(axis=0)
    report = {}
    print(f"{'estimator':26} evaluations  controller        modules")
    for name, values in distances.items():
        paths = len(_ESTIMATORS[name]().paths(model.num_modules))
        ratio = values.mean(axis=0) / unit
        error = np.std(values - ratio * reference, axis=0) / unit
        row = report[name] = {
            "module_evaluations": paths * len(model.num_modules) * _BATCH_SIZE,
            "ratio": ratio.tolist(),
            "error": (error / np.sqrt(len(values))).tolist(),
        }
        cells = map("{:.3f} +- {:.3f}".format, row["ratio"], row["error"])
        print(f"{name:26} {row['module_evaluations']:11}", *cells, sep="  ")
    return report


def main(_: list[str]) -> None:
    """Trains, measures, prints tables and writes the JSON."""
    report = {}
    for name, make in _COMPOSERS.items():
        print(f"\n{name}")
        keras.utils.set_random_seed(0)
        report[name] = compare(make())
    if _OUTPUT.value:
        output = pathlib.Path(_OUTPUT.value)
        write_json(report, output)
        draw(tables(report), output.with_suffix(".png"))


if __name__ == "__main__":
    app.run(main)

"""How noisy the gradient of each estimator is, at the same weights.

python benchmarks/estimator_variance.py [--samples=N] [--output=FILE.json]

A Composer of two metalayers with three modules each is trained for some
hundred steps on the digits data and then left as it is. Baselines with a state
learn it at those weights. Then, on a few batches with a gamma per example, each
estimator makes many gradients that differ in nothing but the sampled paths. As
all estimators are unbiased, their mean squared distance to the exact gradient
is the trace of the covariance; it is given relative to REINFORCE without a
baseline. The rest of a training step's noise, of the batch and of gamma, is the
same for all and not counted.
"""

import json
import pathlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

import composer_tf as ct
from composer_tf import datasets
from composer_tf.policy import tile_rows

_SAMPLES = flags.DEFINE_integer("samples", 200, "Gradients on each batch.")
_STEPS = flags.DEFINE_integer("steps", 500, "Training steps before measuring.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")

_BATCH_SIZE = 128
_NUM_BATCHES = 8
_ESTIMATORS: dict[str, ct.Estimator] = {
    "reinforce, none": ct.Reinforce(baseline="none"),
    "reinforce, batch_mean": ct.Reinforce(baseline="batch_mean"),
    "reinforce, moving_average": ct.Reinforce(baseline="moving_average"),
    "reinforce, learned": ct.Reinforce(baseline="learned"),
    "leave_one_out, 2": ct.LeaveOneOut(num_samples=2),
    "leave_one_out, 4": ct.LeaveOneOut(num_samples=4),
    "exact": ct.Exact(),
}


def composer() -> ct.Composer:
    """Two metalayers of three modules that differ in size."""
    layers = keras.layers

    def reader(units: int, *first: keras.layers.Layer) -> keras.Model:
        hidden = [layers.Dense(units, "relu"), layers.Dense(32, "relu")]
        return keras.Sequential([*first, layers.Flatten(), *hidden])

    def classifier(*units: int) -> keras.Model:
        hidden = [layers.Dense(n, "relu") for n in units]
        return keras.Sequential([*hidden, layers.Dense(20)])

    readers = [reader(16, ct.Glimpse(width=28)), reader(16), reader(64)]
    classifiers = [classifier(), classifier(32), classifier(128)]
    return ct.Composer(
        stem=layers.Rescaling(1.0 / 255.0),
        metalayers=[ct.Metalayer(readers), ct.Metalayer(classifiers)],
        preferences=[
            ct.GlimpsePreference(ct.Uniform(-2.0, 6.0)),
            ct.BatchEntropyPreference(0.1),
        ],
        seed=0,
    )


def surrogate_loss(
    model: ct.Composer, estimator: ct.Estimator, batch: tuple[tf.Tensor, ...]
) -> tf.Tensor:
    """The scalar whose gradient a training step takes."""
    images, labels, gamma = batch
    num_paths = estimator.num_paths(model.num_modules)
    paths = estimator.paths(model.num_modules)
    composition: Any = model(
        images,
        gamma=gamma,
        choices=None if paths is None else tf.repeat(paths, _BATCH_SIZE, 0),
        num_paths=num_paths,
        training=True,
        return_composition=True,
    )
    losses = keras.losses.sparse_categorical_crossentropy(
        tile_rows(labels, num_paths), composition.outputs, from_logits=True
    )
    surrogate: Any = estimator(
        tf.reshape(losses, [num_paths, _BATCH_SIZE]),
        policy=composition.policy.split_paths(num_paths),
        preferences=model.preferences,
        gamma=composition.gamma,
        context=composition.context,
    )
    return tf.reduce_mean(surrogate)


def gradient_function(model: ct.Composer, estimator: ct.Estimator) -> Any:
    """Maps a batch to the flat gradients of controller and of modules."""
    groups = [model.controller.trainable_weights]
    groups.append([w for m in model.choosing for w in m.trainable_weights])

    @tf.function(autograph=False)
    def gradients(*batch: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = surrogate_loss(model, estimator, batch)
        return [
            tf.concat([tf.reshape(g, [-1]) for g in group], axis=0)
            for group in tape.gradient(loss, groups, unconnected_gradients="zero")
        ]

    return gradients


def settle(model: ct.Composer, estimator: ct.Estimator, batches: Any) -> None:
    """Lets a baseline learn its state while the model stays as it is."""
    weights = estimator.trainable_weights
    optimizer = keras.optimizers.Adam()
    optimizer.build(weights)

    @tf.function(autograph=False)
    def step(*batch: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            loss = surrogate_loss(model, estimator, batch)
        if weights:
            optimizer.apply(tape.gradient(loss, weights), weights)

    if estimator.weights:
        for batch in batches:
            step(*batch)


def main(argv: list[str]) -> None:
    """Trains, measures, prints a table and writes the JSON."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}.")
    keras.utils.set_random_seed(0)
    (data,) = datasets.load(
        "wide_mnist/digits", _BATCH_SIZE, splits=("train",), passes=100
    )
    model = composer()
    model.compile(metrics=["accuracy"])
    model.fit(data.take(_STEPS.value), verbose=2)
    context = model(next(iter(data))[0], return_composition=True).context
    generator = tf.random.Generator.from_seed(0)

    def with_gamma(images: tf.Tensor, labels: tf.Tensor) -> tuple:
        return images, labels, generator.uniform([_BATCH_SIZE], -2.0, 6.0)

    stream = data.map(with_gamma)
    batches = list(stream.take(_NUM_BATCHES))
    exact = gradient_function(model, _ESTIMATORS["exact"])
    truths = [exact(*batch) for batch in batches]
    rows: dict[str, dict[str, Any]] = {}
    for name, estimator in _ESTIMATORS.items():
        estimator.build(context.shape)
        settle(model, estimator, stream.take(_STEPS.value))
        gradients = gradient_function(model, estimator)
        distances = [
            [tf.reduce_sum((g - t) ** 2) for g, t in zip(gs, truth, strict=True)]
            for _ in range(_SAMPLES.value)
            for gs, truth in ((gradients(*b), t) for b, t in zip(batches, truths))
        ]
        mean, error = np.mean(distances, 0), np.std(distances, 0)
        print(name, mean, error / np.sqrt(len(distances)))


if __name__ == "__main__":
    app.run(main)

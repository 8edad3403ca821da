"""Composers for the tests of exporters, and what they must answer."""

import keras
import numpy as np
import tensorflow as tf

import composer_tf as ct

L = keras.layers
INPUT = (8, 8, 1)


def composer(seed=0, preferences=2):
    """Two metalayers of three and two modules of different kinds."""
    keras.utils.set_random_seed(seed)
    wide = keras.Sequential(
        [L.Conv2D(16, 3, padding="same", activation="relu"), L.Conv2D(4, 1)]
    )
    normalised = keras.Sequential([L.Conv2D(4, 1), L.BatchNormalization()])
    steered = [
        ct.GlimpsePreference(ct.Uniform(-2.0, 6.0), default=1.0),
        ct.EntropyPreference(ct.Uniform(0.0, 1.0)),
    ]
    model = ct.Composer(
        stem=L.Rescaling(2.0),
        metalayers=[
            ct.Metalayer([L.Conv2D(4, 3, padding="same"), wide, normalised]),
            L.MaxPooling2D(),
            ct.Metalayer(
                [L.Conv2D(6, 1), L.Conv2D(6, 3, padding="same")], name="second"
            ),
            L.GlobalAveragePooling2D(),
            L.Dense(5),
        ],
        controller=ct.RNNController(8, grid=2),
        preferences=steered[:preferences],
        name="small",
    )
    model.build((None, *INPUT))
    model.compile()
    # Random biases: an untrained controller would ignore its inputs.
    for weight in model.controller.weights:
        if weight.path.endswith("kernel"):
            weight.assign(3.0 * weight)
    return model


def examples(rows, seed=0):
    """Images whose scales differ, so that choices do, and gammas."""
    random = np.random.default_rng(seed)
    images = random.normal(size=(rows, *INPUT)) * np.linspace(0.1, 3, rows)[
        :, None, None, None
    ] + random.normal(size=(rows, 1, 1, 1))
    gamma = np.stack(
        [np.linspace(-2.0, 6.0, rows), random.uniform(0, 1, rows)], axis=-1
    )
    return images.astype(np.float32), gamma.astype(np.float32)


def expected(model, images, gamma=None, choices=None):
    """The outputs of the contract, row by row and without an exporter."""
    composition = model(
        tf.constant(images),
        gamma=None if gamma is None else tf.constant(gamma),
        choices=choices,
        routing="dense",
        training=False,
        return_composition=True,
    )
    policy = composition.policy
    probabilities = np.zeros([len(images), 2, 3], np.float32)
    probabilities[:, 0] = policy.probabilities[0]
    probabilities[:, 1, :2] = policy.probabilities[1]
    fractions = model.cost_table.fractions
    cost = [
        sum(row[c] for row, c in zip(fractions, path, strict=True))
        + model.overhead
        for path in policy.choices.numpy()
    ]
    return {
        "logits": composition.outputs.numpy(),
        "probabilities": tf.nn.softmax(composition.outputs).numpy(),
        "choices": policy.choices.numpy(),
        "module_probabilities": probabilities,
        "cost": np.array(cost, np.float32),
    }


def assert_same(actual, wanted, atol=1e-5):
    """All outputs, by name."""
    assert set(actual) == set(wanted)
    np.testing.assert_array_equal(actual["choices"], wanted["choices"])
    for name, value in wanted.items():
        np.testing.assert_allclose(actual[name], value, atol=atol, err_msg=name)

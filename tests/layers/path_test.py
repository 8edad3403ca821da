"""Paths that many examples take at once, against one path at a time."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import composer_tf as ct
from composer_tf.layers.path import forks
from composer_tf.policy import POLICY, all_paths

B = 3
X = tf.random.stateless_normal([B, 4], [1, 2])


class Counted(keras.layers.Dense):
    """Counts the rows that it is given."""

    rows = 0

    def call(self, inputs):
        self.rows += inputs.shape[0] or 0
        return super().call(inputs)


def make(**options):
    return ct.Composer(
        [
            ct.Metalayer([Counted(4), Counted(4)]),
            keras.layers.Activation("relu"),
            ct.Metalayer([Counted(2), Counted(2), Counted(2)]),
        ],
        preferences=[ct.GlimpsePreference(ct.Uniform(-1.0, 1.0))],
        seed=0,
        **options,
    )


@pytest.mark.parametrize("routing", ["partition", "dense"])
@pytest.mark.parametrize(
    "paths",
    [
        all_paths([2, 3]),
        [(1, 2), (0, 0), (1, 2)],
        [(1, 0), (1, POLICY), (POLICY, 1)],
        [(POLICY, POLICY)] * 2,
    ],
)
def test_each_path_is_what_it_is_alone(paths, routing):
    model = make()
    together = model(X, paths=paths, routing=routing, return_composition=True)
    for k, path in enumerate(paths):
        alone = model(
            X, choices=tf.tile([path], [B, 1]), return_composition=True
        )
        rows = slice(k * B, (k + 1) * B)
        np.testing.assert_allclose(
            together.outputs[rows], alone.outputs, atol=1e-6
        )
        np.testing.assert_array_equal(
            together.policy.choices[rows], alone.policy.choices
        )
        for whole, part in zip(
            together.policy.logits, alone.policy.logits, strict=True
        ):
            np.testing.assert_allclose(whole[rows], part, atol=1e-5)


def test_what_paths_have_in_common_runs_once():
    model = make()
    model(X)
    first, second = (layer.modules for layer in model.routed_layers)
    for module in [*first, *second]:
        module.rows = 0
    paths = all_paths([2, 3])
    model(X, paths=[*paths, paths[-1], paths[0]])
    assert [module.rows for module in first] == [B, B]
    assert [module.rows for module in second] == [2 * B] * 3


def test_paths_that_are_not_known_stay_apart():
    """They may be the same, but only by chance."""
    first, second = forks([(POLICY, 1), (POLICY, 1), (0, 1), (0, 1)])
    assert first.sources == (0, 0, 0)
    assert first.choices == (POLICY, POLICY, 0)
    assert first.block_of_path == (0, 1, 2, 2)
    assert second.sources == (0, 1, 2)
    assert second.block_of_path == (0, 1, 2, 2)


def test_a_probe_guesses_once_for_what_paths_have_in_common():
    model = make(controller=ct.RNNController(probe=True))
    paths = [(0, 1), (1, 1), (0, 0)]
    composition = model(X, paths=paths, return_composition=True)
    first, second = composition.guesses
    assert (first.shape, second.shape) == ((1, B, 2), (2, B, 2))
    assert np.all(np.abs(second[0] - second[1]) > 0.0)


def test_a_probe_learns_to_guess():
    """From the stem's activations, which it does not change."""
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense
    stem = dense(4, trainable=False)
    model = ct.Composer(
        [ct.Metalayer([dense(3), dense(3)])],
        controller=ct.RNNController(probe=True),
        stem=stem,
        seed=0,
    )
    x = np.random.default_rng(0).normal(size=[256, 4]).astype(np.float32)
    y = np.argmax(x[:, :3], axis=-1)
    model.compile(keras.optimizers.Adam(0.05), metrics=["accuracy"])
    model.fit(x, y, epochs=60, batch_size=64, verbose=0)
    (guess,) = model(x, return_composition=True).guesses
    assert np.mean(np.argmax(guess[0], axis=-1) == y) > 0.9


def test_a_probe_needs_a_loss_on_logits():
    model = make(controller=ct.RNNController(probe=True))
    with pytest.raises(ValueError, match="controller's probe needs a softmax"):
        model.compile(loss="mse")

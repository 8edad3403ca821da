import numpy as np
import pytest
import tensorflow as tf

from composer_tf.policy import Policy, sample_paths, tile_rows

# Two metalayers of 2 and 3 modules, a batch of two.
PROBABILITIES = (
    np.array([[0.25, 0.75], [0.5, 0.5]]),
    np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]]),
)
CHOICES = np.array([[1, 2], [0, 1]])
COSTS = (np.array([0.1, 0.5]), np.array([0.05, 0.2, 0.3]))


@pytest.fixture
def policy():
    return Policy(
        # Logits are probabilities up to any constant.
        logits=tuple(
            tf.constant(np.log(p) + 3.0, tf.float32) for p in PROBABILITIES
        ),
        choices=tf.constant(CHOICES, tf.int32),
        module_costs=tuple(tf.constant(c, tf.float32) for c in COSTS),
    )


def test_probabilities_are_those_of_each_metalayer(policy):
    for actual, expected in zip(
        policy.probabilities, PROBABILITIES, strict=True
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_log_prob_is_that_of_the_whole_path(policy):
    np.testing.assert_allclose(
        policy.log_prob, np.log([0.75 * 0.5, 0.5 * 0.3]), rtol=1e-5
    )


def test_entropy_is_summed_along_the_path(policy):
    expected = sum(-np.sum(p * np.log(p), axis=-1) for p in PROBABILITIES)
    np.testing.assert_allclose(policy.entropy, expected, rtol=1e-5)


def test_path_cost_is_summed_along_the_path(policy):
    np.testing.assert_allclose(
        policy.path_cost, [0.5 + 0.3, 0.1 + 0.2], rtol=1e-6
    )


def test_samples_follow_the_probabilities(policy):
    first, _ = policy.distributions
    samples = first.sample(4000, seed=(1, 2))
    assert samples.dtype == tf.int32
    np.testing.assert_allclose(
        np.mean(samples == 1, axis=0), [0.75, 0.5], atol=0.03
    )


def test_split_paths_takes_tiled_rows_apart(policy):
    tiled = Policy(
        logits=tuple(tile_rows(logits, 3) for logits in policy.logits),
        choices=tf.constant(np.concatenate([CHOICES, CHOICES * 0, CHOICES])),
        module_costs=policy.module_costs,
    )
    split = tiled.split_paths(3)
    assert split.choices.shape == (3, 2, 2)
    np.testing.assert_array_equal(split.choices[0], CHOICES)
    np.testing.assert_array_equal(split.choices[1], 0)
    for path in range(3):
        for logits, expected in zip(split.logits, policy.logits, strict=True):
            np.testing.assert_array_equal(logits[path], expected)
    assert split.log_prob.shape == (3, 2)
    np.testing.assert_allclose(split.log_prob[2], policy.log_prob)
    np.testing.assert_allclose(
        split.log_prob[1], np.log([0.25 * 0.2, 0.5 * 0.6]), rtol=1e-5
    )
    np.testing.assert_allclose(split.path_cost[1], [0.15, 0.15], rtol=1e-6)
    np.testing.assert_allclose(split.entropy[1], policy.entropy)


@pytest.mark.parametrize("num_paths", [1, 3])
def test_tile_rows_repeats_the_whole_batch(num_paths):
    rows = np.arange(12).reshape(2, 3, 2)
    np.testing.assert_array_equal(
        tile_rows(tf.constant(rows), num_paths),
        np.concatenate([rows] * num_paths),
    )


def test_tile_rows_takes_labels_and_batches_of_unknown_size():
    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64)])
    def tile(labels):
        return tile_rows(labels, 2)

    np.testing.assert_array_equal(
        tile(tf.constant([1, 2, 3], tf.int64)),
        [
            1,
            2,
            3,
            1,
            2,
            3,
        ],
    )


@pytest.mark.parametrize("sizes", [(8, 8, 8), (70,), (2, 65, 3)])
def test_a_sample_of_many_paths_has_every_module(sizes):
    paths = np.array(sample_paths(sizes))
    assert len(paths) == len(np.unique(paths, axis=0))
    assert len(paths) <= max(sizes) + 64
    assert len(paths) > max(sizes) or len(sizes) == 1
    for column, size in enumerate(sizes):
        assert {*paths[:, column].tolist()} == {*range(size)}

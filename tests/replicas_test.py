"""The rows of several replicas, joined and drawn for."""

import numpy as np
import tensorflow as tf

from composer_tf import replicas
from composer_tf.policy import categorical

ROWS = np.arange(12.0, dtype="float32").reshape(6, 2)


def on_replicas(strategy, function, rows_of_each):
    """Results of a function of each replica's own rows, in order."""

    def own(context):
        return tf.constant(rows_of_each[context.replica_id_in_sync_group])

    @tf.function
    def run():
        values = strategy.experimental_distribute_values_from_function(own)
        return strategy.run(function, args=(values,))

    return tf.nest.map_structure(strategy.experimental_local_results, run())


def test_every_replica_gets_the_rows_of_all_in_order(two_replicas):
    def gather(rows):
        labels = tf.cast(rows[:, 0], tf.int32)
        return tuple(replicas.gather([rows, labels]))

    rows, labels = on_replicas(two_replicas, gather, [ROWS[:4], ROWS[4:]])
    for replica in range(2):
        np.testing.assert_array_equal(rows[replica], ROWS)
        np.testing.assert_array_equal(labels[replica], ROWS[:, 0])
        assert labels[replica].dtype == tf.int32


def test_a_replica_may_have_no_rows(two_replicas):
    def gather(rows):
        return replicas.gather([rows])[0]

    rows = on_replicas(two_replicas, gather, [ROWS, ROWS[:0]])
    np.testing.assert_array_equal(rows[1], ROWS)


def test_gradients_of_a_loss_of_the_batch_reach_own_rows(two_replicas):
    """d/dx (sum x)^2 is 2 sum x for each row, wherever it is."""

    def gradient(rows):
        with tf.GradientTape() as tape:
            tape.watch(rows)
            (gathered,) = replicas.gather([rows])
            loss = tf.reduce_sum(gathered) ** 2
        return tape.gradient(loss, rows)

    gradients = on_replicas(two_replicas, gradient, [ROWS[:2], ROWS[2:]])
    np.testing.assert_allclose(
        np.concatenate(gradients), np.full([6, 2], 2.0 * ROWS.sum())
    )


def test_what_all_compute_counts_once(two_replicas):
    def gradient(rows):
        with tf.GradientTape() as tape:
            tape.watch(rows)
            value = replicas.count_once(3.0 * rows)
        return value, tape.gradient(value, rows)

    values, gradients = on_replicas(two_replicas, gradient, [ROWS, ROWS])
    np.testing.assert_allclose(values[1], 3.0 * ROWS)
    np.testing.assert_allclose(gradients[0] + gradients[1], 3.0 + 0.0 * ROWS)


def test_draws_are_those_of_one_device_with_all_rows(two_replicas):
    logits = tf.random.stateless_normal([2, 6, 3], seed=[1, 2]).numpy()
    sample = lambda rows: categorical(rows).sample(seed=[3, 4])  # noqa: E731

    def draw(rows):
        by_path = tf.reshape(tf.transpose(rows, [1, 0, 2]), [-1, 3])
        choices = replicas.draw(sample, by_path, num_paths=2)
        return tf.transpose(tf.reshape(choices, [2, -1]))

    by_row = logits.transpose([1, 0, 2])
    drawn = on_replicas(two_replicas, draw, [by_row[:3], by_row[3:]])
    expected = sample(tf.constant(logits))  # [K, B]
    np.testing.assert_array_equal(np.concatenate(drawn).T, expected)


def test_one_replica_is_left_alone():
    rows = tf.constant(ROWS)
    assert replicas.count() == 1
    assert replicas.gather([rows])[0] is rows

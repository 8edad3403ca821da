"""The contract that both controllers keep, and what sets them apart."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from composer_tf.layers import FeedForwardController, RNNController

SHAPES = [(None, 6), (None, 8, 8, 2), (None, 5)]
NUM_MODULES = [2, 4, 3]
NUM_GAMMAS = 2
BATCH = 5

both = pytest.mark.parametrize(
    "controller_class", [RNNController, FeedForwardController]
)


def built(controller_class, **kwargs):
    controller = controller_class(units=8, **kwargs)
    controller.build(SHAPES, NUM_MODULES, NUM_GAMMAS, has_prices=True)
    return controller


def activations(batch=BATCH):
    return [
        tf.random.stateless_normal([batch, *shape[1:]], [i, 1])
        for i, shape in enumerate(SHAPES)
    ]


def run(controller, choices=(1, 3, 0), gamma=0.0, inputs=None):
    """The logits of all steps along one path."""
    inputs = activations() if inputs is None else inputs
    batch = inputs[0].shape[0]
    state = controller.initial_state(batch)
    previous, logits = None, []
    for i, step_inputs in enumerate(inputs):
        features = controller.observe(step_inputs, i).features
        step_logits, state = controller(
            features,
            previous,
            tf.fill([batch, NUM_GAMMAS], gamma),
            state,
            index=i,
        )
        previous = tf.fill([batch], choices[i])
        logits.append(controller.finalize_logits(step_logits, None))
    return logits


def rows_differ(a, b):
    """Whether every row of `a` is another one in `b`."""
    return bool(np.all(np.abs(a - b).max(axis=-1) > 1e-6))


@both
def test_each_metalayer_has_as_many_logits_as_modules(controller_class):
    shapes = [logits.shape for logits in run(built(controller_class))]
    assert shapes == [(BATCH, m) for m in NUM_MODULES]


@both
def test_all_steps_runs_every_step(controller_class):
    controller = built(controller_class)
    for actual, expected in zip(
        controller.all_steps(*activations()),
        run(controller, choices=(0, 0, 0)),
        strict=True,
    ):
        np.testing.assert_allclose(actual, expected, atol=1e-6)


@both
def test_gamma_changes_the_logits_of_every_step(controller_class):
    controller = built(controller_class)
    for low, high in zip(
        run(controller, gamma=-1.0), run(controller, gamma=1.0), strict=True
    ):
        assert rows_differ(low, high)


@both
def test_the_module_chosen_before_matters(controller_class):
    controller = built(controller_class)
    ones = run(controller, choices=(1, 1, 0))
    others = run(controller, choices=(1, 2, 0))
    np.testing.assert_array_equal(ones[1], others[1])
    assert rows_differ(ones[2], others[2])


@pytest.mark.parametrize(
    ("controller_class", "remembers"),
    [(RNNController, True), (FeedForwardController, False)],
)
def test_only_the_hidden_state_of_the_rnn_reaches_over_two_steps(
    controller_class, remembers
):
    controller = built(controller_class)
    inputs = activations()
    logits = run(controller, inputs=inputs)
    inputs[0] += tf.random.stateless_normal(inputs[0].shape, [7, 7])
    changed = run(controller, inputs=inputs)
    assert rows_differ(logits[0], changed[0])
    assert rows_differ(logits[2], changed[2]) == remembers


@pytest.mark.parametrize(
    ("controller_class", "shared"),
    [(RNNController, True), (FeedForwardController, False)],
)
def test_the_rnn_shares_its_cell_between_steps(controller_class, shared):
    """A projection of 5 to 8 with its norm is all that a step adds to it."""
    sizes = []
    for n in (2, 3):
        controller = controller_class(units=8)
        controller.build([(None, 5)] * n, [2] * n, 1)
        sizes.append(controller.count_params())
    projection = 2 * 5 + (5 * 8 + 8)
    assert (sizes[1] - sizes[0] == projection) == shared


@both
def test_rows_do_not_see_each_other(controller_class):
    controller = built(controller_class)
    inputs = activations()
    alone = run(controller, inputs=[step[2:3] for step in inputs])
    for one, all_rows in zip(alone, run(controller), strict=True):
        np.testing.assert_allclose(one, all_rows[2:3], atol=1e-5)


@both
def test_a_batch_of_zero_rows_has_zero_rows_of_logits(controller_class):
    controller = built(controller_class)
    inputs = [step[:0] for step in activations()]
    shapes = [logits.shape for logits in run(controller, inputs=inputs)]
    assert shapes == [(0, m) for m in NUM_MODULES]


@both
def test_all_is_float32_under_mixed_precision(controller_class):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        controller = built(controller_class)
        low = [tf.cast(step, tf.float16) for step in activations()]
        logits = run(controller, inputs=low)
    finally:
        keras.config.set_dtype_policy("float32")
    assert {step.dtype for step in logits} == {tf.float32}
    assert controller.initial_state(2).dtype == tf.float32
    assert {w.dtype for w in controller.weights} == {"float32"}
    exact = run(controller, inputs=[tf.cast(s, tf.float32) for s in low])
    for actual, expected in zip(logits, exact, strict=True):
        np.testing.assert_array_equal(actual, expected)


@both
def test_built_for_images_of_unknown_size_it_takes_known_ones(
    controller_class,
):
    controller = controller_class(units=8)
    controller.build([(None, None, None, 2)], [3], 1)
    features = controller.observe(tf.ones([2, 8, 8, 2]), 0).features
    logits, _ = controller(
        features,
        None,
        tf.zeros([2, 1]),
        controller.initial_state(2),
        index=0,
    )
    assert logits.shape == (2, 3)


@both
@pytest.mark.parametrize("argument", ["units", "grid"])
def test_sizes_below_one_are_refused(controller_class, argument):
    with pytest.raises(ValueError, match=rf"`{argument}`.*at least 1, got 0"):
        controller_class(**{argument: 0})


@both
def test_a_copy_from_its_configs_gives_equal_logits(controller_class):
    controller = built(controller_class, grid=2)
    copy = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(controller)
    )
    assert copy.get_config() == controller.get_config()
    copy.set_weights(controller.get_weights())
    for actual, expected in zip(run(copy), run(controller), strict=True):
        np.testing.assert_array_equal(actual, expected)


@both
def test_one_that_is_not_built_is_serialised_too(controller_class):
    controller = controller_class(units=7, grid=3)
    copy = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(controller)
    )
    assert (copy.units, copy.grid, copy.built) == (7, 3, False)


@both
def test_logits_are_bounded_so_that_every_module_is_tried(controller_class):
    bounded = built(controller_class, max_gap=0.5)
    free = built(controller_class, max_gap=None)
    weights = [50.0 * weight for weight in bounded.get_weights()]
    bounded.set_weights(weights)
    free.set_weights(weights)
    first, *_ = run(bounded)
    raw, *_ = run(free)
    assert np.max(np.abs(raw)) > 0.5
    gaps = raw - np.max(raw, axis=-1, keepdims=True)
    np.testing.assert_allclose(first, np.maximum(gaps, -0.5), atol=1e-5)
    with pytest.raises(ValueError, match="`max_gap` must be above 0"):
        controller_class(max_gap=0.0)


@both
def test_a_price_is_taken_off_the_logits(controller_class):
    controller = built(controller_class, max_gap=None)
    logits = tf.constant([[1.0, 2.0], [-1.0, 0.5]])
    price = tf.constant([[0.25, -1.0], [1.0, 0.0]])
    np.testing.assert_allclose(
        controller.finalize_logits(logits, price), [[-3.0, 18.0], [-17.0, 0.5]]
    )
    controller.price_scale.assign(0.5)
    np.testing.assert_allclose(
        controller.finalize_logits(logits, price), [[0.875, 2.5], [-1.5, 0.5]]
    )


@both
def test_prices_may_be_left_to_be_learned(controller_class):
    controller = built(controller_class, price_factor=0.0, max_gap=None)
    logits = tf.constant([[1.0, 2.0]])
    price = tf.constant([[0.25, -1.0]])
    np.testing.assert_array_equal(
        controller.finalize_logits(logits, price), logits
    )
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="`price_factor` must be finite"):
            controller_class(price_factor=bad)


def test_a_policy_that_was_certain_learns_that_it_is_wrong():
    """By descent from far beyond the bound, where a tanh would stay."""
    controller = RNNController()
    logits = tf.Variable([[12.0, -12.0, 3.0]])
    for _ in range(300):
        with tf.GradientTape() as tape:
            log_probs = tf.nn.log_softmax(
                controller.finalize_logits(logits, None)
            )
            loss = -tf.reduce_sum(log_probs[:, 1])
        logits.assign_sub(0.1 * tape.gradient(loss, logits))
    assert np.argmax(logits[0]) == 1


@both
def test_a_probe_tells_the_controller_how_sure_it_is(controller_class):
    controller = controller_class(units=8, probe=True)
    controller.build(SHAPES, NUM_MODULES, NUM_GAMMAS, True, [3])
    plain = built(controller_class)
    for i, inputs in enumerate(activations()):
        _, features, guess = controller.observe(inputs, i)
        without = plain.observe(inputs, i)
        assert without.guess is None
        assert features.shape[1] == controller.feature_size(i)
        np.testing.assert_allclose(
            features[:, :-5], without.features, atol=1e-6
        )
        probs = np.exp(guess) / np.exp(guess).sum(axis=-1, keepdims=True)
        np.testing.assert_allclose(features[:, -5:-2], probs, atol=1e-6)
        np.testing.assert_allclose(features[:, -2], probs.max(-1), atol=1e-6)
        entropy = -np.sum(probs * np.log(probs), axis=-1)
        np.testing.assert_allclose(features[:, -1], entropy, atol=1e-6)


def test_a_probe_is_trained_by_its_guess_alone_and_trains_nothing_else():
    controller = RNNController(units=8, probe=True)
    controller.build([(None, 6)], [2], 1, True, [3])
    inputs = tf.Variable(tf.random.stateless_normal([5, 6], [1, 2]))
    with tf.GradientTape(persistent=True) as tape:
        _, features, guess = controller.observe(inputs, 0)
        of_features, of_guess = tf.reduce_sum(features**2), guess[0, 0]
    probe = controller.probes[0].kernel
    assert tape.gradient(of_guess, inputs) is None
    assert np.any(tape.gradient(of_guess, probe))
    assert tape.gradient(of_features, probe) is None


@both
@pytest.mark.parametrize("shape", [[], [4, 3], [None]])
def test_a_probe_needs_a_classifier(controller_class, shape):
    with pytest.raises(ValueError, match=r"`probe=True` needs a classifier"):
        controller_class(probe=True).build([(None, 4)], [2], 1, True, shape)


def test_the_summary_has_one_scale_whatever_that_of_activations():
    """Else a baseline of bytes would drown the gradient of all else."""
    controller = RNNController(units=8)
    controller.build([(None, 6)], [2], 1)
    inputs = tf.random.stateless_normal([5, 6], [1, 2])
    plain, large = (controller.observe(s * inputs, 0) for s in (1.0, 1000.0))
    np.testing.assert_allclose(large.summary, plain.summary, atol=0.01)


def test_channels_come_last():
    controller = RNNController(units=8)
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(ValueError, match=r"needs .* channels last"):
            controller.build([(None, 3, 8, 8)], [2], 1)
        controller.build([(None, 8)], [2], 1)
    finally:
        keras.config.set_image_data_format("channels_last")


def test_one_that_is_frozen_before_it_is_built_is_frozen_afterwards():
    controller = RNNController(units=8)
    controller.trainable = False
    controller.build([(None, 6)], [2], 1)
    assert not controller.trainable_variables

"""What all preferences share, and what it takes to write another."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from composer_tf.policy import Policy
from composer_tf.preferences import (
    BatchEntropyPreference,
    Constant,
    EntropyPreference,
    GlimpsePreference,
    LogUniform,
    Preference,
    Uniform,
)
from composer_tf.preferences.preference import serialize


@keras.saving.register_keras_serializable(package="preference_test")
class SwitchPreference(Preference):
    """Against changing the module from one metalayer to the next."""

    def cost(self, policy, gamma):
        choices = policy.choices
        switches = tf.cast(choices[..., 1:] != choices[..., :-1], tf.float32)
        return -gamma * tf.reduce_sum(switches, axis=-1)


ALL = [
    BatchEntropyPreference,
    EntropyPreference,
    GlimpsePreference,
    SwitchPreference,
]


def test_a_user_written_preference_needs_its_cost_only():
    choices = tf.constant([[0, 0, 0], [0, 1, 0], [1, 1, 0]])
    policy = Policy(
        logits=(tf.zeros([3, 2]),) * 3,
        choices=choices,
        module_costs=(tf.ones([2]),) * 3,
    )
    preference = SwitchPreference(Uniform(0.0, 1.0))
    assert preference.name == "switch"
    cost = preference.cost(policy, tf.constant([1.0, 1.0, 0.5]))
    np.testing.assert_array_equal(cost, [0.0, -2.0, -0.5])
    assert preference.credit(policy, tf.ones([3])) is None


@pytest.mark.parametrize(
    ("cost", "got"),
    [
        (lambda choices: tf.reduce_sum(choices), r"\(\)"),
        (lambda choices: choices, r"\(3, 2\)"),
        (lambda choices: tf.zeros([4]), r"\(4,\)"),
        (lambda choices: None, "None"),
    ],
)
def test_a_cost_that_is_not_one_number_per_example_is_refused(cost, got):
    class Bad(SwitchPreference):
        def cost(self, policy, gamma):
            return cost(policy.choices)

    policy = Policy((tf.zeros([3, 2]),) * 2, tf.zeros([3, 2], tf.int32), ())
    wanted = r"`cost` of preference 'bad' must return one number.*here \(3,\)"
    with pytest.raises(ValueError, match=f"{wanted}, got {got}"):
        Bad(1.0).checked_cost(policy, tf.ones([3]))


def test_a_cost_of_another_type_is_cast():
    class Count(SwitchPreference):
        def cost(self, policy, gamma):
            return tf.reduce_sum(policy.choices, axis=-1)

    policy = Policy((tf.zeros([3, 2]),) * 2, tf.ones([3, 2], tf.int32), ())
    cost = Count(1.0).checked_cost(policy, tf.ones([3]))
    assert cost.dtype == tf.float32
    np.testing.assert_array_equal(cost, [2.0, 2.0, 2.0])


def test_arguments_that_saving_would_lose_are_named():
    class Power(SwitchPreference):
        def __init__(self, gamma, joules=1.0, **kwargs):
            super().__init__(gamma, **kwargs)

    with pytest.raises(
        NotImplementedError, match=r"Power must override `get_config`.*joules"
    ):
        serialize(Power(Uniform(0.0, 1.0), joules=2.0))
    for kind in ALL:
        assert serialize(kind(Uniform(0.0, 1.0)))["config"]["default"] == 0.0


def test_the_expected_cost_of_a_user_written_one_comes_for_free():
    """Fair coins at three metalayers switch once on average."""
    paths = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1]), -1).reshape(8, 1, 3)
    every_path = Policy(
        logits=(tf.zeros([8, 1, 2]),) * 3,
        choices=tf.constant(paths, tf.int32),
        module_costs=(tf.ones([2]),) * 3,
    )
    expected = SwitchPreference(1.0).expected_cost(
        every_path, tf.constant([0.5])
    )
    np.testing.assert_allclose(expected, [-0.5], rtol=1e-6)


@pytest.mark.parametrize(
    ("preference_class", "name"),
    [
        (BatchEntropyPreference, "batch_entropy"),
        (EntropyPreference, "entropy"),
        (GlimpsePreference, "glimpse"),
        (SwitchPreference, "switch"),
    ],
)
def test_names_follow_the_class(preference_class, name):
    assert preference_class(0.1).name == name
    assert preference_class(0.1, name="mine").name == "mine"


@pytest.mark.parametrize(
    ("gamma", "default"),
    [
        (Uniform(-2.0, 6.0), 0.0),
        (Uniform(1.0, 3.0), 1.0),
        (Uniform(-3.0, -1.0), -1.0),
        (LogUniform(0.01, 10.0), 0.01),
        (0.3, 0.3),
    ],
)
def test_the_default_is_the_supports_nearest_to_zero(gamma, default):
    assert GlimpsePreference(gamma).default == default


def test_a_default_of_ones_own_is_kept():
    preference = GlimpsePreference(Uniform(-2.0, 6.0), default=1.5)
    assert preference.default == 1.5


@pytest.mark.parametrize("default", [-2.1, 7.0, float("nan")])
def test_a_default_outside_the_support_is_refused(default):
    with pytest.raises(ValueError, match=r"`default`.*\[-2.0, 6.0\]"):
        GlimpsePreference(Uniform(-2.0, 6.0), default=default)


def test_an_unknown_per_is_refused():
    with pytest.raises(ValueError, match=r"`per`.*got 'epoch'"):
        GlimpsePreference(1.0, per="epoch")


def test_only_a_constant_is_not_steerable():
    assert GlimpsePreference(Uniform(0.0, 1.0)).steerable
    assert not GlimpsePreference(1.0).steerable
    assert not GlimpsePreference(Constant(1.0)).steerable


@pytest.mark.parametrize(("per", "different"), [("example", 6), ("batch", 1)])
def test_gamma_is_sampled_per_example_or_per_batch(per, different):
    preference = GlimpsePreference(Uniform(-2.0, 6.0), per=per)
    gamma = preference.sample(6, tf.constant([1, 2])).numpy()
    assert gamma.shape == (6,)
    assert gamma.dtype == np.float32
    assert len(np.unique(gamma)) == different


def test_samples_depend_on_the_seed_only():
    preference = GlimpsePreference(Uniform(-2.0, 6.0))
    first = preference.sample(6, tf.constant([1, 2]))
    np.testing.assert_array_equal(
        first, preference.sample(6, tf.constant([1, 2]))
    )
    assert not np.any(first == preference.sample(6, tf.constant([1, 3])))


def test_samples_of_a_batch_of_unknown_size():
    preference = GlimpsePreference(Uniform(-2.0, 6.0))

    @tf.function(input_signature=[tf.TensorSpec([], tf.int32)])
    def sample(batch_size):
        return preference.sample(batch_size, tf.constant([1, 2]))

    assert sample(3).shape == (3,)
    assert sample(0).shape == (0,)


@pytest.mark.parametrize("preference_class", ALL)
def test_configs_rebuild_the_preference(preference_class):
    preference = preference_class(
        LogUniform(0.5, 2.0), per="example", default=1.5, name="mine"
    )
    copy = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(preference)
    )
    assert type(copy) is preference_class
    assert isinstance(copy.gamma, LogUniform)
    assert copy.get_config() == preference.get_config()
    np.testing.assert_array_equal(
        copy.sample(3, tf.constant([1, 2])),
        preference.sample(3, tf.constant([1, 2])),
    )

"""Training on two replicas is training on one, with the batch spread out."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import composer_tf as ct
from composer_tf.composer import policy_gradient_model
from composer_tf.static_networks.early_exit_network import EarlyExitNetwork
from composer_tf.static_networks.exit_stage import ExitStage
from composer_tf.static_networks.path_network import PathNetwork
from tests.small_training import X, Y, make

layers = keras.layers

WEIGHTS = np.linspace(0.0, 2.0, len(X), dtype="float32")


def preferences():
    return [
        ct.GlimpsePreference(ct.Uniform(-1.0, 2.0)),
        ct.BatchEntropyPreference(ct.Uniform(0.0, 0.5)),
    ]


def compiled(options=dict, reward=None):
    keras.utils.set_random_seed(0)  # Layers among the options draw from it.
    model = make(**{"preferences": preferences(), **options()})
    model.build((None, X.shape[1]))
    model.compile(
        keras.optimizers.SGD(0.05), metrics=["accuracy"], reward=reward
    )
    return model


def batches(*arrays, size=16):
    return tf.data.Dataset.from_tensor_slices((X, Y, *arrays)).batch(size)


def assert_same_weights(one, two):
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


OPTIONS = {
    "reinforce": dict,
    "batch_mean, penalty": lambda: {
        "estimator": ct.Reinforce("batch_mean"),
        "stem": layers.Dense(6, kernel_regularizer=keras.regularizers.L2(0.1)),
    },
    "moving_average, probe": lambda: {
        "estimator": ct.Reinforce("moving_average"),
        "controller": ct.RNNController(units=4, probe=True),
    },
    "leave_one_out": lambda: {"estimator": ct.LeaveOneOut(2)},
    "exact, sandwich": lambda: {
        "estimator": "exact",
        "sandwich": ct.Sandwich(distillation=0.5, random=0.5),
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS)
def test_a_hundred_steps_give_the_weights_of_one_device(two_replicas, options):
    reward = "probability" if "probe" in options else None
    one = compiled(OPTIONS[options], reward)
    with two_replicas.scope():
        two = compiled(OPTIONS[options], reward)
    data = batches(WEIGHTS).repeat(25)
    assert data.cardinality() == 100
    logs = one.fit(data, verbose=0).history
    logs_of_two = two.fit(data, verbose=0).history
    assert_same_weights(one, two)
    for name, values in logs.items():
        np.testing.assert_allclose(values, logs_of_two[name], atol=1e-4)


@pytest.mark.parametrize("size", [63, 48, 21])
def test_rows_that_do_not_divide_evenly_count_alike(two_replicas, size):
    """A batch of 63 leaves 1 row, which leaves the second replica none."""
    one = compiled()
    with two_replicas.scope():
        two = compiled()
    data = batches(size=size)
    assert data.cardinality() > 1
    # Uneven shares draw other noise: compared is what takes no sample.
    (before,) = one.evaluate(data, verbose=0)[:1]
    assert two.evaluate(data, verbose=0)[0] == pytest.approx(before, abs=1e-5)
    logs = two.fit(data, epochs=2, verbose=0).history
    assert all(np.isfinite(values).all() for values in logs.values())


def test_predictions_keep_their_order(two_replicas):
    one = compiled()
    with two_replicas.scope():
        two = compiled()
    gamma = {"glimpse": np.linspace(-1.0, 2.0, len(X), dtype="float32")}
    np.testing.assert_allclose(
        two.predict(X, gamma=gamma, verbose=0),
        one.predict(X, gamma=gamma, verbose=0),
        atol=1e-6,
    )


def test_a_model_of_replicas_loads_on_one_device(two_replicas, tmp_path):
    with two_replicas.scope():
        two = compiled()
    two.fit(batches(), shuffle=False, verbose=0)
    two.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        loaded.predict(X, verbose=0), two.predict(X, verbose=0), atol=1e-6
    )


@pytest.mark.parametrize(
    ("optimizer", "arguments", "named"),
    [
        ("sgd", {"jit_compile": True}, "jit_compile"),
        ("sgd", {"steps_per_execution": 4}, "steps_per_execution"),
        (keras.optimizers.SGD(clipnorm=1.0), {}, "clipnorm"),
        (keras.optimizers.SGD(global_clipnorm=1.0), {}, "global_clipnorm"),
        (keras.optimizers.SGD(clipvalue=1.0), {}, "clipvalue"),
        (
            keras.optimizers.MultiOptimizer(
                keras.optimizers.OptimizerMap(
                    keras.optimizers.SGD(clipnorm=1.0)
                )
            ),
            {},
            "clipnorm",
        ),
        (
            keras.optimizers.SGD(gradient_accumulation_steps=2),
            {},
            "gradient_accumulation_steps",
        ),
        (keras.optimizers.SGD(use_ema=True), {}, "use_ema"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_replicas_cannot_do_is_refused(
    two_replicas, optimizer, arguments, named
):
    with two_replicas.scope():
        model = make()
        with pytest.raises(ValueError, match=f"`{named}"):
            model.compile(optimizer, **arguments)
    make().compile(optimizer, **arguments)  # One device can.


def test_one_replica_trains_as_no_strategy_does(monkeypatch):
    # Many weights have their update fused, but not within a strategy.
    monkeypatch.setattr(policy_gradient_model, "_FUSED_FROM", 0)
    alone = compiled()
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        one = compiled()
    for model in (alone, one):
        model.fit(batches(), shuffle=False, verbose=0)
    assert_same_weights(one, alone)


def test_distributions_of_keras_are_refused():
    model = make()
    try:
        keras.distribution.set_distribution(
            keras.distribution.DataParallel(devices=["cpu:0", "cpu:1"])
        )
        with pytest.raises(ValueError, match=r"`keras.distribution. does"):
            model.compile("sgd")
    finally:
        keras.distribution.set_distribution(None)
    model.compile("sgd")


def normalised(where, **options):
    """With batch normalization over all replicas, in the stem or a module."""

    def dense(units, name):
        if where != name:
            return layers.Dense(units)
        normalization = layers.BatchNormalization(synchronized=True)
        return keras.Sequential([layers.Dense(units), normalization])

    def all_options():
        modules = [dense(3, "module") for _ in range(2)]
        return {
            "stem": dense(6, "stem"),
            "metalayers": [ct.Metalayer(modules)],
            "costs": [[0.5, 1.0]],
            **options,
        }

    return compiled(all_options)


@pytest.mark.parametrize(
    ("where", "options"),
    [
        ("stem", {}),
        ("module", {"routing": "dense"}),
        ("module", {"estimator": "exact"}),
    ],
)
def test_synchronized_normalization_sees_the_whole_batch(
    two_replicas, where, options
):
    one = normalised(where, **options)
    with two_replicas.scope():
        two = normalised(where, **options)
    for model in (one, two):
        model.fit(batches(), epochs=3, verbose=0)
    assert_same_weights(one, two)


def test_modules_that_may_not_run_do_not_synchronize(two_replicas):
    with two_replicas.scope():
        model = normalised("module")
    with pytest.raises(ValueError, match=r"synchronized=True.*routing='dense'"):
        model.fit(batches(), verbose=0)
    model.predict(X, verbose=0)  # Where nothing is joined.
    normalised("module").fit(batches(), verbose=0)  # One device can.


def test_loss_scaling_is_refused(two_replicas):
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
    with (
        two_replicas.scope(),
        pytest.raises(ValueError, match="mixed_bfloat16"),
    ):
        make().compile(optimizer)


def test_arrays_train_a_model_that_is_not_built(two_replicas):
    with two_replicas.scope():
        model = make()
        model.compile("sgd")
    logs = model.fit(X, Y, batch_size=16, verbose=0).history
    assert np.isfinite(logs["loss"]).all()


def test_several_workers_do_not_shuffle_arrays(monkeypatch):
    model = make()
    model.compile("sgd")
    monkeypatch.setattr(type(model), "_is_multi_worker", True)
    with pytest.raises(ValueError, match="`shuffle` False"):
        model.fit(X, Y, verbose=0)


def test_a_model_of_xla_loads_on_replicas(two_replicas, tmp_path):
    model = make()
    model.compile("sgd", jit_compile=True, steps_per_execution=2)
    model.fit(X, Y, batch_size=16, verbose=0)
    model.save(tmp_path / "model.keras")
    with two_replicas.scope():
        loaded = keras.models.load_model(tmp_path / "model.keras")
    loaded.fit(X, Y, batch_size=16, verbose=0)


def with_exits():
    keras.utils.set_random_seed(0)
    network = EarlyExitNetwork(
        [
            ExitStage([layers.Dense(8, "relu")], num_classes=3),
            ExitStage([layers.Dense(3, kernel_regularizer="l2")]),
        ]
    )
    network.build((None, X.shape[1]))
    network.compile(
        keras.optimizers.SGD(0.05),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        weighted_metrics=["accuracy"],
    )
    return network


@pytest.mark.parametrize("weights", [[], [WEIGHTS]], ids=["plain", "weighted"])
def test_a_network_with_exits_trains_as_on_one_device(
    two_replicas, tmp_path, weights
):
    one = with_exits()
    with two_replicas.scope():
        two = with_exits()
    data = batches(*weights)
    logs = one.fit(data, epochs=10, verbose=0).history
    logs_of_two = two.fit(data, epochs=10, verbose=0).history
    assert_same_weights(one, two)
    for name, values in logs.items():
        np.testing.assert_allclose(values, logs_of_two[name], atol=1e-5)
    evaluated = one.evaluate(data, verbose=0)
    np.testing.assert_allclose(two.evaluate(data, verbose=0), evaluated, 1e-5)
    two.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    np.testing.assert_allclose(
        loaded.predict(X, verbose=0), two.predict(X, verbose=0), atol=1e-6
    )


def test_a_network_of_one_path_trains_on_replicas(two_replicas, tmp_path):
    def network():
        keras.utils.set_random_seed(0)
        composer = make()
        composer.build((None, X.shape[1]))
        network = PathNetwork(composer.layers_along([1]))
        network.build((None, X.shape[1]))
        network.compile(
            keras.optimizers.SGD(0.05),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        return network

    one = network()
    with two_replicas.scope():
        two = network()
    one.fit(batches(), shuffle=False, verbose=0)
    two.fit(batches(), shuffle=False, verbose=0)
    assert_same_weights(one, two)
    two.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    assert_same_weights(loaded, two)

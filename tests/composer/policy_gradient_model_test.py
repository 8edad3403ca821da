"""Training behind Keras's verbs: what a Keras user expects to work, works."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import composer_tf as ct
from tests.small_training import (
    X,
    Y,
    assert_same_state,
    compiled,
    data,
    make,
    state,
)

layers = keras.layers


@pytest.mark.parametrize(
    "estimator",
    [
        "exact",
        "leave_one_out",
        *[ct.Reinforce(b) for b in ("batch_mean", "moving_average", "learned")],
    ],
    ids=["exact", "leave_one_out", "batch_mean", "moving_average", "learned"],
)
def test_fit_lowers_the_loss_with_every_estimator(estimator):
    model = compiled(
        keras.optimizers.Adam(0.02),
        estimator=estimator,
        metrics=["accuracy"],
    )
    history = model.fit(X, Y, epochs=25, batch_size=16, verbose=0).history
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    assert history["accuracy"][-1] > 0.7
    assert {"cost", "reward", "entropy"} <= set(history)


def test_the_controller_learns_to_follow_gamma():
    model = compiled(
        keras.optimizers.Adam(0.02),
        preferences=[ct.GlimpsePreference(ct.Uniform(-5.0, 5.0))],
    )
    model.fit(X, Y, epochs=40, batch_size=16, verbose=0)
    at = {
        gamma: model.evaluate(X, Y, gamma=gamma, verbose=0, return_dict=True)
        for gamma in (-5.0, 5.0)
    }
    assert at[-5.0]["cost"] == pytest.approx(1.0)
    cheapest = model.overhead + model.cost_table.fractions[0][0]
    assert at[5.0]["cost"] == pytest.approx(cheapest)


def test_models_that_are_trained_stay_as_they_are_and_are_chosen_from():
    modules = []
    for units in (1, 64):
        module = keras.Sequential([layers.Dense(units), layers.Dense(3)])
        module.compile(
            keras.optimizers.Adam(0.02),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        module.fit(X, Y, epochs=5, verbose=0)
        module.trainable = False
        modules.append(module)
    before = [module.get_weights() for module in modules]
    model = ct.Composer(
        [ct.Metalayer(modules)],
        controller=ct.FeedForwardController(4),
        preferences=[ct.GlimpsePreference(ct.Uniform(-5.0, 5.0))],
    )
    model.compile(keras.optimizers.Adam(0.02), metrics=["accuracy"])
    logs = model.fit(X, Y, epochs=5, verbose=0).history
    # The logs are of the whole, not of what its modules were compiled with.
    assert min(logs["loss"]) > 0.0
    assert min(logs["accuracy"]) > 0.0
    for gamma, module, weights in zip(
        (5.0, -5.0), modules, before, strict=True
    ):
        for now, then in zip(module.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(now, then)
        whole = model.evaluate(X, Y, gamma=gamma, verbose=0, return_dict=True)
        alone = module.evaluate(X, Y, verbose=0, return_dict=True)
        assert whole["loss"] == pytest.approx(alone["loss"], abs=1e-5)
        assert whole["accuracy"] == pytest.approx(alone["accuracy"])


def test_logs_are_what_evaluate_measures_by_hand():
    model = compiled(metrics=["accuracy"])
    logs = model.evaluate(X, Y, gamma=1.0, verbose=0, return_dict=True)
    composition = model(X, gamma=1.0, return_composition=True)
    losses = keras.losses.sparse_categorical_crossentropy(
        Y, composition.outputs, from_logits=True
    )
    cost = model.overhead + composition.policy.path_cost
    reward = -losses - composition.policy.path_cost
    assert logs["loss"] == pytest.approx(np.mean(losses), abs=1e-5)
    assert logs["cost"] == pytest.approx(np.mean(cost), abs=1e-5)
    assert logs["reward"] == pytest.approx(np.mean(reward), abs=1e-5)
    hits = np.argmax(composition.outputs, -1) == Y
    assert logs["accuracy"] == pytest.approx(np.mean(hits))


def cost(y_true, y_pred):
    return tf.ones(tf.shape(y_pred)[0])


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("cost", "cost"),
        ("cost", cost),
        ("entropy", keras.metrics.CategoricalCrossentropy(name="entropy")),
        ("reward", keras.metrics.MeanMetricWrapper(cost, name="reward")),
        ("loss", keras.metrics.MeanSquaredError(name="loss")),
    ],
    ids=["name", "function", "entropy", "reward", "loss"],
)
def test_a_metric_named_as_what_is_logged_anyway_is_refused(name, metric):
    for argument in ("metrics", "weighted_metrics"):
        for given in ([metric], ["accuracy", metric], [["accuracy", metric]]):
            with pytest.raises(ValueError, match=f"{name}.* another name"):
                make().compile(**{argument: given})


def test_a_metric_of_another_name_is_logged_beside_the_cost():
    given = keras.metrics.MeanMetricWrapper(cost, name="my_cost")
    model = compiled(metrics=[given, "accuracy"])
    logs = model.evaluate(X, Y, verbose=0, return_dict=True)
    assert logs["my_cost"] == 1.0
    assert logs["cost"] == pytest.approx(
        np.mean(model(X, return_composition=True).cost)
    )


def test_examples_of_no_weight_do_not_train():
    weights = np.concatenate([np.ones(32), np.zeros(32)])
    other = np.concatenate([Y[:32], 2 - Y[32:]])
    models = []
    for labels in (Y, other):
        model = compiled(estimator=ct.Reinforce("none"))
        model.train_on_batch(X, labels, sample_weight=weights)
        models.append(model)
    assert_same_state(*models)


def test_class_weights_are_sample_weights():
    by_class = compiled()
    by_class.fit(
        X, Y, class_weight={0: 2.0, 1: 0.5, 2: 1.0}, batch_size=64, verbose=0,
        shuffle=False,
    )  # fmt: skip
    by_sample = compiled()
    by_sample.fit(
        X, Y, sample_weight=np.array([2.0, 0.5, 1.0])[Y], batch_size=64,
        verbose=0, shuffle=False,
    )  # fmt: skip
    assert_same_state(by_class, by_sample)


class Squares(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return tf.reduce_mean(tf.square(y_true - y_pred), axis=-1)


@pytest.mark.parametrize(
    "loss", [Squares(), lambda t, p: tf.reduce_mean(tf.square(t - p), -1)]
)
def test_integer_targets_train_as_in_keras(loss):
    model = compiled(keras.optimizers.Adam(0.02), loss=loss)
    targets = np.eye(3, dtype=np.int64)[Y]
    history = model.fit(X, targets, epochs=15, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]


def test_a_loss_that_sums_over_the_batch_is_refused():
    loss = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction="sum"
    )
    with pytest.raises(ValueError, match=r"`loss` must .* got 'sum'"):
        compiled(loss=loss)


@pytest.mark.parametrize(
    ("loss", "targets"),
    [
        ("mse", X[:, :3]),
        (keras.losses.Huber(), X[:, :3]),
        (keras.losses.BinaryCrossentropy(from_logits=True), X[:, :3] > 0),
        (keras.losses.CategoricalCrossentropy(from_logits=True), np.eye(3)[Y]),
        (lambda t, p: keras.ops.mean(keras.ops.abs(t - p), -1), X[:, :3]),
    ],
    ids=["regression", "huber", "multi-label", "one-hot", "function"],
)
def test_any_loss_is_a_reward(loss, targets):
    targets = targets.astype("float32")
    model = compiled(keras.optimizers.Adam(0.02), loss=loss)
    history = model.fit(X, targets, epochs=15, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]


def test_a_binary_classifier_with_one_output():
    model = make(
        metalayers=[ct.Metalayer([layers.Dense(1), layers.Dense(1)])],
    )
    model.compile(
        keras.optimizers.Adam(0.05),
        keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy(threshold=0.0)],
    )
    history = model.fit(X, Y > 0, epochs=20, verbose=0).history
    assert history["binary_accuracy"][-1] > 0.7


def test_gamma_given_as_data_is_used_in_training():
    model = compiled()
    seen = []
    original = model.preferences.scale
    model.preferences.scale = lambda g: seen.append(g) or original(g)
    model.compile("sgd", run_eagerly=True)
    gamma = np.linspace(-1.0, 2.0, 64).astype("float32")
    model.train_on_batch({"image": X, "gamma": gamma}, Y)
    np.testing.assert_array_equal(seen[-1][:, 0], gamma)


@pytest.mark.parametrize("gamma", [np.float32(2.0), 2.0, {"glimpse": 2.0}])
def test_one_gamma_for_all_may_be_given_as_data(gamma):
    model = compiled()
    seen = []
    original = model.preferences.scale
    model.preferences.scale = lambda g: seen.append(g) or original(g)
    model.compile("sgd", run_eagerly=True)
    model.fit({"image": X, "gamma": gamma}, Y, batch_size=64, verbose=0)
    np.testing.assert_array_equal(seen[-1], np.full([64, 1], 2.0))


def test_gamma_is_sampled_anew_in_each_step():
    model = compiled()
    seen = []
    original = model.preferences.scale
    model.preferences.scale = lambda g: seen.append(g) or original(g)
    model.compile("sgd", run_eagerly=True)
    model.fit(X, Y, batch_size=32, verbose=0)
    first, second = seen[-2:]
    assert len(np.unique(first)) > 30
    assert not np.any(np.isin(first, second))


def test_several_steps_per_execution_train_the_same():
    models = []
    for steps in (1, 4):
        model = compiled(steps_per_execution=steps)
        model.fit(data(), epochs=2, verbose=0)
        models.append(model)
    assert_same_state(*models)


def test_xla_trains():
    model = compiled(keras.optimizers.Adam(0.02), jit_compile=True)
    history = model.fit(data(), epochs=15, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]


def test_partition_and_dense_train_the_same():
    models = []
    for routing in ("dense", "partition"):
        model = compiled(routing=routing)
        model.fit(data(), epochs=2, verbose=0)
        models.append(model)
    for a, b in zip(*map(state, models), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_xla_is_refused_with_partition_routing():
    with pytest.raises(ValueError, match="jit_compile=True"):
        compiled(routing="partition", jit_compile=True)


def test_mixed_precision_trains():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = compiled(keras.optimizers.Adam(0.02))
        history = model.fit(X, Y, epochs=15, verbose=0).history
    finally:
        keras.config.set_dtype_policy("float32")
    assert history["loss"][-1] < history["loss"][0]


def test_batch_normalisation_and_dropout_inside_modules():
    def module():
        return keras.Sequential(
            [layers.Dense(4), layers.BatchNormalization(), layers.Dropout(0.2)]
        )

    model = compiled(metalayers=[ct.Metalayer([module() for _ in range(5)])])
    model.fit(X, Y, batch_size=4, epochs=3, verbose=0)
    assert all(np.all(np.isfinite(w)) for w in model.weights)


def test_a_regularizer_inside_a_module_counts():
    def loss_of(factor):
        keras.utils.set_random_seed(0)
        regularizer = keras.regularizers.L2(factor)
        model = compiled(
            metalayers=[
                ct.Metalayer(
                    [
                        layers.Dense(3, kernel_regularizer=regularizer),
                        layers.Dense(3),
                    ]
                )
            ],
        )
        logs = model.evaluate(X, Y, verbose=0, return_dict=True)
        kernel = model.routed_layers[0].modules[0].kernel
        return logs["loss"], float(np.sum(kernel.numpy() ** 2))

    (plain, _), (penalised, norm) = loss_of(0.0), loss_of(0.5)
    assert penalised - plain == pytest.approx(0.5 * norm, rel=1e-4)


def test_clipping_bounds_the_update():
    model = compiled(keras.optimizers.SGD(1.0, global_clipnorm=1e-3))
    model.build((None, 6))
    before = state(model)[: len(model.weights)]
    model.train_on_batch(X, Y)
    after = state(model)[: len(model.weights)]
    square = sum(
        np.sum((b - a) ** 2) for a, b in zip(before, after, strict=True)
    )
    assert 0 < np.sqrt(square) < 1.001e-3


def test_several_losses_are_refused():
    with pytest.raises(TypeError, match="one loss"):
        compiled(loss=["mse", "mse"])
    with pytest.raises(ValueError, match="loss_weights"):
        make().compile("sgd", loss_weights=[1.0])


def test_too_many_paths_to_enumerate_are_refused():
    model = make(
        metalayers=[
            ct.Metalayer([layers.Dense(3) for _ in range(4)]) for _ in range(5)
        ],
        estimator="exact",
    )
    model.compile("sgd")
    with pytest.raises(ValueError, match="1024"):
        model.fit(X, Y, verbose=0)


@pytest.mark.parametrize("high", [4.0, 10.0])
def test_gammas_that_are_mostly_high_leave_the_whole_range_to_use(high):
    """Plain REINFORCE, on classes that a linear module cannot tell apart."""
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    x = random.normal(size=[512, 8]).astype(np.float32)
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    dense = keras.layers.Dense

    def metalayer():
        large = keras.Sequential([dense(32, "relu"), dense(8)])
        return ct.Metalayer([dense(8), large])

    model = ct.Composer(
        [metalayer(), metalayer(), dense(2)],
        preferences=[ct.GlimpsePreference(ct.Uniform(-1.0, high))],
        costs=[[0.1, 1.0], [0.1, 1.0]],
        seed=0,
    )
    model.compile(keras.optimizers.Adam(0.01))
    model.fit(x, y, epochs=30, batch_size=64, verbose=0)

    def run(gamma):
        composition = model(x, gamma=gamma, return_composition=True)
        hits = np.argmax(composition.outputs, axis=-1) == y
        return np.mean(composition.policy.path_cost), np.mean(hits)

    cost, accuracy = run(-1.0)
    assert cost > 0.95
    assert accuracy > 0.8  # A linear module has 0.5.
    cost, _ = run(high)
    assert cost < 0.15


def test_arguments_of_compile_beyond_the_loss_go_by_name():
    """Else those of Keras, whose order is another, would be taken for ours."""
    with pytest.raises(TypeError, match="positional"):
        make().compile("sgd", None, None, ["accuracy"])


def test_a_loss_that_would_not_be_used_is_refused():
    class Own(ct.Composer):
        def compute_loss(self, *args, **kwargs):
            return super().compute_loss(*args, **kwargs)

    model = Own([ct.Metalayer([layers.Dense(3), layers.Dense(3)])])
    with pytest.raises(TypeError, match="`compute_loss` of a subclass"):
        model.compile("sgd")


def test_an_estimator_serves_one_shape_of_context():
    estimator = ct.Reinforce()
    of_four, of_six = (
        ct.Composer(
            [ct.Metalayer([layers.Dense(3), layers.Dense(3)])],
            estimator=estimator,
        )
        for _ in range(2)
    )
    of_four.build((None, 4))
    with pytest.raises(ValueError, match=r"`estimator` .*\(None, 4\).* own"):
        of_six.build((None, 6))

"""Every strategy against the definition: row i is f_{c_i}(x_i) alone."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from composer_tf.layers import Metalayer, routing

L = keras.layers

BATCH = 5
LAZY = ["partition", "serving", "branch", "scatter", "static_scatter"]
SPLITS = {
    "two modules get no row": [1, 1, 1, 1, 1],
    "one module gets one row": [0, 0, 2, 0, 0],
    "one row each and more": [2, 0, 1, 2, 2],
}


def make_modules(kind):
    """Three modules of one kind, the shape of a row in and of a row out."""
    if kind == "dense":
        modules = [
            L.Dense(3),
            L.Dense(3, "tanh"),
            keras.Sequential([L.Dense(7, "tanh"), L.Dense(3)]),
        ]
        row, out = (4,), (3,)
    elif kind == "conv2d":
        modules = [
            L.Conv2D(3, 3, padding="same"),
            L.Conv2D(3, 1),
            keras.Sequential(
                [L.Conv2D(5, 3, padding="same"), L.Conv2D(3, 3, padding="same")]
            ),
        ]
        row, out = (4, 4, 2), (4, 4, 3)
    elif kind == "batch_norm":
        modules = [L.BatchNormalization() for _ in range(3)]
        row, out = (4,), (4,)
    else:
        modules = [L.LSTM(3), L.LSTM(3, go_backwards=True), L.LSTM(3)]
        row, out = (4, 2), (3,)
    for module in modules:
        module.build((None, *row))
    if kind == "batch_norm":
        for i, module in enumerate(modules):
            module.moving_mean.assign(tf.fill([4], 0.5 * i))
            module.moving_variance.assign(tf.fill([4], 1.0 + i))
    return modules, row, tf.TensorShape(out)


def in_mode(mode, function, row):
    """A function of inputs and choices, eager or as one graph for any batch."""
    if mode == "eager":
        return function
    signature = [
        tf.TensorSpec([None, *row]),
        tf.TensorSpec([None], tf.int32),
    ]
    return tf.function(function, input_signature=signature)


def row_by_row(modules, inputs, choices):
    """What (4) says, without any routing."""
    rows = [modules[c](inputs[i : i + 1]) for i, c in enumerate(choices)]
    return tf.concat(rows, axis=0)


def value_and_gradients(forward, modules, inputs, seed_of_loss):
    """Outputs, and gradients of a weighted sum of them."""
    weights = [w.value for m in modules for w in m.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = forward(inputs)
        mask = tf.random.stateless_normal(tf.shape(outputs), seed_of_loss)
        loss = tf.reduce_sum(mask * outputs)
    gradients = tape.gradient(
        loss,
        [inputs, *weights],
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    return [tf.convert_to_tensor(t) for t in (outputs, *gradients)]


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("strategy", ["dense", *LAZY])
@pytest.mark.parametrize("kind", ["dense", "conv2d", "batch_norm", "lstm"])
def test_values_and_gradients_are_those_of_each_row_alone(kind, strategy, mode):
    modules, row, out = make_modules(kind)
    inputs = tf.random.stateless_normal([BATCH, *row], [1, 2])

    def routed(inputs, choices):
        return value_and_gradients(
            lambda x: routing.STRATEGIES[strategy](
                modules, x, choices, out, "float32"
            ),
            modules,
            inputs,
            [3, 4],
        )

    routed = in_mode(mode, routed, row)
    for name, choices in SPLITS.items():
        expected = value_and_gradients(
            lambda x, choices=choices: row_by_row(modules, x, choices),
            modules,
            inputs,
            [3, 4],
        )
        actual = routed(inputs, tf.constant(choices))
        for a, e in zip(actual, expected, strict=True):
            np.testing.assert_allclose(a, e, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("strategy", [s for s in LAZY if s != "static_scatter"])
@pytest.mark.parametrize("kind", ["dense", "conv2d", "batch_norm", "lstm"])
def test_a_batch_may_have_zero_rows(kind, strategy, mode):
    modules, row, out = make_modules(kind)

    def routed(inputs, choices):
        return value_and_gradients(
            lambda x: routing.STRATEGIES[strategy](
                modules, x, choices, out, "float32"
            ),
            modules,
            inputs,
            [3, 4],
        )

    routed = in_mode(mode, routed, row)
    outputs, *gradients = routed(tf.zeros([0, *row]), tf.zeros([0], tf.int32))
    assert outputs.shape == [0, *out]
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, np.zeros(gradient.shape))


@pytest.mark.parametrize("strategy", ["dense", *LAZY])
def test_a_graph_knows_the_static_shape_of_the_output(strategy):
    modules, row, out = make_modules("conv2d")

    def routed(inputs, choices):
        return routing.STRATEGIES[strategy](
            modules, inputs, choices, out, "float32"
        )

    graph = in_mode("graph", routed, row).get_concrete_function()
    assert graph.output_shapes.as_list() == [None, *out]


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("strategy", LAZY)
def test_a_module_without_rows_does_not_run(strategy, mode):
    runs = [tf.Variable(0), tf.Variable(0), tf.Variable(0)]

    def counting(counter, inputs):
        counter.assign_add(1)
        return inputs

    modules = [functools.partial(counting, counter) for counter in runs]

    def routed(inputs, choices):
        return routing.STRATEGIES[strategy](
            modules, inputs, choices, tf.TensorShape([2]), "float32"
        )

    if mode == "graph":
        routed = tf.function(routed)
    per_row = strategy == "branch"
    routed(tf.ones([4, 2]), tf.constant([0, 2, 0, 2]))
    expected = [2, 0, 2] if per_row else [1, 0, 1]
    assert [counter.numpy() for counter in runs] == expected
    routed(tf.ones([4, 2]), tf.constant([2, 2, 2, 2]))
    expected[2] += 4 if per_row else 1
    assert [counter.numpy() for counter in runs] == expected


@pytest.mark.parametrize("num_modules", [1, 2, 3, 5, 8])
def test_branch_finds_every_module_of_a_single_row(num_modules):
    modules = [functools.partial(tf.add, float(i)) for i in range(num_modules)]

    @tf.function
    def routed(choice):
        return routing.branch(
            modules, tf.zeros([1, 2]), choice, tf.TensorShape([2]), "float32"
        )

    for i in range(num_modules):
        np.testing.assert_array_equal(routed(tf.constant([i])), [[i, i]])


def test_branch_takes_a_logarithm_of_conditions():
    modules = [functools.partial(tf.add, float(i)) for i in range(64)]

    def depth(graph):
        branches = [
            graph._get_function(op.get_attr(name).name).graph
            for op in graph.get_operations()
            if op.type in ("If", "StatelessIf")
            for name in ("then_branch", "else_branch")
        ]
        return 1 + max(map(depth, branches)) if branches else 0

    graph = (
        tf.function(routing.branch)
        .get_concrete_function(
            modules,
            tf.TensorSpec([1, 2]),
            tf.TensorSpec([1], tf.int32),
            tf.TensorShape([2]),
            "float32",
        )
        .graph
    )
    assert depth(graph) == 6


def test_unguarded_scatter_gives_the_same():
    modules, row, out = make_modules("dense")
    inputs = tf.random.stateless_normal([BATCH, *row], [1, 2])
    for choices in SPLITS.values():
        np.testing.assert_allclose(
            routing.unguarded_scatter(
                modules, inputs, tf.constant(choices), out, "float32"
            ),
            row_by_row(modules, inputs, choices),
            atol=1e-5,
        )


def test_batch_norm_without_rows_keeps_its_statistics_in_training():
    chosen, idle = L.BatchNormalization(), L.BatchNormalization()
    for module in (chosen, idle):
        module.build((None, 2))
    modules = [functools.partial(m, training=True) for m in (chosen, idle)]
    inputs = tf.random.stateless_normal([6, 2], [1, 2]) + 5.0

    tf.function(routing.partition)(
        modules, inputs, tf.zeros([6], tf.int32), tf.TensorShape([2]), "float32"
    )

    np.testing.assert_array_equal(idle.moving_mean, [0.0, 0.0])
    np.testing.assert_array_equal(idle.moving_variance, [1.0, 1.0])
    np.testing.assert_allclose(
        chosen.moving_mean, 0.01 * np.mean(inputs, axis=0), rtol=1e-5
    )


@pytest.mark.parametrize("strategy", ["dense", *LAZY])
def test_nan_of_a_module_stays_in_the_rows_that_chose_it(strategy):
    modules = [lambda x: 2.0 * x, lambda x: x * np.nan, lambda x: x / 0.0]
    outputs = routing.STRATEGIES[strategy](
        modules,
        tf.ones([4, 1]),
        tf.constant([0, 1, 0, 2]),
        tf.TensorShape([1]),
        "float32",
    )
    np.testing.assert_array_equal(outputs[:, 0], [2.0, np.nan, 2.0, np.inf])


@pytest.mark.parametrize("strategy", ["dense", *LAZY])
def test_outputs_of_modules_of_different_precision_are_cast(strategy):
    modules = [L.Dense(3, dtype="float16"), L.Dense(3, dtype="float64")]
    outputs = routing.STRATEGIES[strategy](
        modules,
        tf.ones([2, 4]),
        tf.constant([0, 1]),
        tf.TensorShape([3]),
        "float32",
    )
    assert outputs.dtype == tf.float32


def test_activity_regularizer_under_partition_names_the_way_out():
    module = L.Dense(3, activity_regularizer="l2", name="regularized")
    metalayer = Metalayer([module, L.Dense(3)])
    metalayer.build((None, 2))

    @tf.function
    def routed(inputs, choices, training):
        return metalayer(inputs, choices, training=training)

    arguments = tf.ones([4, 2]), tf.constant([0, 1, 0, 1])
    with pytest.raises(ValueError, match=r"regularized.*routing='dense'"):
        routed(*arguments, training=True)
    assert routed(*arguments, training=False).shape == [4, 3]


def test_weight_regularizer_is_collected_under_partition():
    regularized = L.Dense(
        3,
        kernel_initializer="ones",
        kernel_regularizer=keras.regularizers.L2(1),
    )
    modules = [regularized, L.Dense(3)]
    for module in modules:
        module.build((None, 2))

    @tf.function
    def routed(inputs, choices):
        routing.partition(
            modules, inputs, choices, tf.TensorShape([3]), "float32"
        )
        return regularized.losses[0]

    assert routed(tf.ones([4, 2]), tf.zeros([4], tf.int32)) == 6.0


def test_dense_compiles_under_xla():
    modules, row, out = make_modules("dense")
    inputs = tf.random.stateless_normal([BATCH, *row], [1, 2])
    choices = [2, 0, 1, 2, 2]

    @tf.function(jit_compile=True)
    def routed(inputs, choices):
        return routing.dense(modules, inputs, choices, out, "float32")

    np.testing.assert_allclose(
        routed(inputs, tf.constant(choices)),
        row_by_row(modules, inputs, choices),
        atol=1e-5,
    )


@pytest.mark.parametrize("strategy", ["serving", "scatter", "partition"])
@pytest.mark.parametrize("choices", [[0, 1, 2], [2, 2, 2]])
def test_choices_of_no_module_fail(strategy, choices):
    modules, row, out = make_modules("dense")
    modules = modules[:2]
    inputs = tf.ones([len(choices), *row])

    @tf.function(input_signature=[tf.TensorSpec([None, *row])])
    def run(inputs):
        choice = tf.constant(choices)
        route = routing.STRATEGIES[strategy]
        return route(modules, inputs, choice, out, "float32")

    with pytest.raises(tf.errors.InvalidArgumentError):
        run(inputs)

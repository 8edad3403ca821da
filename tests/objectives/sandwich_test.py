import keras
import numpy as np
import pytest
import tensorflow as tf

import composer_tf as ct

CLASSES = 3


def softmax(logits):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def build(sandwich, estimator="reinforce"):
    """Two metalayers whose dearest modules are the second and the first."""
    keras.utils.set_random_seed(3)
    dense = keras.layers.Dense
    model = ct.Composer(
        [
            ct.Metalayer(
                [
                    dense(4, "relu"),
                    keras.Sequential([dense(8, "relu"), dense(4, "relu")]),
                ]
            ),
            ct.Metalayer(
                [
                    keras.Sequential([dense(6, "relu"), dense(CLASSES)]),
                    dense(CLASSES),
                ]
            ),
        ],
        controller=ct.RNNController(units=4),
        preferences=[ct.GlimpsePreference(ct.Uniform(-1.0, 1.0))],
        estimator=estimator,
        sandwich=sandwich,
        seed=1,
    )
    model.compile(keras.optimizers.SGD(1.0))
    return model


def some_data(size=6):
    random = np.random.default_rng(0)
    x = random.normal(size=[size, 5]).astype(np.float32)
    return x, random.integers(0, CLASSES, size)


def steps_taken(sandwich, sample_weight=None, estimator="reinforce"):
    """How a step of gradient descent at rate 1 changes each weight."""
    model = build(sandwich, estimator)
    x, y = some_data()
    model(x)
    before = [v.numpy() for v in model.trainable_variables]
    data = (x, y) if sample_weight is None else (x, y, sample_weight)
    model.train_step(tf.nest.map_structure(tf.constant, data))
    after = [v.numpy() for v in model.trainable_variables]
    return [b - a for a, b in zip(before, after, strict=True)]


def run_path(model, x, path):
    for metalayer, module in zip(model.metalayers, path, strict=True):
        x = metalayer.modules[module](x)
    return x


def gradients_of_the_ends(weights, sample_weight, estimator):
    """Of the weighted losses of the two ends, by a plain tape."""
    model = build(None, estimator)
    x, y = some_data()
    model(x)
    ends = {(1, 0): weights[0], (0, 1): weights[1]}
    with tf.GradientTape() as tape:
        total = 0.0
        for path, weight in ends.items():
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                y, run_path(model, x, path)
            )
            if sample_weight is not None:
                losses *= sample_weight
            total += weight * tf.reduce_mean(losses)
    variables = model.trainable_variables
    gradients = tape.gradient(
        total,
        [variable.value for variable in variables],
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    return [gradient.numpy() for gradient in gradients]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("estimator", ["reinforce", "leave_one_out"])
def test_it_adds_the_gradients_of_both_ends(estimator, weighted):
    weights = np.linspace(0.5, 2.0, 6).astype(np.float32) if weighted else None
    plain = steps_taken(None, weights, estimator)
    both = steps_taken(ct.Sandwich(0.5, 2.0), weights, estimator)
    expected = gradients_of_the_ends((0.5, 2.0), weights, estimator)
    for alone, with_ends, gradient in zip(plain, both, expected, strict=True):
        np.testing.assert_allclose(alone - with_ends, gradient, atol=1e-6)
    assert any(np.abs(gradient).max() > 0.01 for gradient in expected)


@pytest.mark.parametrize("teacher", ["mean", "dearest"])
def test_a_training_step_distils_into_every_path(teacher):
    """The exact estimator takes all four paths, so nothing is random."""
    temperature, weight = 3.0, 0.25
    sandwich = ct.Sandwich(0.0, 0.0, weight, teacher, temperature)
    plain = steps_taken(None, estimator="exact")
    distilled = steps_taken(sandwich, estimator="exact")
    model = build(None, "exact")
    x, _ = some_data()
    model(x)
    variables = [v.value for v in model.trainable_variables]
    with tf.GradientTape() as tape:
        soft = {
            path: tf.nn.log_softmax(run_path(model, x, path) / temperature)
            for path in [(0, 0), (0, 1), (1, 0), (1, 1)]
        }
        dearest, cheapest = soft[1, 0], soft[0, 1]
        teachers = [dearest, cheapest] if teacher == "mean" else [dearest]
        targets = tf.stop_gradient(
            sum(tf.exp(t) for t in teachers) / len(teachers)
        )
        ends = [dearest, cheapest] if teacher == "mean" else [cheapest]
        students = [(1.0, end) for end in ends]
        students += [(0.25, path) for path in soft.values()]
        loss = sum(
            -share * tf.reduce_mean(tf.reduce_sum(targets * student, axis=-1))
            for share, student in students
        )
        total = weight * temperature**2 * loss
    gradients = tape.gradient(
        total, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
    for alone, with_it, gradient in zip(
        plain, distilled, gradients, strict=True
    ):
        np.testing.assert_allclose(with_it - alone, -gradient, atol=1e-6)
    assert any(np.abs(gradient).max() > 0.01 for gradient in gradients)


@pytest.mark.parametrize("teacher", ["mean", "dearest"])
def test_distillation_is_the_cross_entropy_to_the_teacher(teacher):
    random = np.random.default_rng(1)
    dear, cheap = random.normal(size=[2, 4, CLASSES])
    sampled = random.normal(size=[2, 4, CLASSES])  # K = 2.
    temperature, weight = 3.0, 0.25
    losses = random.random([2, 4])

    def divergence(targets, logits):
        return -(targets * np.log(softmax(logits / temperature))).sum(-1)

    targets = softmax(dear / temperature)
    students = [cheap]
    if teacher == "mean":
        targets = (targets + softmax(cheap / temperature)) / 2.0
        students = [dear, cheap]
    expected = losses[0] + losses[1]
    for student in students:
        expected = expected + weight * 9.0 * divergence(targets, student)
    expected += weight * 9.0 * divergence(targets, sampled).mean(0)
    sandwich = ct.Sandwich(
        distillation=weight, teacher=teacher, temperature=temperature
    )
    np.testing.assert_allclose(
        sandwich.loss(
            tf.unstack(tf.constant(losses, tf.float32)),
            [tf.constant(dear), tf.constant(cheap)],
            tf.constant(sampled),
        ),
        expected,
        rtol=1e-5,
    )


def test_the_teacher_does_not_learn():
    sandwich = ct.Sandwich(0.0, 0.0, 1.0, "dearest")
    dear, cheap, sampled = (
        tf.Variable(tf.random.normal(shape))
        for shape in ([4, 3], [4, 3], [2, 4, 3])
    )
    with tf.GradientTape() as tape:
        loss = sandwich.loss([tf.zeros([4])] * 2, [dear, cheap], sampled)
    of_dear, of_cheap, _ = tape.gradient(loss, [dear, cheap, sampled])
    assert of_dear is None
    assert np.abs(of_cheap).max() > 0.0


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_model_with_it_trains_and_is_saved(jit_compile, tmp_path):
    model = build(ct.Sandwich(1.0, 1.0, 0.5, random=0.25))
    model.compile(keras.optimizers.Adam(0.02), jit_compile=jit_compile)
    x, y = some_data(64)
    y = (x[:, 0] > 0).astype(int)
    first = model.fit(x, y, epochs=1, verbose=0).history["loss"][0]
    last = model.fit(x, y, epochs=20, verbose=0).history["loss"][-1]
    assert last < first
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.sandwich.get_config() == model.sandwich.get_config()
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))


def test_it_builds_the_model_when_training_begins():
    x, y = some_data()
    build(ct.Sandwich()).train_on_batch(x, y)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(3)
    build(ct.Sandwich()).fit(data, verbose=0)
    named = data.map(lambda x, y: ({"image": x, "gamma": x[:, 0]}, y))
    build(ct.Sandwich()).fit(named, verbose=0)


@pytest.mark.parametrize("teacher", ["mean", "dearest"])
def test_distillation_of_a_map_of_labels_is_the_mean_over_its_cells(teacher):
    sandwich = ct.Sandwich(0.0, 0.0, 1.0, teacher)
    dear, cheap, sampled = tf.unstack(
        tf.random.stateless_normal([3, 4, 5, 4, CLASSES], [1, 2])
    )
    actual = sandwich.loss([tf.zeros([4])] * 2, [dear, cheap], sampled[None])
    cells = [
        sandwich.loss(
            [tf.zeros([4])] * 2,
            [dear[:, i, j], cheap[:, i, j]],
            sampled[None, :, i, j],
        )
        for i in range(5)
        for j in range(4)
    ]
    np.testing.assert_allclose(actual, np.mean(cells, axis=0), rtol=1e-5)


def test_modules_of_one_cost_make_no_sandwich():
    dense = keras.layers.Dense
    model = ct.Composer(
        [ct.Metalayer([dense(3), dense(3)])], sandwich=ct.Sandwich()
    )
    with pytest.raises(ValueError, match="different costs"):
        model(tf.ones([2, 4]))
    random = ct.Sandwich(dearest=0.0, cheapest=0.0, random=1.0)
    equal = ct.Composer(
        [ct.Metalayer([dense(3), dense(3)])],
        preferences=[ct.GlimpsePreference(ct.Uniform(-1.0, 1.0))],
        sandwich=random,
    )
    equal.compile("sgd")
    equal.fit(np.ones([4, 2]), np.zeros(4), verbose=0)  # Warns of nothing.
    with pytest.raises(TypeError, match="`sandwich` must be a Sandwich"):
        ct.Composer([ct.Metalayer([dense(3), dense(3)])], sandwich=True)


def test_distillation_needs_logits():
    model = build(ct.Sandwich(distillation=1.0))
    with pytest.raises(ValueError, match="Distillation needs a softmax"):
        model.compile(loss="mse")


@pytest.mark.parametrize(
    "arguments",
    [
        {"dearest": -1.0},
        {"cheapest": float("nan")},
        {"distillation": float("inf")},
        {"temperature": 0.0},
        {"teacher": "cheapest"},
    ],
)
def test_bad_arguments_are_named(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"`{name}`"):
        ct.Sandwich(**arguments)


def test_weights_that_are_all_zero_are_refused():
    with pytest.raises(ValueError, match="one must be above 0"):
        ct.Sandwich(dearest=0.0, cheapest=0.0)


@pytest.mark.parametrize(
    ("weights", "paths"),
    [
        ({}, ["dearest", "cheapest"]),
        ({"dearest": 0.0}, ["cheapest"]),
        ({"cheapest": 0.0, "random": 1.0}, ["dearest", [-2, -2]]),
        ({"cheapest": 0.0, "distillation": 1.0}, ["dearest", "cheapest"]),
    ],
)
def test_only_paths_of_use_run(weights, paths):
    ends = {"dearest": [1, 0], "cheapest": [0, 1]}
    expected = [ends[path] if isinstance(path, str) else path for path in paths]
    assert ct.Sandwich(**weights).paths(**ends) == expected


def test_a_random_path_is_uniform_whatever_the_policy():
    model = build(ct.Sandwich(random=1.0))
    x, _ = some_data(4000)
    model(x[:1])
    head = model.controller.head
    head.bias.assign([9.0, -9.0])  # The policy itself takes module 0.
    composition = model(
        x, paths=[[-2, -2], [-1, -1]], training=True, return_composition=True
    )
    uniform, sampled = np.split(composition.policy.choices.numpy(), 2)
    paths = uniform @ [2, 1]
    counts = np.bincount(paths, minlength=4)
    # Five standard deviations of a binomial with p = 1/4.
    np.testing.assert_allclose(counts, 1000, atol=5 * np.sqrt(750))
    assert sampled.mean() < 0.1


def test_a_random_path_is_trained_with_its_weight():
    """Against the same step whose random paths are given by hand."""
    sandwich = ct.Sandwich(0.0, 0.0, random=3.0)
    model = build(sandwich)
    x, y = some_data()
    model(x)
    state = model.seed_generator.state.numpy()
    drawn = model(
        x, paths=[[-1, -1], [-2, -2]], training=True, return_composition=True
    )
    choices = drawn.policy.choices.numpy()[-len(x) :]
    model.seed_generator.state.assign(state)
    changed = difference(model, lambda: model.train_step((tf.constant(x), y)))
    plain = build(None)
    plain(x)
    plain.seed_generator.state.assign(state)
    without = difference(plain, lambda: plain.train_step((tf.constant(x), y)))
    other = build(None)
    with tf.GradientTape() as tape:
        losses = [
            tf.nn.sparse_softmax_cross_entropy_with_logits(
                y[i : i + 1], run_path(other, x[i : i + 1], choices[i])
            )
            for i in range(len(x))
        ]
        total = 3.0 * tf.reduce_mean(tf.concat(losses, 0))
    weights = other.metalayers[0].modules[1].trainable_variables
    expected = tape.gradient(total, weights)
    for variable, gradient in zip(
        model.metalayers[0].modules[1].trainable_variables,
        expected,
        strict=True,
    ):
        index = [v is variable for v in model.trainable_variables].index(True)
        np.testing.assert_allclose(
            changed[index] - without[index], gradient, atol=1e-5
        )


def difference(model, step):
    """How a step of gradient descent at rate 1 changes each weight."""
    before = [v.numpy() for v in model.trainable_variables]
    step()
    after = [v.numpy() for v in model.trainable_variables]
    return [b - a for b, a in zip(before, after, strict=True)]

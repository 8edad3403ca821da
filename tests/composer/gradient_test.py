"""What `train_step` adds to the weights is the gradient of equation (10)."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import composer_tf as ct

NUM_EXAMPLES = 3
NUM_MODULES = (2, 3)
PATHS = list(itertools.product(*map(range, NUM_MODULES)))
COSTS = [[1.0, 3.0], [1.0, 2.0, 5.0]]
FULL_COST = 8.0
BATCH_ENTROPY = 6.0
RNG = np.random.default_rng(0)
X = RNG.normal(size=[NUM_EXAMPLES, 3]).astype("float32")
Y = np.array([0, 1, 2])
GAMMA = np.float32([[1.0, 0.5], [-1.0, 1.5], [3.0, 1.0]])
EQUAL = np.float32([1.0, 1.0, 1.0])
UNEQUAL = np.float32([0.0, 3.0, 1.5])
MAX_Z = 4.5


def _composer(estimator, routing="partition"):
    dense = keras.layers.Dense
    model = ct.Composer(
        stem=dense(4, "tanh"),
        metalayers=[
            ct.Metalayer([dense(3, "tanh"), dense(3)]),
            ct.Metalayer([dense(3), dense(3, "tanh"), dense(3, "relu")]),
        ],
        # The floor under the logits has a gradient of its own.
        controller=ct.RNNController(units=8, max_gap=None),
        preferences=[
            ct.GlimpsePreference(ct.Uniform(-2.0, 4.0)),
            ct.EntropyPreference(ct.Uniform(0.0, 2.0)),
            ct.BatchEntropyPreference(BATCH_ENTROPY),
        ],
        estimator=estimator,
        costs=COSTS,
        routing=routing,
        seed=1,
    )
    model.compile(optimizer=keras.optimizers.SGD(1.0))
    model(X, gamma=GAMMA)
    # A fresh policy hardly depends on what was chosen before.
    for kernel, scale in (
        (model.controller.cell.kernel, 5.0),
        (model.controller.head.kernel, 3.0),
    ):
        kernel.assign(scale * kernel)
    model.optimizer.build(model.trainable_variables)
    return model


def _objective(model, weights):
    """(10) by forcing each of the 6^3 joint paths of the batch."""
    joint = np.array(list(itertools.product(PATHS, repeat=NUM_EXAMPLES)))
    num_joint = len(joint)
    composition = model(
        np.tile(X, [num_joint, 1]),
        gamma=np.tile(GAMMA, [num_joint, 1]),
        choices=joint.reshape([-1, len(NUM_MODULES)]),
        return_composition=True,
    )

    def by_joint(rows):
        shape = [num_joint, NUM_EXAMPLES, *rows.shape[1:]]
        return tf.reshape(rows, shape)

    log_likelihoods = tf.nn.log_softmax(by_joint(composition.outputs))
    rewards = tf.reduce_sum(log_likelihoods * tf.one_hot(Y, 3), axis=-1)
    log_probs = tf.zeros([num_joint, NUM_EXAMPLES])
    for i, logits in enumerate(composition.policy.logits):
        chosen = joint[..., i]  # [J, B]
        probs = tf.nn.softmax(by_joint(logits))  # [J, B, m_i]
        log_probs += tf.math.log(tf.gather(probs, chosen, batch_dims=2))
        batch = tf.reduce_mean(probs, axis=1, keepdims=True)
        beta = np.float32(COSTS[i])[chosen] / FULL_COST
        rewards -= GAMMA[:, 0] * beta
        rewards -= GAMMA[:, 1] * tf.reduce_sum(probs**2, axis=-1)
        rewards -= BATCH_ENTROPY * tf.reduce_sum(batch**2, axis=-1)
    joint_probs = tf.exp(tf.reduce_sum(log_probs, axis=1))  # [J]
    return tf.reduce_sum(
        joint_probs * tf.reduce_mean(weights * rewards, axis=1)
    )


def _true_gradient(model, weights):
    variables = _variables(model)
    with tf.GradientTape() as tape:
        objective = _objective(model, weights)
    return _flat(tape.gradient(objective, variables))


def _updates(model, weights, num_steps):
    """What each of many steps from the same weights adds to them, `[N, d]`."""
    variables = _variables(model)
    everything = [v.value for v in model.trainable_variables]
    start = [tf.identity(v) for v in everything]
    before = _flat([tf.identity(v) for v in variables])
    data = ({"x": X, "gamma": GAMMA}, Y, weights)
    data = tf.nest.map_structure(tf.convert_to_tensor, data)

    def update(_):
        model.train_step(data)
        change = _flat(variables) - before
        for variable, value in zip(everything, start, strict=True):
            variable.assign(value)
        return change

    @tf.function(autograph=False)
    def updates():
        return tf.map_fn(
            update,
            tf.range(num_steps),
            fn_output_signature=tf.float32,
            parallel_iterations=1,
        )

    return updates().numpy()


def _variables(model):
    """All but those of a baseline, which learns an objective of its own."""
    own = {v.path for v in model.estimator.trainable_variables}
    return [v.value for v in model.trainable_variables if v.path not in own]


def _flat(tensors):
    return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], axis=0)


@pytest.mark.parametrize(
    ("routing", "weights"), [("partition", UNEQUAL), ("dense", EQUAL)]
)
def test_exact_step_is_the_true_gradient(routing, weights):
    model = _composer("exact", routing)
    truth = _true_gradient(model, weights)
    np.testing.assert_allclose(
        _updates(model, weights, 1)[0], truth, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("estimator", "weights"),
    [
        ("reinforce", EQUAL),
        (ct.LeaveOneOut(2), EQUAL),
        (ct.Reinforce("batch_mean"), UNEQUAL),
        ("reinforce", UNEQUAL),
    ],
)
def test_mean_sampled_step_is_the_true_gradient(estimator, weights):
    model = _composer(estimator)
    truth = _true_gradient(model, weights)
    updates = _updates(model, weights, 1500)
    error = updates.std(axis=0, ddof=1) / np.sqrt(len(updates))
    difference = np.abs(updates.mean(axis=0) - truth)
    # What does not vary over the samples still has float32's rounding.
    assert np.all(difference < MAX_Z * error + 1e-5)

import keras
import numpy as np
import pytest
import tensorflow as tf

from composer_tf.static_networks.early_exit_network import EarlyExitNetwork
from composer_tf.static_networks.exit_stage import ExitStage
from tests.small_training import X, Y

CLASSES = 3


def build():
    """Convolutions, an exit behind the first, and one behind the second."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    head = [layers.GlobalAveragePooling2D(), layers.Dense(CLASSES)]
    network = EarlyExitNetwork(
        [
            ExitStage([layers.Conv2D(4, 3)], CLASSES),
            ExitStage([layers.Conv2D(5, 2), layers.ReLU()], CLASSES),
            ExitStage([keras.Sequential(head)]),
        ]
    )
    network.build((None, 6, 6, 1))
    return network


def images_and_labels():
    random = np.random.default_rng(0)
    x = random.normal(size=[16, 6, 6, 1]).astype(np.float32)
    return x, random.integers(0, CLASSES, 16)


def test_each_exit_answers_from_what_ran_before_it():
    network = build()
    x, _ = images_and_labels()
    first, second, last = network.stages
    a1 = first.steps[0](x)
    a2 = tf.nn.relu(second.steps[0](a1))
    expected = [
        first.exit(tf.reduce_mean(a1, [1, 2])),
        second.exit(tf.reduce_mean(a2, [1, 2])),
        last.steps[0](a2),
    ]
    np.testing.assert_allclose(
        network(x), tf.stack(expected, axis=1), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_trained_on_the_mean_of_all_exits(weighted):
    network = build()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile("adam", loss, weighted_metrics=["accuracy"])
    x, y = images_and_labels()
    weights = np.linspace(0.0, 2.0, len(x)) if weighted else np.ones(len(x))
    logits = network(x).numpy()
    logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    losses = -logits[np.arange(len(x)), :, y]  # [B, exits]
    logs = network.evaluate(
        x, y, sample_weight=weights, verbose=0, return_dict=True
    )
    assert logs["loss"] == pytest.approx(
        np.mean(weights * losses.mean(axis=1)), rel=1e-5
    )
    hits = logits[:, -1].argmax(-1) == y
    assert logs["accuracy"] == pytest.approx(np.average(hits, weights=weights))


def test_it_trains_and_is_saved(tmp_path):
    dense = keras.layers.Dense
    stages = [ExitStage([dense(8, "relu")], CLASSES), ExitStage([dense(3)])]
    network = EarlyExitNetwork(stages)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(0.05), loss, metrics=["accuracy"])
    network.fit(X, Y, epochs=40, verbose=0)
    hits = network.predict(X, verbose=0).argmax(-1) == Y[:, None]
    assert hits.mean(axis=0).min() > 0.8
    network.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    np.testing.assert_array_equal(
        loaded.predict(X, verbose=0), network.predict(X, verbose=0)
    )


@pytest.mark.parametrize("classes", [[None], [3], [3, 3], [None, None]])
def test_all_stages_but_the_last_have_an_exit(classes):
    stages = [ExitStage([keras.layers.Dense(3)], k) for k in classes]
    with pytest.raises(ValueError, match="all but the last have an exit"):
        EarlyExitNetwork(stages)


def test_exits_agree_on_the_classes():
    stages = [ExitStage([keras.layers.Dense(3)], k) for k in (3, 4, None)]
    with pytest.raises(ValueError, match=r"same classes, got \[3, 4\]"):
        EarlyExitNetwork(stages)

import keras
import numpy as np
import pytest
import tensorflow as tf

import composer_tf as ct
from composer_tf.static_networks.path_network import PathNetwork


def build():
    dense = keras.layers.Dense
    model = ct.Composer(
        [
            ct.Metalayer([dense(4, name="same"), dense(4, name="other")]),
            dense(6, "relu"),
            ct.Metalayer([dense(3, name="same"), dense(3, name="other")]),
        ],
        stem=keras.layers.Rescaling(2.0),
    )
    model(tf.zeros([1, 5]))
    return model


@pytest.mark.parametrize("path", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_it_is_the_forced_path(path):
    model = build()
    x = np.random.default_rng(0).normal(size=[7, 5]).astype(np.float32)
    forced = model(x, choices=tf.constant([path] * 7))
    network = PathNetwork(model.layers_along(path))
    np.testing.assert_allclose(network(x), forced, rtol=1e-6)


def test_a_loss_that_is_not_finite_stops_it():
    network = PathNetwork(build().layers_along((1, 0)))
    network.compile("adam", "mse")
    # Not in the inputs: a fused ReLU may make 0 of NaN.
    x, y = np.zeros([8, 5], np.float32), np.full([8, 3], np.nan)
    with pytest.raises(ValueError, match="loss became nan in epoch 1"):
        network.fit(x, y, epochs=3, verbose=0)


def test_it_trains_and_is_saved(tmp_path):
    network = PathNetwork(build().layers_along((1, 0)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile("adam", loss)
    x = np.random.default_rng(0).normal(size=[64, 5]).astype(np.float32)
    y = (x[:, 0] > 0).astype(int)
    losses = network.fit(x, y, epochs=10, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    network.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    np.testing.assert_array_equal(loaded.predict(x), network.predict(x))

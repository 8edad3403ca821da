"""A run whose config asks for a network with early exits."""

import dataclasses
from typing import Any

import keras
import numpy as np
import pytest

import composer_tf as ct
from composer_tf import datasets
from composer_tf.config import Config, DataConfig, EvaluationConfig
from composer_tf.costs import CostTable
from composer_tf.models.settings import ComposerSettings
from composer_tf.training import training


@dataclasses.dataclass(kw_only=True)
class TwoMetalayers(ComposerSettings):
    """A dense module before an exit could be, and one behind it."""

    glimpse: tuple[float, float] | None = (-4.0, 6.0)

    def build(self, seed=None):
        def metalayer(units, activation):
            dense = keras.layers.Dense
            small, large = dense(2, "relu"), dense(8, "relu")
            return ct.Metalayer(
                [
                    keras.Sequential([hidden, dense(units, activation)])
                    for hidden in (small, large)
                ]
            )

        stem = [keras.layers.Flatten(), keras.layers.Rescaling(1 / 255)]
        return self.compose(
            stem=keras.Sequential(stem),
            metalayers=[metalayer(4, "relu"), metalayer(20, None)],
            seed=seed,
            name="two_metalayers",
        )


def tiny_config(data_dir):
    return Config(
        data=DataConfig(
            "wide_mnist/digits", batch_size=500, data_dir=str(data_dir)
        ),
        model=TwoMetalayers(),
        evaluation=EvaluationConfig(
            num_gammas=3, num_mixtures=2, early_exit=True
        ),
        epochs=2,
    )


@pytest.fixture(scope="module", name="finished")
def _finished(tmp_path_factory):
    """A finished run, the folder of its data, and its metrics."""
    folder = tmp_path_factory.mktemp("run")
    data_dir = tmp_path_factory.mktemp("tfds")
    return folder, data_dir, training.run(tiny_config(data_dir), folder)


def test_a_network_with_early_exits_is_measured_as_it_was_saved(finished):
    folder, data_dir, metrics = finished
    network: Any = keras.models.load_model(folder / "early_exit/model.keras")
    images, labels = datasets.load_arrays("wide_mnist/digits", "test", data_dir)
    hits = network.predict(images, verbose=0).argmax(-1) == labels[:, None]
    line = metrics["lines"]["early_exit"]
    for point, of_exit in ((line[0], hits[:, 0]), (line[-1], hits[:, 1])):
        assert point["accuracy"] == pytest.approx(of_exit.mean())
    # Large modules, and an exit of 20 classes from 4 features.
    first = 1568 * 8 + 8 + 8 * 4 + 4 + 4 * 20 + 20
    second = 4 * 8 + 8 + 8 * 20 + 20
    table = CostTable(**metrics["costs"])
    costs = np.array([first, first + second]) / table.full
    ends = [line[0]["cost"], line[-1]["cost"]]
    np.testing.assert_allclose(ends, costs)
    assert metrics["summary"]["early_exit/accuracy@1"] is not None


@pytest.mark.slow
def test_two_replicas_train_it_as_one_device_does(
    finished, two_replicas, tmp_path
):
    folder, data_dir, metrics = finished
    of_two = training.run(tiny_config(data_dir), tmp_path, two_replicas)
    assert of_two["summary"] == pytest.approx(metrics["summary"], abs=1e-5)
    weights, weights_of_two = (
        keras.models.load_model(run / "early_exit/model.keras").get_weights()
        for run in (folder, tmp_path)
    )
    for a, b in zip(weights, weights_of_two, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)

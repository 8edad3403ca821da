"""Configs that cannot work are refused before anything is trained."""

import dataclasses

import keras
import pytest

import composer_tf as ct
from composer_tf.config import ConfigError
from composer_tf.models import WideMnist
from composer_tf.training import training
from tests.training.tiny_run import tiny_config


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("data", "name", "typo"),
        ("data", "batch_size", 100_000),
        ("evaluation", "preference", "typo"),
        ("model", "estimator", "typo"),
        ("evaluation", "alone", ("typo",)),
        ("evaluation", "alone", ("0-1",)),
        ("evaluation", "alone", ("2",)),
        ("evaluation", "early_exit", True),
        ("evaluation", "label_groups", (0, 1)),
        ("evaluation", "label_groups", ((0, 1), (1, 99))),
        ("evaluation", "label_groups", ((0,), (20,))),
    ],
)
def test_a_config_that_cannot_work_does_not_take_the_folder(
    tmp_path, data_dir, part, field, value
):
    config = tiny_config(data_dir)
    setattr(getattr(config, part), field, value)
    named = value[0] if isinstance(value, tuple) else str(value)
    named = "weights before a metalayer" if field == "early_exit" else named
    named = "label_groups" if field == "label_groups" else named
    with pytest.raises(ValueError, match=named):
        training.run(config, tmp_path / "workdir")
    assert not list(tmp_path.rglob("*.json"))


class Unregistered(keras.layers.Dense):
    """A layer that Keras cannot find again."""


@keras.saving.register_keras_serializable("config_errors_test")
class WithoutConfig(keras.layers.Layer):
    """Whose `get_config` leaves an argument out."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(units)

    def call(self, inputs):
        return self.dense(inputs)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.dense.units)

    def get_config(self):
        return {"name": self.name}


@dataclasses.dataclass
class OwnModel:
    """A model config as users write it."""

    layer: str

    def build(self, seed=None):
        modules = [globals()[self.layer](20), keras.layers.Dense(20)]
        return ct.Composer(
            [ct.Metalayer(modules)],
            stem=keras.layers.Flatten(),
            preferences=[ct.GlimpsePreference(ct.Uniform(-1.0, 1.0))],
            seed=seed,
        )


@dataclasses.dataclass
class NoComposer:
    """A model config of something else."""

    scale: float = 1.0

    def build(self, seed=None):
        return keras.Sequential([keras.layers.Dense(20)])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (None, "`model` must be a dataclass"),
        (NoComposer, "`model` must be a dataclass"),
        (NoComposer(), "must return a Composer, got Sequential"),
        (NoComposer(float("nan")), "not JSON compliant"),
        (WideMnist(teacher="dearestt"), "`teacher` must be one of"),
        (WideMnist(glimpse=("a", "b")), "`glimpse` must be two numbers"),
    ],
)
def test_a_model_that_is_no_composer_is_refused(
    tmp_path, data_dir, model, message
):
    config = tiny_config(data_dir)
    config.model = model
    with pytest.raises(ConfigError, match=message):
        training.run(config, tmp_path / "workdir")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("layer", "cause"),
    [
        ("Unregistered", "Could not locate class 'Unregistered'"),
        ("WithoutConfig", "missing 1 required positional argument: 'units'"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_told_before_it_is_trained(
    tmp_path, data_dir, layer, cause
):
    config = tiny_config(data_dir)
    config.model = OwnModel(layer)
    with pytest.raises(ConfigError, match=f"be saved and loaded.*: .*{cause}"):
        training.run(config, tmp_path / "workdir")
    assert not list(tmp_path.rglob("*.json"))

import dataclasses
import json
import math
import pathlib

import pytest
from absl import flags
from ml_collections import config_flags

from composer_tf import Composer, datasets
from composer_tf.config import (
    Config,
    ConfigError,
    DataConfig,
)
from composer_tf.workdir import differences

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted((ROOT / "configs").glob("*.py"))
DIGITS = ROOT / "configs" / "wide_mnist_digits.py"


@dataclasses.dataclass
class Dense:
    """Stands for a model."""

    units: int = 16
    rate: float = 0.5


@dataclasses.dataclass
class Blocks:
    """Has a field that JSON has no type for."""

    filters: tuple[int, ...] = (16, 32)


def small_config(model=None):
    return Config(data=DataConfig(name="mnist"), model=model or Dense())


def parse(*arguments, path=DIGITS):
    """What the program makes of its command line."""
    argv = ["program", f"--config={path}", *arguments]
    values = flags.FlagValues()
    config = config_flags.DEFINE_config_file(
        "config", flag_values=values, sys_argv=argv
    )
    values(argv)
    return config.value


def set_field(config, name, value):
    *parents, field = name.split(".")
    for parent in parents:
        config = getattr(config, parent)
    setattr(config, field, value)


def test_to_json_holds_every_field_and_the_class_of_the_model():
    config = small_config()
    config.optimizer.learning_rate = 0.25
    assert config.to_json() == {
        "data": {
            "name": "mnist",
            "batch_size": 128,
            "passes": 1,
            "augment": False,
            "data_dir": "",
        },
        "model": {"class": "Dense", "units": 16, "rate": 0.5},
        "optimizer": {"learning_rate": 0.25, "decay": True},
        "evaluation": {
            "preference": "glimpse",
            "num_gammas": 33,
            "num_mixtures": 21,
            "batch_size": 1000,
            "max_paths": 64,
            "alone": [],
            "early_exit": False,
            "label_groups": [],
        },
        "epochs": 10,
        "controller_epochs": 0,
        "seed": 0,
        "reward": "log_probability",
        "jit_compile": False,
        "steps_per_execution": 1,
        "num_seeds": 1,
        "variants": {},
    }


@pytest.mark.parametrize("model", [Dense(), Blocks()])
def test_a_config_does_not_differ_from_itself_read_back(model):
    fields = small_config(model).to_json()
    assert differences(json.loads(json.dumps(fields)), fields) == []


def test_differences_of_another_model_class():
    old, new = small_config(Dense()), small_config(Blocks())
    lines = differences(old.to_json(), new.to_json())
    assert "model.class: Dense -> Blocks" in lines


def test_valid_config_passes():
    small_config().validate()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("controller_epochs", -1),
        ("seed", -1),
        ("seed", 2**32),
        ("steps_per_execution", -1),
        ("data.batch_size", 0),
        ("data.passes", 0),
        ("evaluation.num_gammas", 1),
        ("evaluation.num_mixtures", 1),
        ("evaluation.batch_size", 0),
        ("optimizer.learning_rate", 0.0),
        ("optimizer.learning_rate", -0.1),
        ("optimizer.learning_rate", math.nan),
        ("optimizer.learning_rate", math.inf),
    ],
)
def test_validate_names_the_field_and_its_value(name, value):
    config = small_config()
    set_field(config, name, value)
    with pytest.raises(ConfigError, match=f"`{name}`.*{value}"):
        config.validate()


def test_dotted_flags_override_fields():
    config = parse(
        "--config.epochs=3",
        "--config.model.small_units=5",
        "--config.optimizer.decay=false",
        "--config.data.name=mnist",
    )
    assert config.epochs == 3
    assert config.model.small_units == 5
    assert config.optimizer.decay is False
    assert config.data.name == "mnist"
    assert config.model.large_units == parse().model.large_units


@pytest.mark.parametrize("name", ["epoch", "model.small_unit"])
def test_unknown_field_is_refused(name):
    with pytest.raises(KeyError, match=f"Field {name.split('.')[-1]} not"):
        parse(f"--config.{name}=3")


@pytest.mark.parametrize(
    "override", ["epochs=two", "epochs=1.5", "jit_compile=perhaps"]
)
def test_value_of_the_wrong_type_is_refused(override):
    name, value = override.split("=")
    with pytest.raises(flags.IllegalFlagValueError) as error:
        parse(f"--config.{override}")
    assert name in str(error.value)
    assert value in str(error.value)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_config_file_is_valid_and_builds_a_composer(path):
    config = parse(path=path)
    config.validate()
    assert config.data.name in datasets.NAMES
    assert isinstance(config.model.build(seed=config.seed), Composer)

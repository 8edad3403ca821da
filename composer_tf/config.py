"""Typed configuration of a run."""

import contextlib
import copy
import dataclasses
import json
from collections.abc import Iterator
from typing import Any, Protocol

import keras


class ModelConfig(Protocol):
    """A dataclass of hyperparameters that builds a model."""

    def build(self, seed: int | None = None) -> keras.Model: ...


class ConfigError(ValueError):
    """A configuration with a value that cannot work."""


@contextlib.contextmanager
def raising_config_errors() -> Iterator[None]:
    """Turns the error of a bad argument into a `ConfigError`."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from error


@dataclasses.dataclass
class DataConfig:
    """The data of a run.

    Attributes:
        name: Name in `composer_tf.datasets.NAMES`.
        batch_size: Examples per training step.
        passes: Passes over the train split in one epoch.
        augment: Whether to shift, and in CIFAR-10 mirror, training images.
        data_dir: Data folder of TFDS; empty for its default.
    """

    name: str
    batch_size: int = 128
    passes: int = 1
    augment: bool = False
    data_dir: str = ""


@dataclasses.dataclass
class OptimizerConfig:
    """Adam with a cosine decay to zero.

    Attributes:
        learning_rate: Initial learning rate.
        decay: Whether the learning rate decays over the run.
    """

    learning_rate: float = 1e-3
    decay: bool = True


@dataclasses.dataclass
class EvaluationConfig:
    """Measurements on the test split after training.

    Attributes:
        preference: Name of the steerable preference that the curve follows. A
            model without one is measured at its default only.
        num_gammas: Number of points of the curve, evenly spaced on the scale of
            its gamma.
        num_mixtures: Number of points of the random mixture.
        batch_size: Examples per evaluation step.
        max_paths: Most paths that the model may have for each to be run on
            every example, which the oracle needs.
        alone: Paths whose networks are trained alone, each for as many steps as
            the model, for comparison: `"cheapest"`, `"dearest"`, or modules
            such as `"0-2-1"`. The cheapest and the dearest make a cascade.
        early_exit: Whether to also train the dearest path with exits where the
            model decides, for as many steps.
        label_groups: Groups of labels, such as man-made and natural things,
            whose mutual information with the choices is measured too.
    """

    preference: str = "glimpse"
    num_gammas: int = 33
    num_mixtures: int = 21
    batch_size: int = 1000
    max_paths: int = 64
    alone: tuple[str, ...] = ()
    early_exit: bool = False
    label_groups: tuple[tuple[int, ...], ...] = ()


@dataclasses.dataclass
class Config:
    """Everything that decides the outcome of a run.

    Attributes:
        data: Data of the run.
        model: Dataclass with a `build` method, from `composer_tf.models`.
        optimizer: Settings of the optimizer.
        evaluation: Settings of the measurements.
        epochs: Epochs of `fit`.
        controller_epochs: Epochs after `epochs` that train a new controller on
            images that are not augmented. The modules are frozen, and their
            batch normalization is that of inference; dropout in them stays on,
            as in any frozen layer of Keras.
        seed: Seed of weights, sampling and shuffling.
        reward: Reward that the policy maximizes besides the costs:
            `"log_probability"` of the label, as in the paper, its
            `"probability"`, or `"accuracy"`.
        jit_compile: Whether to compile with XLA.
        steps_per_execution: Training steps in one call of the compiled
            function; 0 for a whole epoch.
        num_seeds: Number of runs, with seeds from `seed` up; several are
            summarized.
        variants: Mapping from name to the fields that differ, such as
            `{"plain": {"model.dearest": 0.0}}`; each variant is run with every
            seed. Empty for the config as it is.
    """

    data: DataConfig
    model: ModelConfig
    optimizer: OptimizerConfig = dataclasses.field(
        default_factory=OptimizerConfig
    )
    evaluation: EvaluationConfig = dataclasses.field(
        default_factory=EvaluationConfig
    )
    epochs: int = 10
    controller_epochs: int = 0
    seed: int = 0
    reward: str = "log_probability"
    jit_compile: bool = False
    steps_per_execution: int = 1
    num_seeds: int = 1
    variants: dict[str, dict[str, Any]] = dataclasses.field(
        default_factory=dict
    )

    def runs(self) -> dict[str, "Config"]:
        """The single runs that this config stands for, by folder.

        Example:
            >>> config = Config(DataConfig("mnist"), None, num_seeds=2,
            ...                 variants={"long": {"epochs": 50}})
            >>> {name: run.epochs for name, run in config.runs().items()}
            {'long/seed_0': 50, 'long/seed_1': 50}

        Raises:
            ConfigError: If a variant names a field that does not exist, or one
                that tells the runs apart.
        """
        if self.num_seeds == 1 and not self.variants:
            return {"": self}
        runs = {}
        for name, changes in (self.variants or {"": {}}).items():
            for seed in range(self.seed, self.seed + self.num_seeds):
                run = copy.deepcopy(self)
                run.seed, run.num_seeds, run.variants = seed, 1, {}
                for field, value in changes.items():
                    if field in ("seed", "num_seeds", "variants"):
                        raise ConfigError(
                            f"`variants` must not name {field!r}: every "
                            "variant is run with the same seeds."
                        )
                    _set_field(run, field, value)
                runs[f"{name}/seed_{seed}".lstrip("/")] = run
        return runs

    def to_json(self) -> dict[str, Any]:
        """All fields, and the name of the model's class.

        Raises:
            TypeError: If a value has no JSON, such as a function.
            ValueError: If a number is NaN or infinite.
        """
        fields = dataclasses.asdict(self)
        fields["model"] = {
            "class": type(self.model).__name__,
            **fields["model"],
        }
        text = json.dumps(fields, allow_nan=False)
        return json.loads(text)  # As read back from a file.

    def validate(self) -> None:
        """Raises `ConfigError` for a value that cannot work."""
        at_least = {
            "epochs": (self.epochs, 1),
            "controller_epochs": (self.controller_epochs, 0),
            "seed": (self.seed, 0),
            "num_seeds": (self.num_seeds, 1),
            "steps_per_execution": (self.steps_per_execution, 0),
            "data.batch_size": (self.data.batch_size, 1),
            "data.passes": (self.data.passes, 1),
            "evaluation.num_gammas": (self.evaluation.num_gammas, 2),
            "evaluation.num_mixtures": (self.evaluation.num_mixtures, 2),
            "evaluation.batch_size": (self.evaluation.batch_size, 1),
        }
        for name, (value, least) in at_least.items():
            if value < least:
                raise ConfigError(
                    f"`{name}` must be at least {least}, got {value}."
                )
        if self.seed + self.num_seeds > 2**32:
            raise ConfigError(
                "`seed` must be below 2 ** 32, as all seeds of a run, got "
                f"{self.seed} with {self.num_seeds} seeds."
            )
        is_class = isinstance(self.model, type)
        if is_class or not dataclasses.is_dataclass(self.model):
            raise ConfigError(
                "`model` must be a dataclass with a `build` method, got "
                f"{self.model!r}."
            )
        rate = self.optimizer.learning_rate
        if not 0.0 < rate < float("inf"):
            raise ConfigError(
                "`optimizer.learning_rate` must be finite and above 0, got "
                f"{rate}."
            )


def _set_field(config: Any, field: str, value: Any) -> None:
    """Sets a field of a nested config, such as `model.units`."""
    *parents, name = field.split(".")
    owner = config
    for parent in parents:
        owner = getattr(owner, parent, None)
    if not hasattr(owner, name):
        raise ConfigError(f"`variants` names {field!r}, which does not exist.")
    setattr(owner, name, value)

"""The parts of a Composer: layers, their shapes and their costs."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from composer_tf import costs as costs_lib
from composer_tf import exporters, validation
from composer_tf.composer.inputs import without_gamma
from composer_tf.composer.steerable_model import SteerableModel
from composer_tf.layers import Controller, Metalayer, RNNController
from composer_tf.layers.metalayer import layer_output_shape
from composer_tf.layers.summary import summary_size
from composer_tf.policy import Composition, Policy

_HINT = "wrap alternatives in `ct.Metalayer([...])`"


class ModularModel(SteerableModel):
    """A stem, metalayers with fixed steps between them, and a controller.

    Args:
        metalayers: Same as in `Composer`.
        controller: Same as in `Composer`.
        stem: Same as in `Composer`.
        costs: Same as in `Composer`.
        **kwargs: Arguments of `SteerableModel`.

    Attributes:
        routed_layers: The steps of `metalayers` that are `Metalayer`s.
        build_shape: Shape of the input, or shapes by name, once built.
        output_row_shape: Shape of one row of the output, once built.
        cost_table: Cost of each part, once built.
    """

    build_shape: Any
    output_row_shape: tuple[int | None, ...]
    _context_size: int  # d of `Composition.context`.
    cost_table: costs_lib.CostTable

    def __init__(
        self,
        metalayers: Sequence[keras.layers.Layer],
        controller: Controller | None,
        stem: keras.layers.Layer | None,
        costs: costs_lib.CostUnit | costs_lib.UserCosts,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(metalayers, keras.layers.Layer):
            raise TypeError(
                "`metalayers` must be a list of Keras layers, got one layer, "
                f"{metalayers.name!r}."
            )
        steps = list(metalayers)
        for step in steps:
            if isinstance(step, list | tuple):
                raise TypeError(
                    f"`metalayers` must hold Keras layers, got {step!r}: "
                    f"{_HINT}."
                )
        if stem is not None and not isinstance(stem, keras.layers.Layer):
            raise TypeError(f"`stem` must be a Keras layer, got {stem!r}.")
        validation.check_layers(
            "metalayers", steps if stem is None else [stem, *steps]
        )
        if controller is not None and not isinstance(controller, Controller):
            raise TypeError(
                f"`controller` must be a Controller, got {controller!r}."
            )
        _check_no_composer(stem, steps)
        self.metalayers = steps
        self.routed_layers = [s for s in steps if isinstance(s, Metalayer)]
        if not self.routed_layers:
            raise ValueError(
                f"`metalayers` must hold at least one Metalayer: {_HINT}."
            )
        if isinstance(costs, str):
            validation.check_choice("costs", costs, tuple(costs_lib.COUNTERS))
        else:
            costs_lib.check_user_costs(costs, self.num_modules)
            costs = [[float(cost) for cost in row] for row in costs]
        self.controller = RNNController() if controller is None else controller
        self.stem = stem
        self.costs = costs

    @property
    def num_modules(self) -> list[int]:
        """Numbers of modules m_1, ..., m_n."""
        return [metalayer.num_modules for metalayer in self.routed_layers]

    @property
    def overhead(self) -> float:
        """Cost of stem, fixed steps and controller, a fraction of full cost."""
        return self.cost_table.overhead

    def build(self, input_shape: Any) -> None:
        shape = _any_batch(without_gamma(input_shape))
        self.build_shape = shape
        if isinstance(input_shape, Mapping):  # Export needs its name.
            inputs = {k: v for k, v in input_shape.items() if k != "gamma"}
            exporters.check_names(inputs)  # Not after a long training.
            self.build_shape = _any_batch(inputs)
        if self.stem is None and isinstance(shape, Mapping):
            raise ValueError(
                f"Several inputs {sorted(shape)} need a `stem` that joins them."
            )
        self._input_shapes = []  # Of the stem, if any, and each step.
        for step in self._steps():
            self._input_shapes.append(shape)
            shape = layer_output_shape(step, shape)
        self.output_row_shape = tuple(shape[1:])
        self._build_controller()
        if isinstance(self.costs, str):
            self.cost_table = self.count_costs(self.costs)
        else:
            given = tuple(tuple(row) for row in self.costs)
            self.cost_table = costs_lib.CostTable("user", 0.0, 0.0, given)
        prices = self.preferences.price_table(self.cost_table.fractions)
        self._price_tables = None  # n of float32 [k, m_i].
        if prices is not None:
            ends = np.cumsum(self.num_modules)
            self._price_tables = np.split(prices, ends[:-1], axis=1)

    def _build_controller(self) -> None:
        activation_shapes = [
            shape
            for step, shape in zip(
                self._steps(), self._input_shapes, strict=True
            )
            if isinstance(step, Metalayer)
        ]
        num_gammas = len(self.preferences.names)
        self.controller.build(
            activation_shapes,
            self.num_modules,
            num_gammas,
            bool(self.preferences.charging),
            self.output_row_shape,
        )
        size = summary_size(activation_shapes[0], self.controller.grid)
        self._context_size = size + num_gammas

    def get_build_config(self) -> dict[str, Any] | None:
        return {"input_shape": self.build_shape} if self.built else None

    def build_from_config(self, config: dict[str, Any]) -> None:
        self.build(config["input_shape"])

    def save_own_variables(self, store: dict[str, Any]) -> None:
        super().save_own_variables(store)
        for i, state in enumerate(self._random_states()):
            store[f"random_state_{i}"] = state

    def load_own_variables(self, store: dict[str, Any]) -> None:
        own = {name: store[name] for name in store.keys()}  # noqa: SIM118
        stored = [own.pop(k) for k in [*own] if k.startswith("random_state")]
        states = self._random_states()
        if len(stored) == len(states):  # Else of a model with other layers.
            for i, state in enumerate(states):
                state.assign(store[f"random_state_{i}"])
        super().load_own_variables(own)

    def along(self, inputs: Any, path: Sequence[int]) -> tf.Tensor:
        """Outputs `[B, ...]` of one path c_1, ..., c_n, without the controller.

        Args:
            inputs: Inputs of the model; a gamma among them is ignored.
            path: One module of each metalayer.

        Raises:
            ValueError: If the path is not one module of each metalayer.
        """
        activations = without_gamma(inputs)
        for layer in self.layers_along(path):
            activations = layer(activations)
        return activations

    def count_costs(self, unit: str) -> costs_lib.CostTable:
        """Cost of every part of the built model, in any unit.

        Args:
            unit: `"parameters"` or `"macs"`, the model's own or the other.

        Raises:
            ValueError: If the unit is unknown, or a part cannot be counted in
                it.
        """
        validation.check_choice("unit", unit, tuple(costs_lib.COUNTERS))
        fixed, routed = [], []
        for step, shape in zip(self._steps(), self._input_shapes, strict=True):
            if isinstance(step, Metalayer):
                routed.append((step.modules, shape))
            else:
                fixed.append((step, shape))
        return costs_lib.count(unit, fixed, routed, self.controller)

    def layers_along(self, path: Sequence[int]) -> list[keras.layers.Layer]:
        """The stem, the fixed steps and one module of each metalayer.

        Args:
            path: Modules c_1, ..., c_n.

        Raises:
            ValueError: If it does not name a module of each metalayer.
        """
        table = np.array([path], np.int32)
        validation.check_paths(table, self.num_modules, "path", least=0)
        modules = iter(path)
        return [
            step.modules[next(modules)] if isinstance(step, Metalayer) else step
            for step in self._steps()
        ]

    def _last_layers(self) -> list[keras.layers.Layer]:
        """The layers that give outputs: all modules of a last metalayer."""
        last = self.metalayers[-1]
        return last.modules if isinstance(last, Metalayer) else [last]

    def _composition_of(self, rows: dict[str, Any]) -> Composition:
        policy = Policy(
            tuple(rows["logits"]),
            rows["choices"],
            tuple(tf.constant(costs) for costs in self.cost_table.fractions),
        )
        guesses = rows.get("guesses", ())
        return Composition(
            rows["outputs"],
            policy,
            rows["gamma"],
            rows["context"],
            tuple(np.swapaxes(g, 0, 1) for g in guesses),
            self.overhead,
        )

    def _prices(self, gamma: tf.Tensor) -> list[tf.Tensor] | None:
        """Prices of each metalayer's modules, n tensors float32 `[B, m_i]`."""
        if self._price_tables is None:
            return None
        return [tf.matmul(gamma, table) for table in self._price_tables]

    def _steps(self) -> list[keras.layers.Layer]:
        """The stem, if there is one, and the metalayers and fixed steps."""
        return ([] if self.stem is None else [self.stem]) + self.metalayers

    def _random_states(self) -> list[Any]:
        """States of all seed generators, also in modules, so runs resume."""
        return [v for v in self.variables if v.path.endswith("generator_state")]


def _check_no_composer(
    stem: keras.layers.Layer | None, steps: Sequence[keras.layers.Layer]
) -> None:
    """Raises `TypeError` for a Composer inside: it would not train itself."""
    parts = [] if stem is None else [("`stem`", stem)]
    for step in steps:
        is_metalayer = isinstance(step, Metalayer)
        where = f"`modules` of metalayer {step.name!r}"
        parts.append((where if is_metalayer else "`metalayers`", step))
    for where, part in parts:
        for layer in part._flatten_layers():
            if isinstance(layer, ModularModel):
                raise TypeError(
                    f"{where} must not hold a Composer, got {layer.name!r}, "
                    "whose controller would not be trained: use its layers."
                )


def _any_batch(shape: Any) -> Any:
    """The same shape, or mapping of shapes, for any batch size."""
    if isinstance(shape, Mapping):
        return {name: _any_batch(s) for name, s in shape.items()}
    if any(isinstance(size, Sequence) for size in shape):
        raise ValueError(
            "Several inputs must be a mapping by name, such as {'image': x, "
            f"'sound': y}}, got a list of shapes {shape}."
        )
    return (None, *shape[1:])

"""The Composer: a Keras model that takes its budget as an input."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self, get_args

import keras
import numpy as np
import tensorflow as tf

from composer_tf import costs as costs_lib
from composer_tf import estimators, validation
from composer_tf import losses as losses_lib
from composer_tf.exportable_model import ExportableModel
from composer_tf.layers import Controller, Metalayer, RNNController
from composer_tf.layers.metalayer import layer_output_shape
from composer_tf.layers.path import decide_by, follow, known_paths
from composer_tf.layers.summary import summary_size
from composer_tf.policy import POLICY, STEERING, UNIFORM, Composition, Policy
from composer_tf.preferences import Gamma, Preference, PreferenceCollection
from composer_tf.rewards import Reward
from composer_tf.sandwich import Sandwich
from composer_tf.steerable_model import Decision, split_gamma, without_gamma

Routing = Literal["auto", "partition", "dense", "branch", "scatter"]


@keras.saving.register_keras_serializable(package="composer_tf")
class Composer(ExportableModel):
    """One model, any compute budget, per input (Odena et al., 2017).

    A controller picks one module per example at each metalayer; modules and
    controller are trained together by REINFORCE. The costs of the preferences
    join the reward, and their gammas are inputs of the controller, so the
    trained model is steered at test time.

    Args:
        metalayers: `Metalayer`s and, between them, plain Keras layers as fixed
            steps. At least one `Metalayer`. No layer object twice.
        controller: A `Controller`. Defaults to `RNNController()`.
        preferences: `Preference`s with different names.
        stem: f_0 of equation (1), a Keras layer or model, of one or several
            named inputs; or `None`.
        estimator: How the gradient (11) is estimated: `"reinforce"` (default),
            `"leave_one_out"`, `"exact"`, or an `Estimator`.
        sandwich: A `Sandwich`, to train the dearest and the cheapest path on
            every example beside the sampled one, or `None` (default).
        costs: Unit of beta in (6): `"parameters"` (default), `"macs"`, or
            numbers, one per module of each metalayer; stem and controller then
            count as 0.
        decision: At test time the controller's `"mode"` (default) or a
            `"sample"`.
        routing: Which rows a module runs on; results are equal. `"partition"`,
            `"branch"` and `"scatter"` run each on its own rows only, `"dense"`
            runs all on all rows (`composer_tf.layers.routing`). `"auto"`
            (default) is dense when compiled with `jit_compile=True`, as XLA
            needs it, else partition.
        seed: Int, of all sampling.
        name: Of the model.

    Call arguments:
        inputs: The stem's input; or a mapping that may hold `"gamma"` beside
            it, such as `{"image": x, "gamma": g}`.
        gamma: A number or float32 `[B]` with one steerable preference; `[k]`
            or `[B, k]` with several; or a mapping by name. Overrides what the
            inputs hold. Clipped to the trained support. Defaults to a sample
            in training and to the preferences' defaults otherwise.
        budget: In place of gamma, once the model is calibrated: a number or
            float32 `[B]`, fractions of full cost (`calibrate`).
        choices: int32 `[B, n]`, modules to take; -1 asks the controller.
        decision: Overrides the model's for this call.
        routing: Overrides the model's for this call.
        paths: K tuples of n modules, or -1, or -2 for a module drawn uniformly
            where the decision is a sample: paths that every example takes,
            instead of `choices`.
        training: Bool.
        return_composition: Return a `Composition` instead of its outputs.

    Returns:
        `[R, ...]`, the activations after the last metalayer: logits, for a
        classifier. R is B, or K * B with `paths`.

    Raises:
        ValueError: If `metalayers` has no `Metalayer`, an argument is unknown,
            or at the first call if shapes disagree.
        TypeError: If an argument is not a Keras layer where one is expected,
            or is one where a list is.

    Example:
        >>> import keras, tensorflow as tf, composer_tf as ct
        >>> model = ct.Composer(
        ...     metalayers=[ct.Metalayer([keras.layers.Dense(8, "relu"),
        ...                               keras.layers.Dense(8)]),
        ...                 keras.layers.Dense(3)],
        ...     preferences=[ct.GlimpsePreference(ct.Uniform(-2.0, 6.0))])
        >>> model(tf.ones([5, 4]), gamma=2.0).shape
        TensorShape([5, 3])
    """

    def __init__(
        self,
        metalayers: Sequence[keras.layers.Layer],
        controller: Controller | None = None,
        preferences: Sequence[Preference] = (),
        stem: keras.layers.Layer | None = None,
        estimator: str | estimators.Estimator = "reinforce",
        sandwich: Sandwich | None = None,
        costs: costs_lib.CostUnit | costs_lib.UserCosts = "parameters",
        decision: Decision = "mode",
        routing: Routing = "auto",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        # Inputs may be integers and gamma is float32: layers cast on their own.
        super().__init__(
            preferences=PreferenceCollection(preferences),
            decision=decision,
            **{**kwargs, "autocast": False},
        )
        validation.check_choice("routing", routing, get_args(Routing))
        if isinstance(metalayers, keras.layers.Layer):
            raise TypeError(
                "`metalayers` must be a list of Keras layers, got one layer, "
                f"{metalayers.name!r}."
            )
        steps = list(metalayers)
        validation.check_layers(
            "metalayers", steps if stem is None else [stem, *steps]
        )
        if controller is not None and not isinstance(controller, Controller):
            raise TypeError(
                f"`controller` must be a Controller, got {controller!r}."
            )
        self.metalayers = steps
        self.choosing = [s for s in steps if isinstance(s, Metalayer)]
        if not self.choosing:
            raise ValueError("`metalayers` must hold at least one Metalayer.")
        if isinstance(costs, str):
            validation.check_choice("costs", costs, tuple(costs_lib.COUNTERS))
        else:
            costs_lib.check_user_costs(costs, self.num_modules)
            costs = [[float(cost) for cost in row] for row in costs]
        if sandwich is not None and not isinstance(sandwich, Sandwich):
            raise TypeError(
                f"`sandwich` must be a Sandwich or None, got {sandwich!r}."
            )
        self.controller = RNNController() if controller is None else controller
        self.stem = stem
        self.estimator = estimators.get(estimator)
        self.sandwich = sandwich
        self.costs = costs
        self.routing = routing
        self._use_routing("partition" if routing == "auto" else routing)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    @property
    def num_modules(self) -> list[int]:
        """m_1, ..., m_n."""
        return [metalayer.num_modules for metalayer in self.choosing]

    def build(self, input_shape: Any) -> None:
        shape = _any_batch(without_gamma(input_shape))
        self.build_shape = shape
        if isinstance(input_shape, Mapping):  # Export needs a name it has.
            inputs = {k: v for k, v in input_shape.items() if k != "gamma"}
            self.build_shape = _any_batch(inputs)
        if self.stem is None and isinstance(shape, Mapping):
            raise ValueError(
                f"Several inputs {sorted(shape)} need a `stem` that joins them."
            )
        self._input_shapes = []  # Of the stem if there is one, and each step.
        for step in self._steps():
            self._input_shapes.append(shape)
            shape = layer_output_shape(step, shape)
        self.output_row_shape = tuple(shape[1:])
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
            self.preferences.has_prices(self.num_modules),
            self.output_row_shape,
        )
        if not self.estimator.built:
            size = summary_size(activation_shapes[0], self.controller.grid)
            self.estimator.build((None, size + num_gammas))
        self.cost_table = table = self._count_costs()
        equal = table.dearest == table.cheapest
        if equal and self.sandwich is not None and self.sandwich.runs_both_ends:
            raise ValueError(
                "A sandwich of dearest and cheapest path needs modules of "
                f"different costs, got {table.modules}."
            )
        prices = self.preferences.price_table(table.fractions)
        self._price_tables = None  # n of float32 [k, m_i].
        if prices is not None:
            ends = np.cumsum(self.num_modules)
            self._price_tables = np.split(prices, ends[:-1], axis=1)
        self.built = True

    def call(
        self,
        inputs: Any,
        gamma: Gamma | None = None,
        choices: tf.Tensor | None = None,
        decision: Decision | None = None,
        routing: str | None = None,
        paths: Sequence[Sequence[int]] | None = None,
        training: bool | None = None,
        return_composition: bool = False,
    ) -> tf.Tensor | Composition:
        inputs, gamma = split_gamma(inputs, gamma)
        activations = inputs if self.stem is None else self.stem(inputs)
        if decision is None:
            decision = "sample" if training else self.decision
        validation.check_choice("decision", decision, get_args(Decision))
        with tf.name_scope(STEERING):
            gamma_seeds, choice_seeds = self._draw_seeds(
                bool(training), decision == "sample"
            )
            # Not of what the stem gives: a runtime with a layout of its own
            # would copy all of it, to tell its shape.
            batch_size = tf.shape(tf.nest.flatten(inputs)[0])[0]
            gamma = self.resolve_gamma(gamma, batch_size, gamma_seeds)
            scaled = self.preferences.scale(gamma)  # [B, k]
            prices = self._prices(gamma)
            least = UNIFORM if decision == "sample" else POLICY
            choices, known = known_paths(
                choices, paths, self.num_modules, batch_size, least
            )
        path = follow(
            self.metalayers,
            self.controller,
            activations,
            scaled,
            prices,
            decide_by(choice_seeds, choices, batch_size),
            routing or self._routing_in_use,
            known,
        )
        if not return_composition:
            return path.outputs
        module_costs = [tf.constant(c) for c in self.cost_table.fractions]
        policy = Policy(path.logits, path.choices, tuple(module_costs))
        context = tf.stop_gradient(path.context)
        return Composition(path.outputs, policy, gamma, context, path.guesses)

    def compile(
        self,
        optimizer: Any = "adam",
        loss: Any = None,
        metrics: Any = None,
        reward: Reward = None,
        **kwargs: Any,
    ) -> None:
        jit_compile = kwargs.get("jit_compile", "auto")
        if jit_compile is True and self.routing not in ("auto", "dense"):
            raise ValueError(
                f"`jit_compile=True` needs routing 'dense' or 'auto', but the "
                f"model has routing={self.routing!r}, which XLA cannot compile."
            )
        if self.controller.probe and loss is not None:
            losses_lib.check_logits(loss, "A controller's probe")
        if self.routing == "auto":
            self._use_routing("dense" if jit_compile is True else "partition")
        super().compile(optimizer, loss, metrics, reward, **kwargs)

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "metalayers": [serialize(step) for step in self.metalayers],
            "controller": serialize(self.controller),
            "preferences": [serialize(p) for p in self.preferences],
            "stem": serialize(self.stem),
            "estimator": serialize(self.estimator),
            "sandwich": serialize(self.sandwich),
            "costs": self.costs,
            "decision": self.decision,
            "routing": self.routing,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects=None) -> Self:
        parts = (
            "metalayers",
            "controller",
            "preferences",
            "stem",
            "estimator",
            "sandwich",
        )
        deserialized = {
            key: keras.saving.deserialize_keras_object(
                config[key], custom_objects=custom_objects
            )
            for key in parts
        }
        return cls(**{**config, **deserialized})

    def get_build_config(self) -> dict[str, Any] | None:
        return {"input_shape": self.build_shape} if self.built else None

    def build_from_config(self, config: dict[str, Any]) -> None:
        self.build(config["input_shape"])

    def save_own_variables(self, store: dict[str, Any]) -> None:
        super().save_own_variables(store)
        for i, state in enumerate(self._random_states()):
            store[f"random_state_{i}"] = state

    def load_own_variables(self, store: dict[str, Any]) -> None:
        states = self._random_states()
        for i, state in enumerate(states):
            state.assign(store[f"random_state_{i}"])
        names = store.keys()  # A stored group is no mapping otherwise.
        own = {n: store[n] for n in names if not n.startswith("random_state")}
        super().load_own_variables(own)

    def along(self, inputs: Any, path: Sequence[int]) -> tf.Tensor:
        activations = inputs
        for layer in self.layers_along(path):
            activations = layer(activations)
        return activations

    def layers_along(self, path: Sequence[int]) -> list[keras.layers.Layer]:
        """The stem, the fixed steps and one module of each metalayer.

        Args:
            path: c_1, ..., c_n.

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

    def _steps(self) -> list[keras.layers.Layer]:
        """The stem, if there is one, and the metalayers and fixed steps."""
        return ([] if self.stem is None else [self.stem]) + self.metalayers

    def _prices(self, gamma: tf.Tensor) -> list[tf.Tensor] | None:
        """Of the modules of each metalayer, n tensors float32 `[B, m_i]`."""
        if self._price_tables is None:
            return None
        return [tf.matmul(gamma, table) for table in self._price_tables]

    def _use_routing(self, routing: str) -> None:
        self._routing_in_use = routing
        self.supports_jit = routing == "dense"  # Keras asks before it compiles.

    def _draw_seeds(
        self, for_gamma: bool, for_choices: bool
    ) -> tuple[tf.Tensor | None, tf.Tensor | None]:
        """Stateless int32 seeds `[k, 2]` and `[n, 2]`, or `None` if unused."""
        if not (for_gamma or for_choices):
            return None, None
        seed = tf.cast(self.seed_generator.next(), tf.int32)  # [2]
        num_gammas = len(self.preferences.names)
        seeds = tf.random.split(seed, num_gammas + len(self.choosing))
        return (
            seeds[:num_gammas] if for_gamma else None,
            seeds[num_gammas:] if for_choices else None,
        )

    def _count_costs(self) -> costs_lib.CostTable:
        if not isinstance(self.costs, str):
            modules = tuple(tuple(row) for row in self.costs)
            return costs_lib.CostTable("user", 0.0, 0.0, modules)
        fixed, choosing = [], []
        for step, shape in zip(self._steps(), self._input_shapes, strict=True):
            if isinstance(step, Metalayer):
                choosing.append((step.modules, shape))
            else:
                fixed.append((step, shape))
        return costs_lib.count(self.costs, fixed, choosing, self.controller)

    def _random_states(self) -> list[Any]:
        """Of every seed generator, the modules' too, so that runs resume."""
        return [v for v in self.variables if v.path.endswith("generator_state")]


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

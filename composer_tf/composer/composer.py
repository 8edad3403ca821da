"""The Composer: a Keras model whose budget is an input."""

from collections.abc import Sequence
from typing import Any, Literal, Self, get_args

import keras
import tensorflow as tf

from composer_tf import costs as costs_lib
from composer_tf import estimators, validation
from composer_tf.composer.exportable_model import ExportableModel
from composer_tf.composer.inputs import split_gamma
from composer_tf.composer.steerable_model import Decision
from composer_tf.layers import Controller
from composer_tf.layers.path import decide_by, follow, known_paths
from composer_tf.objectives import losses as losses_lib
from composer_tf.objectives.rewards import Reward
from composer_tf.objectives.sandwich import Sandwich
from composer_tf.policy import POLICY, STEERING, UNIFORM, Composition, Policy
from composer_tf.preferences import Gamma, Preference, PreferenceCollection
from composer_tf.preferences.preference import serialize as serialize_preference

Routing = Literal["auto", "partition", "dense", "branch", "scatter"]


@keras.saving.register_keras_serializable(package="composer_tf")
class Composer(ExportableModel):
    """One model, any compute budget, per input (Odena et al., 2017).

    A controller picks one module per example at each metalayer; modules and
    controller are trained together by REINFORCE. The costs of the preferences
    join the reward, and their gammas are inputs of the controller, so the
    trained model is steered at test time.

    Args:
        metalayers: `Metalayer`s, at least one, and plain Keras layers as fixed
            steps between them. No layer object may appear twice.
        controller: A `Controller`. Defaults to `RNNController()`.
        preferences: `Preference`s with different names.
        stem: Keras layer or model of one or several named inputs, f_0 of
            equation (1); or `None`.
        estimator: Estimator of the gradient (11): `"reinforce"` (default),
            `"leave_one_out"`, `"exact"`, or an `Estimator`.
        sandwich: `Sandwich` that trains the dearest and the cheapest path on
            every example besides the sampled one, or `None` (default).
        costs: Unit of beta in (6): `"parameters"` (default), `"macs"`, or
            numbers, one per module of each metalayer; stem and controller then
            count as 0.
        decision: Choice at test time, the policy's `"mode"` (default) or a
            `"sample"`. Training always samples, and artifacts take the mode.
        routing: Strategy that decides which rows a module runs on; results are
            equal, unless a module normalizes over the batch in training: dense
            does so over rows that it does not serve, too. `"partition"`,
            `"branch"` and `"scatter"` run each module on its own rows only,
            `"dense"` runs all modules on all rows
            (`composer_tf.layers.routing`). `"auto"` (default) is dense when
            compiled with `jit_compile=True`, as XLA needs it, and partition
            otherwise.
        seed: Int, seed of all sampling.
        name: Name of the model.

    Call arguments:
        inputs: Input of the stem, or a mapping that may hold `"gamma"` too,
            such as `{"image": x, "gamma": g}`.
        gamma: Number or float32 `[B]` with one steerable preference; `[k]` or
            `[B, k]` with several; or a mapping by name. Overrides a gamma in
            the inputs. Clipped to the trained support. Defaults to a sample in
            training and to the preferences' defaults otherwise.
        budget: Number or float32 `[B]`, fractions of full cost in [0, 1]. It
            replaces gamma in a calibrated model (`calibrate`).
        choices: int32 `[B, n]`, modules to take; -1 asks the controller.
        decision: Decision for this call, in place of the model's.
        routing: Routing for this call, in place of the model's: a name of
            `composer_tf.layers.routing.STRATEGIES`.
        paths: K tuples of n modules, the paths that every example takes, in
            place of `choices`. -1 asks the controller; -2 draws a module
            uniformly, where the decision is a sample.
        training: Bool.
        return_composition: Whether to return a `Composition` instead of its
            outputs.

    Attributes:
        metalayers: List of the `Metalayer`s and fixed steps, as given.
        routed_layers: The n steps of `metalayers` that are `Metalayer`s.
        num_modules: Numbers of modules m_1, ..., m_n.
        controller: The `Controller`.
        preferences: The `PreferenceCollection`, which is iterable.
        calibration: `Calibration`, which gives the gamma of a budget, or
            `None`.
        cost_table: `CostTable` with the cost of every part, once built.
        overhead: Cost of every path besides its modules, a fraction of full
            cost, once built.
        build_shape: Shape of the input with its batch axis, or shapes by name,
            once built.

    Called as a layer of another Keras model, it trains only its modules, stem
    and fixed steps: its controller learns in its own `fit`. It cannot be a part
    of another Composer.

    Returns:
        `[R, ...]`, the activations after the last step: logits, for a
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
        # Inputs may be integers and gamma is float32: each layer casts its own.
        super().__init__(
            metalayers=metalayers,
            controller=controller,
            stem=stem,
            costs=costs,
            preferences=PreferenceCollection(preferences),
            decision=decision,
            estimator=estimator,
            sandwich=sandwich,
            **{**kwargs, "autocast": False},
        )
        validation.check_choice("routing", routing, get_args(Routing))
        self.routing = routing
        self._use_routing("partition" if routing == "auto" else routing)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

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
        validation.check_input_names(inputs, self.build_shape)
        inputs, gamma = split_gamma(inputs, gamma)
        activations = inputs if self.stem is None else self.stem(inputs)
        wanted = self._input_shapes[0 if self.stem is None else 1]
        activations = validation.ensure_input_shape(
            inputs, self.build_shape, activations, wanted
        )
        if decision is None:
            decision = "sample" if training else self.decision
        validation.check_choice("decision", decision, get_args(Decision))
        with tf.name_scope(STEERING):
            gamma_seeds, choice_seeds = self._draw_seeds(
                bool(training), decision == "sample"
            )
            # Not from the stem's output: a runtime with a layout of its own
            # would copy all of it just to read its shape.
            batch_size = tf.shape(tf.nest.flatten(inputs)[0])[0]
            gamma = self._resolve_gamma(gamma, batch_size, gamma_seeds)
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
        return Composition(
            path.outputs, policy, gamma, context, path.guesses, self.overhead
        )

    def compile(
        self,
        optimizer: Any = "adam",
        loss: Any = None,
        *,
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
        super().compile(
            optimizer, loss, metrics=metrics, reward=reward, **kwargs
        )

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "metalayers": [serialize(step) for step in self.metalayers],
            "controller": serialize(self.controller),
            "preferences": [
                serialize_preference(preference)
                for preference in self.preferences
            ],
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
        seeds = tf.random.split(seed, num_gammas + len(self.routed_layers))
        return (
            seeds[:num_gammas] if for_gamma else None,
            seeds[num_gammas:] if for_choices else None,
        )

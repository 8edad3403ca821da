"""The Composer: a Keras model that takes its budget as an input."""

from collections.abc import Sequence
from typing import Any, Literal, Self, get_args

import keras
import tensorflow as tf

from composer_tf import costs as costs_lib
from composer_tf import estimators, validation
from composer_tf.composer.exportable_model import ExportableModel
from composer_tf.composer.steerable_model import Decision, split_gamma
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
        decision: At test time the policy's `"mode"` (default) or a `"sample"`.
            Training always samples.
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
            float32 `[B]`, fractions of full cost in [0, 1] (`calibrate`).
        choices: int32 `[B, n]`, modules to take; -1 asks the controller.
        decision: Overrides the model's for this call.
        routing: Overrides the model's for this call: a name of
            `composer_tf.layers.routing.STRATEGIES`.
        paths: K tuples of n modules, or -1, or -2 for a module drawn uniformly
            where the decision is a sample: paths that every example takes,
            instead of `choices`.
        training: Bool.
        return_composition: Return a `Composition` instead of its outputs.

    Attributes:
        metalayers: As given.
        routed_layers: Those of them that are `Metalayer`s, n.
        num_modules: m_1, ..., m_n.
        controller: A `Controller`.
        preferences: A `PreferenceCollection`, which is iterable.
        calibration: What a budget stands for, a `Calibration`, or `None`.
        cost_table: Once built, the cost of every part, a `CostTable`.
        overhead: Once built, what every path costs beside its modules, a
            fraction of full cost.
        build_shape: Once built, the shape of the input with its batch axis, or
            shapes by name.

    Called as a layer of another Keras model, only its modules, stem and fixed
    steps are trained: its controller learns in its own `fit`. As a part of
    another Composer it is refused.

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
        # Inputs may be integers and gamma is float32: layers cast on their own.
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
        validation.check_input_shape(
            inputs, self.build_shape, activations, wanted
        )
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

"""Export of a model behind the usual Keras verb."""

import dataclasses
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from composer_tf import exporters
from composer_tf.composer.budgeted_model import BudgetedModel
from composer_tf.composer.inputs import without_gamma
from composer_tf.composer.precision import HALF, float32_copy
from composer_tf.layers.constants import Constants
from composer_tf.objectives import losses
from composer_tf.policy import STEERING

_SWEEP = 9  # Gammas that show an artifact's users how they are spread.

# Bytes of weights that a SavedModel holds as constants, which TensorFlow copies
# several times as it loads them. To read more as variables shows less: modules
# of that size take longer.
_MAX_CONSTANTS = 64 * 2**20


class ExportableModel(BudgetedModel):
    """A model that is deployed with gamma as an input."""

    def export(
        self,
        filepath: str | os.PathLike,
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Writes an artifact for deployment, steered by its input gamma.

        The artifact of a calibrated model takes budgets too. It takes the
        likeliest modules, also of a model whose decision is `"sample"`, and
        those that are not chosen do not run. The outputs are `logits` and
        `probabilities` of a classifier, `outputs` otherwise; `choices` int32
        `[B, n]`; `module_probabilities` float32 `[B, n, m]`, 0 where a
        metalayer has fewer than m modules; and `cost` float32 `[B]`, a fraction
        of full cost.

        Args:
            filepath: File or folder to write; an existing one is replaced.
            format: `"tf_saved_model"` (default), `"tflite"` or `"onnx"`. In the
                last two, a mixed-precision model computes in float32.
            verbose: Whether to print the path.
            **options: Options of `export_saved_model`, `export_litert` or
                `export_onnx` in `composer_tf.exporters`; and `input_dtypes`,
                types by input name, or the type of the only input. They default
                to those of the stem's `keras.Input`s, otherwise to float32.

        Returns:
            Description of the artifact, which is also written as JSON.

        Raises:
            ValueError: If the model is not built or not compiled, or an option
                does not fit.
            TypeError: If `input_dtypes` is neither a mapping nor a type.
            ImportError: If a package is missing; it names the extra.
        """
        model = self.routed_model(options.pop("input_dtypes", None), format)
        description = exporters.export(model, filepath, format, **options)
        if verbose:
            print(filepath)
        return description

    def quantize(self, *args: Any, **kwargs: Any) -> None:
        """Refused: what steers must not depend on 8 bits, but artifacts may.

        Raises:
            ValueError: Always; it says how to export a quantized artifact.
        """
        raise ValueError(
            "A Composer is quantized when it is exported, except for its "
            "controller: `model.export('m.tflite', 'tflite', "
            "quantization='int8', calibration_data=...)`."
        )

    def routed_model(
        self,
        input_dtypes: Mapping[str, str] | str | None = None,
        format: str = "tf_saved_model",
    ) -> exporters.RoutedModel:
        """The model as exporters see it.

        Args:
            input_dtypes: Same as in `export`.
            format: Same as in `export`.

        Returns:
            Model that the functions of `composer_tf.exporters` take.

        Raises:
            ValueError: If the model is not built or not compiled.
            TypeError: If `input_dtypes` is neither a mapping nor a type.
        """
        if not self.built:
            raise ValueError(
                "The model has no weights yet: call `fit`, or the model on an "
                "example, before `export`."
            )
        if not self.compiled:
            raise ValueError(
                "The model is not compiled, and its loss says whether outputs "
                "are logits: call `compile` with the loss it was trained on, "
                "or load it with `compile=True`, before `export`."
            )
        if format != "tf_saved_model":
            copy = float32_copy(self)
            return dataclasses.replace(
                copy._routed(input_dtypes, copy.controller.weights),
                calibration=self.calibration,
            )
        constants = self.controller.weights
        # A call may update those that are not trained.
        others = {
            id(weight) for weight in (*constants, *self.estimator.weights)
        }
        trained = [w for w in self._trained() if id(w) not in others]
        if _num_bytes(trained) <= _MAX_CONSTANTS:
            constants = [*constants, *trained]
        return self._routed(input_dtypes, constants)

    def _trained(self) -> list[keras.Variable]:
        """All weights that training updates, also of layers frozen by now."""
        weights = {
            id(weight): weight
            for layer in self._flatten_layers()
            for weight in layer._trainable_variables
        }
        return [*weights.values()]

    def _routed(
        self,
        input_dtypes: Mapping[str, str] | str | None,
        constants: Sequence[keras.Variable],
    ) -> exporters.RoutedModel:
        """`routed_model`, in the precision of the model.

        Args:
            input_dtypes: Same as in `export`.
            constants: Weights that are constants of the graphs.
        """
        shapes = self.build_shape
        if not isinstance(shapes, Mapping):
            shapes = {"image": shapes}
        names = tuple(shapes)
        dtypes = dict.fromkeys(names, "float32")
        dtypes |= _declared_dtypes(self._steps()[0], names)
        dtypes |= _checked_dtypes(input_dtypes, names)
        return exporters.RoutedModel(
            name=self.name,
            forward=_with_constants(self._forward, constants),
            along=_with_constants(self._along, constants),
            inputs={
                name: tf.TensorSpec(shape, dtypes[name], name)
                for name, shape in shapes.items()
            },
            gammas=[
                exporters.GammaInput(
                    p.name,
                    *p.gamma.support,
                    p.default,
                    sweep=p.gamma.sweep(_SWEEP),
                )
                for p in self.preferences.steerable
            ],
            module_costs=self.cost_table.fractions,
            overhead=self.overhead,
            variables=[v.value for v in self.variables],
            tables=[
                item
                for layer in self._flatten_layers()
                for item in vars(layer).values()
                if isinstance(item, exporters.Table)
            ],
            calibration=self.calibration,
        )

    def _forward(
        self,
        inputs: Mapping[str, tf.Tensor],
        gamma: tf.Tensor | None,
        choices: tf.Tensor | None,
        routing: str,
    ) -> dict[str, tf.Tensor]:
        """Implements `Forward` of the exporters."""
        composition = self(
            without_gamma(inputs),
            gamma=gamma,
            choices=choices,
            decision="mode",
            routing=routing,
            training=False,
            return_composition=True,
        )
        policy = composition.policy
        widest = max(self.num_modules)
        with tf.name_scope(STEERING):
            probabilities = [
                tf.pad(p, [[0, 0], [0, widest - p.shape[-1]]])
                for p in policy.probabilities
            ]
            table = tf.concat(probabilities, axis=-1)  # [B, n * m]
            return {
                **losses.predictions(self.loss, composition.outputs),
                "choices": policy.choices,
                "module_probabilities": tf.reshape(
                    table, [-1, len(probabilities), widest]
                ),
                "cost": composition.cost,
            }

    def _along(
        self, inputs: Mapping[str, tf.Tensor], path: Sequence[int]
    ) -> dict[str, tf.Tensor]:
        outputs = self.along(inputs, path)
        return losses.predictions(self.loss, outputs)


def _with_constants(
    function: Callable[..., Any], constants: Sequence[keras.Variable]
) -> Callable[..., Any]:
    """The same function, in a graph of which these weights are constants."""

    def run(*args, **kwargs):
        with Constants(constants):
            return function(*args, **kwargs)

    return run


def _num_bytes(weights: Iterable[keras.Variable]) -> int:
    return sum(
        math.prod(weight.shape) * tf.as_dtype(weight.dtype).size
        for weight in weights
    )


def _declared_dtypes(
    step: keras.layers.Layer, names: Sequence[str]
) -> dict[str, str]:
    """Types of the `keras.Input`s of a first step, if it has any.

    Half precision is left out: the step is fed float32 and casts.
    """
    tensors = getattr(step, "inputs", None) or []
    declared = {tensor.name: tensor.dtype for tensor in tensors}
    if len(names) == len(tensors) == 1:  # Its name may differ.
        declared = {names[0]: tensors[0].dtype}
    return {
        name: dtype
        for name, dtype in declared.items()
        if name in names and dtype not in HALF
    }


def _checked_dtypes(
    input_dtypes: Mapping[str, str] | str | None, names: Sequence[str]
) -> dict[str, str]:
    """Types by name, as given by the user."""
    if input_dtypes is None:
        return {}
    if isinstance(input_dtypes, (str, tf.DType)):
        if len(names) > 1:
            raise ValueError(
                f"`input_dtypes` must map names of {names} to types, got "
                f"{input_dtypes!r}, which is for one input."
            )
        input_dtypes = dict.fromkeys(names, input_dtypes)
    if not isinstance(input_dtypes, Mapping):
        raise TypeError(
            "`input_dtypes` must map names to types, or be a type, got "
            f"{input_dtypes!r}."
        )
    if not input_dtypes.keys() <= set(names):
        raise ValueError(
            f"`input_dtypes` must name inputs, {names}, got "
            f"{tuple(input_dtypes)}."
        )
    for name, dtype in input_dtypes.items():
        try:
            tf.as_dtype(dtype)
        except TypeError as error:
            raise ValueError(
                f"`input_dtypes` must be of TensorFlow's types, such as "
                f"'uint8', got {dtype!r} for {name!r}."
            ) from error
    return dict(input_dtypes)

"""A set of modules, one of which runs for each example."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras
import tensorflow as tf

from composer_tf import validation
from composer_tf.layers import routing as routing_lib
from composer_tf.layers import routing_checks
from composer_tf.layers.blocks import by_blocks
from composer_tf.layers.modules import Module, continued, run_module
from composer_tf.policy import take_blocks

Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable(package="composer_tf")
class Metalayer(keras.layers.Layer):
    """The i-th metalayer f_i: m_i modules, one chosen per example (eq. 4).

    Args:
        modules: Keras layers or models, at least one. They may differ in
            everything but the shape of their output, and each maps one tensor
            to one tensor. A layer object may appear only once.

    Attributes:
        row_shape: Shape of one row of the modules' output, once built.

    Call arguments:
        inputs: `[B, ...]`, the activations a_{i-1}.
        choices: int32 `[B]`, or `[D * B]` with D blocks: the module of each
            row, in `[0, m_i)`.
        routing: Name of one of `composer_tf.layers.routing.STRATEGIES`.
            Defaults to `"partition"`, which becomes dense, with a warning,
            where the shape of an output row is not known. Results are equal;
            which rows a module runs on differs, and so what a module sees that
            normalizes over the batch in training.
        blocks: D choices, if the rows are D blocks of equal size: the module
            that all rows of a block take, or -1 if not known (default). Known
            blocks need no routing: also under XLA only their module runs, and
            only once on equal rows.
        sources: Indices of the blocks of `inputs` that the D blocks are taken
            from. Defaults to the same blocks.
        continuation: Built layers that the rows of every module go through
            before they are merged. Defaults to none.

    Returns:
        `[B, ...]`, or `[D * B, ...]` with D blocks: the activations a_i, or
        what the continuation makes of them, in the metalayer's compute dtype.

    Raises:
        ValueError: If there is no module, or their output shapes disagree.
        TypeError: If a module is not a Keras layer, or is a Metalayer.

    Example:
        >>> import keras, tensorflow as tf
        >>> dense = keras.layers.Dense
        >>> metalayer = Metalayer([dense(4), dense(4)])
        >>> metalayer(tf.ones([3, 2]), tf.constant([0, 1, 1])).shape
        TensorShape([3, 4])
    """

    def __init__(
        self, modules: Sequence[keras.layers.Layer], **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        modules = list(modules)
        if not modules:
            raise ValueError(
                f"Metalayer {self.name!r} is empty: `modules` must hold at "
                "least one Keras layer."
            )
        validation.check_layers("modules", modules)
        if any(isinstance(module, Metalayer) for module in modules):
            raise TypeError(
                "`modules` must not hold a Metalayer, which needs choices of "
                "its own."
            )
        self.modules = modules

    @property
    def num_modules(self) -> int:
        """Number of modules m_i."""
        return len(self.modules)

    def build(self, input_shape: Shape) -> None:
        shapes = [
            layer_output_shape(module, input_shape) for module in self.modules
        ]
        if any(shape != shapes[0] for shape in shapes):
            listing = ", ".join(
                f"{module.name}: {shape}"
                for module, shape in zip(self.modules, shapes, strict=True)
            )
            raise ValueError(
                f"Modules of metalayer {self.name!r} must agree in output "
                f"shape, got {listing} for input shape {tuple(input_shape)}."
            )
        self.row_shape = tf.TensorShape(shapes[0][1:])

    def call(
        self,
        inputs: tf.Tensor,
        choices: tf.Tensor,
        routing: str = "partition",
        blocks: Sequence[int] = (-1,),
        sources: Sequence[int] | None = None,
        continuation: Sequence[keras.layers.Layer] = (),
        training: bool | None = None,
    ) -> tf.Tensor:
        validation.check_choice(
            "routing", routing, tuple(routing_lib.STRATEGIES)
        )
        sources = range(len(blocks)) if sources is None else sources
        modules: Sequence[Module] = self.modules
        row_shape = self.row_shape
        if continuation:
            modules = continued(self.modules, continuation, self.compute_dtype)
        for layer in continuation:
            shape = layer.compute_output_shape((None, *row_shape))
            row_shape = tf.TensorShape(shape[1:])
        if len(modules) == 1:
            outputs = run_module(modules[0], inputs, self.compute_dtype)
            return take_blocks(outputs, sources)
        masked = hasattr(inputs, "_keras_mask")
        routing = self._routing_of(routing, masked)

        def run(rows: tf.Tensor, choices: tf.Tensor) -> tf.Tensor:
            if training and routing != "dense":
                routing_checks.check_not_synchronized(self.modules)
            return routing_lib.STRATEGIES[routing](
                modules, rows, choices, row_shape, self.compute_dtype
            )

        # Routing by choices runs each module once, on known and unknown rows.
        num_known = sum(block >= 0 for block in blocks)
        least = 1 if routing == "dense" else len(blocks)
        if num_known < least or masked:
            rows: Any = take_blocks(inputs, sources)
            if masked:
                rows._keras_mask = take_blocks(inputs._keras_mask, sources)
            outputs = run(rows, choices)
        else:
            parts = tf.split(inputs, max(sources) + 1)
            outputs = by_blocks(
                modules,
                [parts[source] for source in sources],
                tf.split(choices, len(blocks)),
                blocks,
                run,
                self.compute_dtype,
            )
        if training and routing != "dense":
            routing_checks.check_no_leaked_losses(self.modules, inputs)
        return outputs

    def _routing_of(self, routing: str, masked: bool) -> str:
        """The routing that is asked for, or the one that these rows need."""
        if not self.row_shape.is_fully_defined():
            # An empty part would have an unknown shape.
            if routing not in ("dense", "partition"):
                raise ValueError(
                    f"Routing {routing!r} needs modules whose output shape is "
                    f"known, but that of metalayer {self.name!r} is "
                    f"{self.row_shape}: build the model for one size."
                )
            if routing == "partition":
                warnings.warn(
                    f"All modules of metalayer {self.name!r} run on all rows, "
                    f"as the shape of their output is {self.row_shape}: build "
                    "the model for one size to run the chosen ones only.",
                    stacklevel=2,
                )
            routing = "dense"
        if masked and routing != "dense":
            raise ValueError(
                f"Metalayer {self.name!r} got a mask, which no routing but "
                "'dense' hands to the modules. Put what makes it, such as "
                "Embedding(mask_zero=True), into each module; or pass "
                "routing='dense' to the Composer, which then trains but cannot "
                "be exported."
            )
        return routing

    def compute_output_shape(self, input_shape: Shape, *_: Any) -> Shape:
        return layer_output_shape(self.modules[0], input_shape)

    def get_config(self) -> dict[str, Any]:
        modules = keras.saving.serialize_keras_object(self.modules)
        return {**super().get_config(), "modules": modules}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        modules = keras.saving.deserialize_keras_object(config["modules"])
        return cls(**{**config, "modules": modules})


def layer_output_shape(
    layer: keras.layers.Layer, input_shape: Shape | Mapping[str, Shape]
) -> Shape:
    """The output shape of a layer, which is built if it is not yet.

    Args:
        layer: Any Keras layer or model.
        input_shape: Shape with the batch axis; a mapping for named inputs.

    Raises:
        TypeError: If the layer does not return one tensor.
    """
    if isinstance(layer, Metalayer):
        if not layer.built:
            layer.build(input_shape)
        return layer.compute_output_shape(input_shape)
    inputs: Any
    if isinstance(input_shape, Mapping):
        inputs = {name: keras.KerasTensor(s) for name, s in input_shape.items()}
        # For a model that lists its inputs, Keras would sort these by name.
        names = [tensor.name for tensor in getattr(layer, "inputs", None) or []]
        if set(names) == set(inputs) and not isinstance(layer.input, Mapping):
            inputs = [inputs[name] for name in names]
    else:
        inputs = keras.KerasTensor(input_shape)
    output = layer(inputs)
    if not isinstance(output, keras.KerasTensor):
        raise TypeError(
            f"Layer {layer.name!r} must return one tensor, got "
            f"{type(output).__name__}."
        )
    return tuple(output.shape)

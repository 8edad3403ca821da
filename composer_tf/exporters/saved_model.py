"""SavedModel, for TensorFlow and TensorFlow Serving."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from composer_tf.exporters.description import describe
from composer_tf.exporters.exposure import Gammas, expose
from composer_tf.exporters.routed_model import RoutedModel
from composer_tf.exporters.signatures import (
    BUDGET,
    DEFAULT_GAMMA,
    FORCED,
    MAIN,
    resources_read,
    signature,
)
from composer_tf.exporters.tables import tables_read
from composer_tf.exporters.targets import prepare_target
from composer_tf.exporters.warmup import check_warmup, write_warmup_requests
from composer_tf.files import atomic_path

DESCRIPTION = pathlib.Path("assets.extra", "composer.json")


def export_saved_model(
    model: RoutedModel,
    path: str | os.PathLike,
    fix: Gammas | None = None,
    default_gamma: Gammas | None = None,
    warmup_requests: int = 0,
    warmup_inputs: Mapping[str, np.ndarray] | None = None,
    with_override: bool = False,
) -> dict[str, Any]:
    """Writes a folder that runs without composer_tf and Keras.

    Signatures: `serving_default` takes the inputs and `gamma`, which has a
    default where the caller honors it; `default_gamma` takes no gamma;
    `budget`, for a calibrated model, takes `budget`. The batch may have any
    size; each module runs on the rows that chose it, and one that no row chose
    does not run. A controller's weights are constants of the graph, and all
    that are trained if these take 64 MiB at most; others are variables.

    Args:
        model: Model to export.
        path: Folder to write; an existing SavedModel is replaced.
        fix: Values of gammas to fix, so that they are no inputs, by name; or a
            number if there is only one gamma.
        default_gamma: Defaults to use in place of the model's, in the same
            form.
        warmup_requests: Number of requests that TensorFlow Serving replays when
            it loads the model, 0 to 1000, to all signatures in turn. Needs
            `tensorflow-serving-api`.
        warmup_inputs: Arrays `[N, ...]` by name, of which each request takes a
            row. Defaults to random ones.
        with_override: Whether to add a signature `forced` with the input
            `override`, int32 `[batch, n]`: modules to take, -1 to ask the
            controller. It has a graph of its own, with constants of its own.

    Returns:
        Description of the artifact, also in `assets.extra/composer.json`.

    Raises:
        ValueError: If an argument does not fit the model, or the path is a
            file, or a folder that holds something else.
        ImportError: If `warmup_requests` lacks TensorFlow Serving's messages.
    """
    target = prepare_target(path, "tf_saved_model")
    check_warmup(warmup_requests)
    exposure = expose(model.gammas, fix, default_gamma, model.calibration)
    model = _traced_once(model)
    signatures = {
        MAIN: signature(model, exposure, "serving"),
        DEFAULT_GAMMA: signature(model, exposure, "serving", steer_by=None),
    }
    if exposure.calibration is not None:
        signatures[BUDGET] = signature(
            model, exposure, "serving", steer_by="budget"
        )
    if with_override:
        signatures[FORCED] = signature(
            model, exposure, "serving", with_override=True
        )
    description = describe(
        model, exposure, "tf_saved_model", signatures, with_override
    )
    with atomic_path(target) as partial:
        write_saved_model(model, signatures, partial)
        extra = partial / DESCRIPTION
        extra.parent.mkdir(exist_ok=True)
        extra.write_text(json.dumps(description, indent=2) + "\n")
        if warmup_requests:
            write_warmup_requests(
                model, exposure, warmup_requests, extra.parent, warmup_inputs
            )
    return description


def _traced_once(model: RoutedModel) -> RoutedModel:
    """The same model for zero rows too, as one graph that signatures share.

    If each signature were traced, loading would take half as long again.
    """

    @tf.function(autograph=False)
    def forward(inputs, gamma, choices, routing):
        return model.forward(inputs, gamma, choices, routing)

    def forward_rows(inputs, gamma, choices, routing):
        rows = tf.shape(next(iter(inputs.values())))[0]
        if gamma is not None:  # A default is one row.
            gamma = tf.broadcast_to(gamma, [rows, len(model.gammas)])
        batch = {"inputs": inputs, "gamma": gamma, "choices": choices}
        given = {k: v for k, v in batch.items() if v is not None}
        batch |= _at_least_one(rows, given)
        outputs = forward(**batch, routing=routing)
        return {name: x[:rows] for name, x in outputs.items()}

    return dataclasses.replace(model, forward=forward_rows)


def _at_least_one(rows: tf.Tensor, batch: Any) -> Any:
    """The tensors `[rows, ...]`, or one row of zeros in place of none.

    TensorFlow's convolutions return wrong shapes for none. A condition does not
    copy the rows that there are.
    """

    def zeros(tensor: tf.Tensor) -> tf.Tensor:
        shape = tf.concat([[1], tf.shape(tensor)[1:]], axis=0)
        return tf.zeros(shape, tensor.dtype)

    def checked(tensor: tf.Tensor, given: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tensor, [None, *given.shape[1:]])

    chosen = tf.cond(
        rows > 0,
        lambda: batch,
        lambda: tf.nest.map_structure(zeros, batch),
    )
    return tf.nest.map_structure(checked, chosen, batch)


def write_saved_model(
    model: RoutedModel, signatures: Mapping[str, Any], path: pathlib.Path
) -> None:
    """Writes signatures, and once the variables and tables they read."""
    module: Any = tf.Module()
    read = resources_read(signatures)
    module.v = [
        variable
        for variable in model.variables
        # A distributed one has parts, and no handle of its own.
        if any(
            id(v.handle) in read
            for v in getattr(variable, "values", [variable])
        )
    ]
    module.tables = tables_read(model, signatures)
    tf.saved_model.save(module, str(path), signatures=dict(signatures))

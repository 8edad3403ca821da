"""Lookup tables in an artifact, such as of `keras.layers.StringLookup`."""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from composer_tf.exporters.routed_model import RoutedModel, Table
from composer_tf.exporters.signatures import resources_read


def tables_read(
    model: RoutedModel, signatures: Mapping[str, Any]
) -> list[Table]:
    """The tables of a model that signatures read.

    A layer has other tables, such as the counts of its words.

    Args:
        model: Model to export.
        signatures: Functions by name.
    """
    read = resources_read(signatures)
    return [t for t in model.tables if id(t.resource_handle) in read]


def check_tables(
    model: RoutedModel,
    signatures: Mapping[str, Any],
    runtime: str,
    held: Sequence[tuple[tf.DType, tf.DType]] = (),
) -> None:
    """Raises `ValueError` if signatures read a table that is not convertible.

    Args:
        model: Model to export.
        signatures: Functions by name.
        runtime: Name of the runtime in the error.
        held: Types of keys and values of the tables that the runtime has.
    """
    for table in tables_read(model, signatures):
        if (table.key_dtype, table.value_dtype) not in held:
            raise ValueError(
                f"A lookup table from {table.key_dtype.name} to "
                f"{table.value_dtype.name}, as of IntegerLookup or "
                f"StringLookup, cannot be converted to {runtime}: look up "
                "before the model and feed it indices, or export format "
                "'tf_saved_model'."
            )

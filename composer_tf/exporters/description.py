"""The facts about an artifact that its users need, as JSON."""

from collections.abc import Mapping
from typing import Any

from composer_tf.calibration import Calibration
from composer_tf.exporters.exposure import Exposure
from composer_tf.exporters.routed_model import RoutedModel
from composer_tf.exporters.signatures import OVERRIDE
from composer_tf.version import __version__


def describe(
    model: RoutedModel,
    exposure: Exposure,
    format: str,
    signatures: Mapping[str, Any],
    with_override: bool,
    **facts: Any,
) -> dict[str, Any]:
    """Describes an artifact.

    Args:
        model: Model that was exported.
        exposure: Exposure of its gammas.
        format: `"tf_saved_model"`, `"tflite"` or `"onnx"`.
        signatures: Functions from `signature`, by name.
        with_override: Whether the artifact has the input `override`, if its
            functions have it.
        **facts: Further facts about the format.

    Returns:
        Mapping for JSON: the format, the version of this package, the name of
        the model, its inputs, the names of each signature's inputs and of the
        outputs, the free gammas and the fixed ones, the calibration, the costs
        of modules, the overhead of every path, and `facts`.
    """
    traced = next(iter(signatures.values())).get_concrete_function()
    return {
        "format": format,
        "composer_tf": __version__,
        "name": model.name,
        "inputs": {
            name: {"shape": list(spec.shape[1:]), "dtype": spec.dtype.name}
            for name, spec in model.inputs.items()
        },
        "signatures": {
            name: [
                spec.name
                for spec in function.input_signature
                if with_override or spec.name != OVERRIDE
            ]
            for name, function in signatures.items()
        },
        "outputs": sorted(traced.structured_outputs),
        "gamma": [gamma._asdict() for gamma in exposure.free],
        "fixed": dict(exposure.fixed),
        "calibration": _listed(exposure.calibration),
        "module_costs": [list(costs) for costs in model.module_costs],
        "overhead": model.overhead,
        **facts,
    }


def _listed(calibration: Calibration | None) -> dict[str, Any] | None:
    """A calibration for JSON."""
    if calibration is None:
        return None
    name, gammas, costs = calibration
    return {"preference": name, "gammas": list(gammas), "costs": list(costs)}

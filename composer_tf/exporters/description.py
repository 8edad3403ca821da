"""The facts of an artifact that its users need, as JSON."""

from typing import Any

from composer_tf.calibration import Calibration
from composer_tf.exporters.exposure import Exposure
from composer_tf.exporters.routed_model import RoutedModel
from composer_tf.version import __version__


def describe(
    model: RoutedModel, exposure: Exposure, format: str, **facts: Any
) -> dict[str, Any]:
    """Describes an artifact.

    Args:
        model: What was exported.
        exposure: Of its gammas.
        format: `"tf_saved_model"`, `"tflite"` or `"onnx"`.
        **facts: Of the format.
    """
    return {
        "format": format,
        "composer_tf": __version__,
        "name": model.name,
        "inputs": {
            name: {"shape": list(spec.shape[1:]), "dtype": spec.dtype.name}
            for name, spec in model.inputs.items()
        },
        "gamma": [gamma._asdict() for gamma in exposure.free],
        "fixed": dict(exposure.fixed),
        "calibration": _listed(exposure.calibration),
        "module_costs": [list(costs) for costs in model.module_costs],
        "overhead": model.overhead,
        **facts,
    }


def _listed(calibration: Calibration | None) -> dict[str, Any] | None:
    """A calibration as JSON holds it."""
    if calibration is None:
        return None
    name, gammas, costs = calibration
    return {"preference": name, "gammas": list(gammas), "costs": list(costs)}

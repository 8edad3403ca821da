import shutil

import numpy as np
import pytest

import composer_tf as ct
from tests.export.device.models import (
    GAMMAS,
    IMAGES,
    KIT,
    NAMED_GAMMAS,
    build,
)


@pytest.fixture(scope="module")
def model():
    model = build(GAMMAS, ct.GlimpsePreference(ct.Uniform(-4.0, 6.0)))
    model.calibrate(IMAGES, num_gammas=9)
    return model


@pytest.fixture(scope="module")
def two_gammas():
    return build(
        NAMED_GAMMAS,
        ct.GlimpsePreference(ct.Uniform(-4.0, 6.0)),
        ct.EntropyPreference(ct.Uniform(0.0, 1.0)),
    )


@pytest.fixture(scope="module")
def folder(model, two_gammas, tmp_path_factory):
    """What a device holds: files of four kinds, images, and the client."""
    folder = tmp_path_factory.mktemp("device")
    for name, source, options in (
        ("m", model, {"default_gamma": {"glimpse": 6.0}}),
        ("micro", model, {"micro": True}),
        ("lean", model, {"micro": True, "steer_by": "budget"}),
        ("fixed", model, {"fix": {"glimpse": 2.0}}),
        ("two", two_gammas, {}),
    ):
        source.export(folder / f"{name}.tflite", format="tflite", **options)
    shutil.copy(KIT / "client.py", folder)
    np.save(folder / "images.npy", IMAGES)
    np.savez(folder / "images.npz", image=IMAGES)
    return folder


@pytest.fixture
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    return folder

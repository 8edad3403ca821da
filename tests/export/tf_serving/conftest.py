"""A Composer, served."""

import keras
import pytest
import tensorflow as tf

import composer_tf as ct
from tests.export.tf_serving.servers import (
    DEFAULT,
    HIGH,
    IMAGES,
    LOW,
    PROTOCOLS,
    Runtime,
    serving,
)

layers = keras.layers


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A Composer whose choices follow gamma and image, and its folder."""
    keras.utils.set_random_seed(1)
    model = ct.Composer(
        metalayers=[
            ct.Metalayer(
                [layers.Conv2D(4, 1), layers.Conv2D(4, 3, padding="same")]
            ),
            layers.GlobalAveragePooling2D(),
            ct.Metalayer(
                [
                    layers.Dense(5),
                    keras.Sequential([layers.Dense(16), layers.Dense(5)]),
                ]
            ),
        ],
        preferences=[
            ct.GlimpsePreference(ct.Uniform(LOW, HIGH), default=DEFAULT)
        ],
    )
    model(IMAGES)
    kernel = model.controller.cell.kernel  # Its last row reads gamma.
    kernel.assign(tf.concat([kernel[:-1], 8.0 * kernel[-1:]], axis=0))
    model.calibrate(IMAGES, num_gammas=9)
    path = tmp_path_factory.mktemp("serving") / "1"
    model.compile()
    model.export(path, warmup_requests=6)
    return model, path


@pytest.fixture(scope="module")
def model(exported):
    return exported[0]


@pytest.fixture(scope="module")
def runtime(exported):
    runtime = Runtime(exported[1])
    yield runtime
    runtime.session.close()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(params=PROTOCOLS)
def protocol(request):
    return request.param


@pytest.fixture
def ask(protocol, runtime):
    with serving(protocol, runtime) as ask:
        yield ask

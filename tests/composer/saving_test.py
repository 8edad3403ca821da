"""`.keras` files and configs of everything public."""

import inspect
import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest

import composer_tf as ct
from composer_tf import static_networks

layers = keras.layers
X = np.random.default_rng(0).normal(size=[9, 8, 8, 3]).astype("float32")
GAMMA = np.linspace(-2.0, 6.0, 9).astype("float32")


def nested_model():
    """Modules of every kind: layers, Sequential, Functional."""
    inputs = keras.Input([8, 8, 4])
    residual = layers.Conv2D(4, 3, padding="same")(inputs)
    functional = keras.Model(inputs, layers.Add()([inputs, residual]))
    sequential = keras.Sequential(
        [
            layers.Conv2D(6, 3, padding="same"),
            layers.BatchNormalization(),
            layers.Conv2D(4, 1),
        ]
    )
    return ct.Composer(
        stem=keras.Sequential([layers.Conv2D(4, 1), layers.Dropout(0.1)]),
        metalayers=[
            ct.Metalayer(
                [layers.DepthwiseConv2D(3, padding="same"), functional]
            ),
            layers.Activation("relu"),
            ct.Metalayer([sequential, layers.Identity()]),
            layers.GlobalAveragePooling2D(),
            ct.Metalayer([layers.Dense(5), layers.Dense(5, "tanh")]),
        ],
        controller=ct.RNNController(6, grid=2),
        preferences=[
            ct.GlimpsePreference(ct.Uniform(-2.0, 6.0)),
            ct.BatchEntropyPreference(0.1),
        ],
        estimator=ct.Reinforce("learned"),
        costs="macs",
        seed=1,
    )


def test_a_saved_model_predicts_the_same_in_a_fresh_process(tmp_path):
    model = nested_model()
    model.compile("adam", metrics=["accuracy"])
    model.fit(X, np.arange(9) % 5, verbose=0)
    expected = model(X, gamma=GAMMA, return_composition=True)
    model.save(tmp_path / "model.keras")
    np.savez(
        tmp_path / "expected.npz",
        x=X,
        gamma=GAMMA,
        outputs=expected.outputs,
        choices=expected.policy.choices,
    )
    program = """if True:
        import sys, keras, numpy as np, composer_tf
        model = keras.models.load_model(sys.argv[1] + "/model.keras")
        data = np.load(sys.argv[1] + "/expected.npz")
        made = model(data["x"], gamma=data["gamma"], return_composition=True)
        np.testing.assert_array_equal(made.policy.choices, data["choices"])
        np.testing.assert_allclose(made.outputs, data["outputs"], atol=1e-6)
        model.fit(data["x"], np.arange(9) % 5, verbose=0)
    """
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        check=True,
        capture_output=True,
    )


def test_training_goes_on_from_a_saved_model_as_if_never_saved(tmp_path):
    def train(model):
        shuffle = ct.datasets.EpochShuffle(0)
        data = ct.datasets.batches(X, np.arange(9) % 5, 3, shuffle)
        model.fit(data, verbose=0)

    model = nested_model()
    model.compile("adam")
    train(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    train(model)
    train(loaded)
    for kept, again in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(kept.numpy(), again.numpy())


def test_weights_are_saved_without_the_model(tmp_path):
    first, second = nested_model(), nested_model()
    first.build((None, 8, 8, 3))
    second.build((None, 8, 8, 3))
    first.save_weights(tmp_path / "model.weights.h5")
    second.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(first(X), second(X))


def test_weights_load_where_dropout_was_added(tmp_path):
    def make(*more):
        module = keras.Sequential([layers.Dense(4), *more])
        model = ct.Composer([ct.Metalayer([layers.Dense(4), module])])
        model.build((None, 3))
        return model

    model = make()
    model.save_weights(tmp_path / "m.weights.h5")
    other = make(layers.Dropout(0.5))
    other.load_weights(tmp_path / "m.weights.h5")
    x = np.ones([2, 3], np.float32)
    np.testing.assert_array_equal(other(x), model(x))


def test_weights_keep_their_names_in_files(tmp_path):
    """Files of earlier versions have these; others would not load."""
    path = tmp_path / "model.weights.h5"
    model = nested_model()
    model.build((None, 8, 8, 3))
    model.save_weights(path)
    with h5py.File(path) as file:
        assert len(file["controller/norms/layer_normalization/vars"]) == 2
        assert len(file["controller/cell/vars"]) == 3


def test_a_damaged_file_is_refused(tmp_path):
    model = nested_model()
    model(X)
    path = tmp_path / "model.keras"
    model.save(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"model\.keras"):
        keras.models.load_model(path)


PUBLIC = {
    "Composer": lambda: ct.Composer(
        [ct.Metalayer([layers.Dense(3), layers.Dense(3)]), layers.Dense(2)],
        controller=ct.FeedForwardController(5),
        preferences=[ct.GlimpsePreference(0.5)],
        stem=layers.Flatten(),
        estimator="exact",
        sandwich=ct.Sandwich(0.5),
        costs=[[1.0, 2.0]],
        decision="sample",
        routing="dense",
        seed=3,
        name="given",
    ),
    "PathNetwork": lambda: static_networks.PathNetwork(
        [layers.Dense(3)], name="p"
    ),
    "ExitStage": lambda: static_networks.ExitStage(
        [layers.Dense(3)], num_classes=4
    ),
    "EarlyExitNetwork": lambda: static_networks.EarlyExitNetwork(
        [
            static_networks.ExitStage([layers.Dense(3)], 2),
            static_networks.ExitStage([layers.Dense(2)]),
        ]
    ),
    "Metalayer": lambda: ct.Metalayer([layers.Dense(3)], name="m"),
    "RNNController": lambda: ct.RNNController(5, grid=2, max_gap=None),
    "FeedForwardController": lambda: ct.FeedForwardController(
        5, price_factor=3.0
    ),
    "StandardizedConv2D": lambda: ct.StandardizedConv2D(
        4, 3, strides=2, padding="valid", gain=0.5
    ),
    "SpaceToDepth": lambda: ct.SpaceToDepth(3),
    "DepthToSpace": lambda: ct.DepthToSpace(3),
    "Glimpse": lambda: ct.Glimpse(height=3, width=4, top=1, left=2),
    "Reinforce": lambda: ct.Reinforce("learned", decay=0.5, units=7),
    "LeaveOneOut": lambda: ct.LeaveOneOut(num_samples=3),
    "Exact": ct.Exact,
    "Sandwich": lambda: ct.Sandwich(0.1, 0.2, 0.3, "dearest", 4.0, 0.5),
    "Uniform": lambda: ct.Uniform(-1.0, 2.0),
    "LogUniform": lambda: ct.LogUniform(0.5, 2.0),
    "Constant": lambda: ct.Constant(0.3),
    "GlimpsePreference": lambda: ct.GlimpsePreference(
        ct.Uniform(-1.0, 2.0), per="batch", default=1.0, name="a"
    ),
    "EntropyPreference": lambda: ct.EntropyPreference(0.2, name="b"),
    "BatchEntropyPreference": lambda: ct.BatchEntropyPreference(
        ct.LogUniform(0.1, 1.0), per="example", name="c"
    ),
}


def test_every_public_keras_object_is_listed_here():
    registered = {
        name
        for name, value in {**vars(static_networks), **vars(ct)}.items()
        if inspect.isclass(value) and hasattr(value, "get_config")
        and not inspect.isabstract(value)
    }  # fmt: skip
    assert registered == set(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_config_holds_every_argument_and_round_trips(name):
    instance = PUBLIC[name]()
    config = instance.get_config()
    arguments = inspect.signature(type(instance).__init__).parameters
    wanted = {
        argument
        for argument, parameter in arguments.items()
        if argument != "self"
        and parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }
    assert wanted <= set(config)
    serialized = keras.saving.serialize_keras_object(instance)
    again = keras.saving.deserialize_keras_object(serialized)
    assert type(again) is type(instance)
    assert keras.saving.serialize_keras_object(again) == serialized

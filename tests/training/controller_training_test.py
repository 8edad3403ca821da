"""A run whose controller is trained anew when its modules are done."""

import shutil

import keras
import numpy as np
import pytest

import composer_tf as ct
from composer_tf.config import Config, DataConfig, EvaluationConfig
from composer_tf.models import WideMnist
from composer_tf.training import controller_training, fitting, training
from tests.small_training import make
from tests.trained import assert_same_model


def modules(model):
    return [weight.numpy() for weight in model.metalayers[0].weights]


@pytest.fixture
def starts(monkeypatch):
    """What each training of a run began with."""
    seen, fit = [], fitting.fit

    def record(model, run, folder, epochs):
        run.shuffle.on_epoch_begin(0)
        images, _ = next(iter(run.train))
        seen.append(
            {
                "price": float(model.controller.price_scale),
                "sandwich": model.sandwich is not None,
                "frozen": not model.metalayers[0].trainable,
                "images": images.numpy(),
                "modules": modules(model),
            }
        )
        fit(model, run, folder, epochs)

    monkeypatch.setattr(fitting, "fit", record)
    return seen


def test_a_new_controller_learns_while_the_modules_stay(
    tmp_path, starts, capsys
):
    config = Config(
        data=DataConfig(
            "wide_mnist/digits",
            batch_size=500,
            augment=True,
            data_dir=str(tmp_path / "tfds"),
        ),
        model=WideMnist(small_units=4, large_units=8, dearest=1.0),
        evaluation=EvaluationConfig(num_gammas=2, num_mixtures=2),
        epochs=1,
        controller_epochs=2,
    )
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    training.run(config, whole)
    first, second = starts
    assert first["price"] == second["price"] == 16.0
    assert (first["sandwich"], second["sandwich"]) == (True, False)
    assert (first["frozen"], second["frozen"]) == (False, True)
    assert np.any(first["images"] != second["images"])
    model = keras.models.load_model(whole / "model.keras")
    assert float(model.controller.price_scale) != 16.0
    for done, saved in zip(second["modules"], modules(model), strict=True):
        np.testing.assert_array_equal(done, saved)
    # Who trains on does so with the optimizer of all weights.
    assert model.sandwich is not None
    assert int(model.optimizer.iterations) == 5
    slots = 2 * len(model.trainable_variables)
    assert len(model.optimizer.variables) == slots + 1

    shutil.copytree(whole, stopped)
    (stopped / "model.keras").unlink()
    (stopped / "controller/checkpoints/epoch-000002.weights.h5").unlink()
    training.run(config, stopped)
    assert "Resuming after epoch 1 of 2" in capsys.readouterr().out
    assert_same_model(whole, stopped)


def test_what_was_frozen_before_stays_so():
    sandwich = ct.Sandwich()
    model = make(sandwich=sandwich)
    model.build((None, 6))
    (metalayer,) = model.metalayers
    metalayer.modules[1].layers[0].trainable = False
    trainable = [v.path for v in model.trainable_variables]
    with controller_training.frozen_modules(model):
        learning = [v.path for v in model.trainable_variables]
        assert set(learning) < set(trainable)
        assert not metalayer.trainable_variables
        assert model.sandwich is None
    assert [v.path for v in model.trainable_variables] == trainable
    assert model.sandwich is sandwich

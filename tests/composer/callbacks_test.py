"""Keras's callbacks on a Composer."""

import keras
import pytest

import composer_tf as ct
from tests.small_training import (
    X,
    Y,
    assert_same_state,
    compiled,
    data,
)

layers = keras.layers


def test_model_checkpoint_keeps_the_best(tmp_path):
    path = tmp_path / "best.keras"
    model = compiled(keras.optimizers.Adam(0.02))
    callback = keras.callbacks.ModelCheckpoint(
        path, monitor="val_loss", save_best_only=True
    )
    history = model.fit(
        X, Y, validation_data=(X, Y), epochs=5, callbacks=[callback], verbose=0
    ).history
    best = keras.models.load_model(path)
    loss = best.evaluate(X, Y, verbose=0, return_dict=True)["loss"]
    assert loss == pytest.approx(min(history["val_loss"]), abs=1e-5)


@pytest.mark.parametrize("wrap", [lambda one: one, lambda one: [one]])
def test_callbacks_may_be_positional_and_one(wrap):
    seen = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: epochs.append(epoch)
    )
    epochs = []
    compiled().fit(X, Y, 16, 2, 0, wrap(seen))
    assert epochs == [0, 1]


class _StoppedError(Exception):
    pass


class _StopAt(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise _StoppedError


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_ema": True, "ema_momentum": 0.9},
        {"clipnorm": 0.1},
        {"gradient_accumulation_steps": 2},
    ],
    ids=["plain", "ema", "clipping", "accumulation"],
)
def test_backup_and_restore_resumes_bit_for_bit(tmp_path, settings):
    def fit(*callbacks):
        keras.utils.set_random_seed(0)
        model = compiled(
            keras.optimizers.Adam(0.01, **settings),
            estimator=ct.Reinforce("moving_average"),
            metalayers=[
                ct.Metalayer(
                    [
                        keras.Sequential([layers.Dropout(0.3), layers.Dense(3)])
                        for _ in range(2)
                    ]
                )
            ],
        )
        shuffle = ct.datasets.EpochShuffle(7)
        model.build((None, 6))
        model.fit(
            data(shuffle),
            epochs=4,
            callbacks=[shuffle, *callbacks],
            verbose=0,
        )
        return model

    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    with pytest.raises(_StoppedError):
        fit(backup, _StopAt())
    resumed = fit(keras.callbacks.BackupAndRestore(tmp_path / "backup"))
    assert_same_state(resumed, fit())


def test_early_stopping_follows_a_metric_of_ours():
    model = compiled()
    stop = keras.callbacks.EarlyStopping("val_cost", patience=0, mode="max")
    history = model.fit(
        X, Y, validation_data=(X, Y), epochs=50, callbacks=[stop], verbose=0
    ).history
    assert len(history["loss"]) < 50


def test_tensorboard_writes_events(tmp_path):
    model = compiled()
    model.fit(
        X, Y, callbacks=[keras.callbacks.TensorBoard(str(tmp_path))], verbose=0
    )
    assert list(tmp_path.rglob("events.out.tfevents.*"))

"""The end of a training whose loss is NaN or infinite."""

import keras
import numpy as np


class NonFiniteLossError(ValueError):
    """A loss in training that is NaN or infinite."""


class NonFiniteLossGuard(keras.callbacks.Callback):
    """Stops training if the loss is NaN or infinite, before it is saved.

    Raises:
        NonFiniteLossError: At the end of the epoch, ahead of other callbacks.
    """

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        loss = (logs or {}).get("loss", 0.0)
        if not np.isfinite(loss):
            raise NonFiniteLossError(
                f"The loss became {loss} in epoch {epoch + 1}. Look for NaN in "
                "the inputs, the sample weights or the reward, labels outside "
                "the model's classes, or a learning rate that is too high. "
                "What was saved in earlier epochs is untouched."
            )

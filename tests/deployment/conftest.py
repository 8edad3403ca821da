"""A model to deploy."""

import numpy as np
import pytest

from tests.exporters.small_composer import composer, examples


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory):
    """A saved model, and data with labels that it gets right."""
    folder = tmp_path_factory.mktemp("deployment")
    model = composer()
    model.optimizer.build(model.trainable_variables)
    model.save(folder / "m.keras")
    images = np.clip(examples(200)[0], -1.0, 1.0)  # Bounded, as pixels are.
    labels = np.argmax(model.predict(images, gamma=[0.0, 0.0], verbose=0), -1)
    np.savez(folder / "data.npz", image=images, labels=labels)
    return folder

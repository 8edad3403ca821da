"""That a wrong artifact is seen to be wrong."""

import numpy as np

from composer_tf.exporters.exposure import expose
from composer_tf.exporters.verification import (
    compare,
)
from tests.exporters.small_composer import composer, examples, expected


class Answering:
    """In place of an artifact: the model itself, with a flaw."""

    batch_size = 32

    def __init__(self, model, flaw):
        self._model, self._flaw, self._calls = model, flaw, 0

    def run(self, feed):
        outputs = expected(
            self._model,
            feed["image"],
            feed.get("gamma", np.float32([[1.0, 0.0]])),
            feed.get("override"),
        )
        self._calls += 1
        self._flaw(outputs, feed, self._calls)
        return outputs


def parity(flaw):
    model = composer()
    images, _ = examples(8)
    routed = model.routed_model()
    answering = Answering(model, flaw)
    exposure = expose(routed.gammas)
    return compare(routed, exposure, answering, answering, {"image": images})


def test_the_model_itself_has_no_error():
    result = parity(lambda outputs, feed, call: None)
    assert result.max_abs_error < 1e-6
    assert result.answer == "logits"
    assert result.relative_error < 1e-6
    assert result.choice_agreement == 1.0


def test_nan_in_one_batch_is_not_forgotten():
    def flaw(outputs, feed, call):
        if call == 1:
            outputs["probabilities"] = outputs["probabilities"] * np.nan

    assert np.isnan(parity(flaw).max_abs_error)


def test_a_path_that_was_told_and_not_taken_counts():
    def flaw(outputs, feed, call):
        if "override" in feed:
            outputs["choices"] = np.zeros_like(outputs["choices"])

    assert parity(flaw).choice_agreement < 0.9


def test_gammas_that_changed_places_are_seen():
    model = composer()
    images, _ = examples(8)

    class Swapped(Answering):
        def run(self, feed):
            if "gamma" in feed:
                feed = {**feed, "gamma": feed["gamma"][:, ::-1]}
            return super().run(feed)

    swapped = Swapped(model, lambda *_: None)
    routed = model.routed_model()
    result = compare(
        routed, expose(routed.gammas), swapped, swapped, {"image": images}
    )
    assert result.max_abs_error > 1e-4


def test_a_signature_for_batches_that_mixes_up_its_rows_is_seen():
    def flaw(outputs, feed, call):
        for name, values in outputs.items():
            outputs[name] = values[::-1]

    model = composer()
    images, _ = examples(8)
    routed = model.routed_model()
    right = Answering(model, lambda *_: None)
    result = compare(
        routed,
        expose(routed.gammas),
        right,
        right,
        {"image": images},
        another=Answering(model, flaw),
    )
    assert result.max_abs_error > 1e-4 or result.choice_agreement < 1.0

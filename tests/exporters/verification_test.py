"""That a wrong artifact is seen to be wrong."""

import types

import numpy as np

from composer_tf.exporters import verification
from composer_tf.exporters.exposure import expose
from composer_tf.exporters.verification import (
    compare,
    interleaved_rounds,
    interleaved_seconds,
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


def test_times_are_taken_in_turns():
    turns = []
    seconds = interleaved_seconds(
        {name: lambda name=name: turns.append(name) for name in "ab"},
        rounds=3,
        round_seconds=1e-6,
    )
    assert seconds.keys() == {"a", "b"}
    assert turns[:4] == ["a", "a", "b", "b"]
    order = [n for i, n in enumerate(turns) if i == 0 or turns[i - 1] != n]
    assert order == ["a", "b"] * (len(order) // 2)


def test_every_round_has_a_time_and_its_median_is_the_time(monkeypatch):
    clock = types.SimpleNamespace(now=0.0)
    monkeypatch.setattr(
        verification,
        "time",
        types.SimpleNamespace(perf_counter=lambda: clock.now),
    )

    def callers():
        durations = {"a": iter([9, 9, 1, 5, 3]), "b": iter([9, 9, 2, 2, 8])}

        def caller(name):
            def call():
                clock.now += next(durations[name])

            return call

        return {name: caller(name) for name in durations}

    rounds = interleaved_rounds(callers(), rounds=3, round_seconds=0.0)
    assert {name: list(taken) for name, taken in rounds.items()} == {
        "a": [1, 5, 3],
        "b": [2, 2, 8],
    }
    seconds = interleaved_seconds(callers(), rounds=3, round_seconds=0.0)
    assert seconds == {"a": 3, "b": 2}

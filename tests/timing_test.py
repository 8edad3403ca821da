"""Functions are timed in turns."""

import types

from composer_tf import timing
from composer_tf.timing import interleaved_rounds, interleaved_seconds


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
        timing,
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

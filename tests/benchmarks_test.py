"""The benchmarks' own arithmetic, on numbers made by hand; nothing is timed."""

import importlib.util
import json
import pathlib
import types
from unittest import mock

import absl.app
import keras
import numpy as np
import pytest

import composer_tf as ct
from composer_tf import exporters

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"
X = np.random.default_rng(0).normal(size=[6, 5]).astype("float32")


@pytest.fixture
def load(monkeypatch):
    """Loads a benchmark without its flags, which are its process's."""
    monkeypatch.syspath_prepend(BENCHMARKS)  # They import `harness`.

    def load(name):
        path = BENCHMARKS / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"{name}_loaded", path)
        module = importlib.util.module_from_spec(spec)
        with mock.patch.object(absl, "flags"):
            spec.loader.exec_module(module)
        return module

    return load


def composer():
    """Two metalayers of two modules, and a fixed step between them."""
    dense = keras.layers.Dense

    def metalayer(units):
        wide = keras.Sequential([dense(9, "relu"), dense(units)])
        return ct.Metalayer([dense(units), wide])

    model = ct.Composer(
        [metalayer(4), dense(3, "relu"), metalayer(2)],
        preferences=[ct.GlimpsePreference(ct.Uniform(-1.0, 2.0))],
    )
    model.build((None, 5))
    return model


@pytest.mark.parametrize(
    "name", sorted(p.stem for p in BENCHMARKS.glob("*.py"))
)
def test_every_benchmark_can_be_loaded(load, name):
    assert load(name).__doc__


# The time of each file on a number of rows.
RELATIVE = {
    **{"0 1": 0.1, "0 4": 0.2, "0 8": 0.25},
    **{"1 1": 0.4, "1 4": 0.7, "1 8": 1.0},
    **{"exit_0 1": 0.1, "exit_0 4": 0.3, "exit_0 8": 0.5},
    **{"exit_1 1": 0.2, "exit_1 4": 0.4, "exit_1 8": 0.6},
}
# Their 95th percentiles. Of 8 rows with a share of one half, that is 6 rows.
SLOW = {name: 2.0 * time for name, time in RELATIVE.items()}


@pytest.fixture
def chains(load):
    module = load("chains")
    module.times = module.FileTimes([1, 4, 8], RELATIVE, SLOW)
    return module


@pytest.mark.parametrize(
    ("share", "time"), [(0.0, 0.0), (1 / 16, 0.2), (0.5, 0.7), (0.75, 0.85)]
)
def test_the_time_of_a_part_of_a_batch_lies_between_measured_ones(
    chains, share, time
):
    assert chains.times.in_turn({"1": share})["time"] == pytest.approx(time)


def test_a_cascade_takes_the_dear_network_for_the_share_it_pays_for(chains):
    line = [{"cost": cost, "accuracy": cost / 2} for cost in (0.25, 0.75, 1.25)]
    points = chains.cascade(line, "0", "1", chains.times)
    times = [point["time"] for point in points]
    assert times == pytest.approx([0.25, 0.25 + 0.7, 0.25 + 1.0])
    slow = [point["95th percentile"] for point in points]
    assert slow == pytest.approx([0.5, 0.5 + 1.7, 0.5 + 2.0])
    assert [{k: p[k] for k in ("cost", "accuracy")} for p in points] == line


def test_early_exits_take_each_stage_for_the_rows_that_reach_it(chains):
    sure = np.array([0.9, 0.8, 0.7, 0.6])
    confidence = np.stack([sure, sure[::-1]], axis=-1)
    line = [{"gamma": gamma} for gamma in (0.0, 0.75, 0.95)]
    points = chains.early_exit(line, confidence, chains.times)
    times = [point["time"] for point in points]
    assert times == pytest.approx([0.5, 0.5 + 0.4, 0.5 + 0.6])
    slow = [point["95th percentile"] for point in points]
    assert slow == pytest.approx([1.0, 1.0 + 1.0, 1.0 + 1.2])


def test_a_percentile_is_over_batches_after_two_runs(load, monkeypatch):
    benchmark = load("timed_methods")
    clock = types.SimpleNamespace(now=0.0)
    timer = types.SimpleNamespace(perf_counter=lambda: clock.now)
    monkeypatch.setattr(benchmark, "time", timer)
    durations = iter([90.0, 90.0, 90.0, 90.0, 1.0, 2.0, 3.0, 6.0])

    def call():
        clock.now += next(durations)

    batches = benchmark.Batches([call, call])
    for _ in range(4):
        batches()
    assert batches.percentile(100) == 6.0
    assert batches.percentile(50) == 2.5


@pytest.mark.slow
def test_the_memory_of_an_artifact_holds_its_weights(load, tmp_path):
    harness = load("harness")
    module = keras.layers.Dense(2**20, use_bias=False)
    model = ct.Composer([ct.Metalayer([module]), keras.layers.Dense(1)])
    model.build((None, 7))
    model.compile()
    alone = model.routed_model().alone((0,))
    path = harness.export(alone, "tflite", tmp_path / "alone")
    feed = {"image": np.ones([1, 7], np.float32)}
    weights = 4 * 2**20 * (7 + 1)
    # It is loaded to warm up too, which does not count.
    one = (path, feed)
    assert harness.peak_bytes([], one, "tflite") < weights / 8
    assert harness.peak_bytes([one], one, "tflite") > weights


def test_the_least_time_for_an_accuracy_lies_on_the_line(load):
    least_times = load("accuracy_latency").least_times
    line = [(0.2, 0.5), (0.6, 0.7), (0.8, 0.6), (1.0, 0.9)]
    points = [{"time": t, "accuracy": a} for t, a in reversed(line)]
    times = least_times(points, [0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    # From 0.7 on the line goes from (0.6, 0.7) past what is no better.
    assert times == pytest.approx([0.2, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert least_times(points, [0.95]) == [None]
    assert least_times([], [0.5]) == [None]


def test_points_of_a_curve_are_of_evenly_spaced_costs(load):
    costs = [0.2, 0.21, 0.22, 0.58, 0.6, 1.0]
    line = [{"cost": cost} for cost in costs]
    chosen = load("timed_methods").evenly_spaced(line, 3)
    assert [point["cost"] for point in chosen] == [0.2, 0.6, 1.0]


def test_typical_examples_cost_what_all_do_at_each_gamma(load):
    random = np.random.default_rng(1)
    costs = random.integers(0, 2, [3, 1000]).astype(float)
    wanted = costs.mean(axis=1)
    some = load("timed_methods").typical(costs, wanted, 32)
    assert len(set(some)) == 32
    # In one draw it deviates by 0.09: the root of 1 / (4 * 32).
    assert np.abs(costs[:, some].mean(axis=1) - wanted).max() < 0.03


@pytest.mark.parametrize("path", [(0, 1), (1, 0)])
def test_a_path_with_a_controller_is_that_of_the_whole(load, path):
    whole = composer()
    only = load("export_latency")._only(whole, path)
    assert only.num_modules == [1, 1]
    assert only.controller.count_params() > 0
    layers = zip(
        only.layers_along((0, 0)), whole.layers_along(path), strict=True
    )
    for layer, original in layers:
        layer.set_weights(original.get_weights())
    np.testing.assert_allclose(only(X), whole.along(X, path), rtol=1e-6)


def test_a_ratio_is_taken_within_each_round(load):
    harness = load("harness")
    # Rounds 10 and 100 times slower: the ratios are 5, 3, 1, 2, 4.
    over = np.array([5.0, 30.0, 1.0, 200.0, 4.0])
    under = np.array([1.0, 10.0, 1.0, 100.0, 1.0])
    ratio = harness.ratio(over, under)
    assert ratio == {"median": 3.0, "quartiles": [2.0, 4.0]}
    assert json.loads(json.dumps(ratio)) == ratio


def test_a_number_is_shown_with_its_spread(load, capsys):
    harness = load("harness")
    value = {"median": 1.184, "quartiles": [1.149, 1.22]}
    harness.print_table("title", {"measured": value, "exact": 0.5})
    title, measured, exact = capsys.readouterr().out.splitlines()
    assert title == "title"
    assert measured.split(maxsplit=1) == ["measured", "1.18 (1.15-1.22)"]
    assert exact.split() == ["exact", "0.50"]


def test_a_path_has_its_part_of_the_work_of_all_modules(load):
    model = composer()
    # Parameters: modules of 24 and 94, then of 8 and 56, and 15 between.
    shared = 15 + model.controller.count_params()
    every = shared + 24 + 94 + 8 + 56
    part_of_all = load("export_latency").part_of_all
    assert part_of_all(model, (0, 0)) == pytest.approx((shared + 32) / every)
    assert part_of_all(model, (1, 1)) == pytest.approx((shared + 150) / every)


def test_a_mixed_batch_is_over_the_sum_of_its_parts_in_each_round(
    load, monkeypatch
):
    benchmark = load("export_latency")
    made = benchmark.Contestants.__new__(benchmark.Contestants)
    made._parts = {"cheap": 0.2, "dear": 0.8}
    opened = []

    def artifact(name, rows):
        opened.append((name, rows))
        return types.SimpleNamespace(caller=lambda feed: None)

    monkeypatch.setattr(made, "artifact", artifact)
    monkeypatch.setattr(made, "feed", lambda rows, share: {})
    seconds = {
        "routed": np.array([4.0, 18.0, 8.0]),
        "dense": np.array([8.0, 36.0, 8.0]),
        "cheap": np.array([1.0, 2.0, 1.0]),
        "dear": np.array([1.0, 7.0, 3.0]),
    }
    monkeypatch.setattr(
        benchmark,
        "interleaved_rounds",
        lambda callers, rounds: {name: seconds[name] for name in callers},
    )
    ratios = made.batched(10)
    exact = f"even, / all modules, {benchmark._BY_MACS}"
    assert ratios["even"]["median"] == 2.0
    assert ratios["even, / all modules"]["median"] == 0.5
    assert ratios[exact] == pytest.approx(0.5)
    assert ratios["all cheap"]["median"] == 8.0  # Of 4, 9 and 8.
    assert opened[3:7] == [
        *(("routed", 10), ("dense", 10)),
        *(("cheap alone", 9), ("dear alone", 1)),
    ]


def test_the_shares_of_a_step_make_it_up(load):
    benchmark = load("training_speed")
    pipeline, modules, controller, alone = (
        *(benchmark._PIPELINE, benchmark._MODULES, benchmark._CONTROLLER),
        "network of the dearest path",
    )
    seconds = {
        "step": np.array([10.0, 20.0, 40.0]),
        "choices given": np.array([6.0, 12.0, 24.0]),
        pipeline: np.array([1.0, 2.0, 4.0]),
        alone: np.array([8.0, 16.0, 32.0]),
    }
    shares = benchmark.shares_of_step(seconds)
    medians = {name: share["median"] for name, share in shares.items()}
    expected = {modules: 0.6, controller: 0.4, pipeline: 0.1, alone: 0.8}
    assert medians == pytest.approx(expected)
    assert f"{modules}, 0.60 (0.60-0.60)" in benchmark.largest_share(shares)


def test_given_choices_take_the_modules_in_turns_and_no_controller(load):
    whole = ct.models.WideMnist().build(seed=0)
    whole.build((None, 28, 56, 1))
    given = load("training_speed").GivenChoices(whole)
    images = np.random.default_rng(0).integers(0, 256, [4, 28, 56, 1], "uint8")
    turns = np.array([[0], [1], [0], [1]], np.int32)
    np.testing.assert_allclose(given(images), whole(images, choices=turns))
    modules = whole.routed_layers[0].modules
    weights = sum(module.count_params() for module in modules)
    assert given.count_params() == weights


def test_speeds_are_relative_to_one_and_the_fastest_has_the_least_time(load):
    benchmark = load("training_speed")
    seconds = {"a": np.array([2.0, 2.0, 9.0]), "b": np.array([4.0, 1.0, 4.5])}
    speeds = benchmark.relative_speeds(seconds, "a")
    assert speeds["a"]["median"] == 1.0
    assert speeds["b"]["median"] == 2.0  # Of 0.5, 2 and 2.
    assert benchmark.fastest(seconds, "a", "b") == "a"


def test_an_exponent_is_the_slope_of_the_logarithms(load):
    exponent = load("growth").exponent
    assert exponent([1.0, 4.0, 64.0], (1, 2, 8)) == pytest.approx(2.0)
    assert exponent([3.0, 3.0, 3.0], (1, 2, 8)) == pytest.approx(0.0)


def test_tables_of_estimators_have_error_bars(load):
    row = {"ratio": [0.5, 0.9], "error": [0.1, 0.2]}
    tables = load("estimator_variance").tables({"Figure 2": {"learned": row}})
    controller, modules = tables.values()
    assert controller["learned"] == pytest.approx((0.5, 0.4, 0.6))
    assert modules["learned"] == pytest.approx((0.9, 0.7, 1.1))

    one = {"mean": -0.1, "std": None}  # Of one seed.
    budget = {"exact": {"objective": one, "at_0.6": {"mean": None}}}
    tables = load("estimator_training").tables(
        {"step_time": {}, "equal_steps": budget, "equal_time": budget}
    )
    bars = tables["objective, equal steps"]
    assert bars["exact"] == pytest.approx((-0.1, -0.1, -0.1))
    assert tables["accuracy at 0.6, equal steps"] == {}


def test_a_picture_has_a_panel_for_each_table(load, tmp_path):
    pictures = load("pictures")
    spread = {"median": 2.0, "quartiles": [1.5, 2.5]}
    path = tmp_path / "new.png"
    figure = pictures.draw(
        {
            "sizes": {"2": 1.0, "8": spread},
            "names": {"a": pictures.Bar(1.0, 0.5, 2.0), "b": 0.5},
        },
        path,
    )
    line, rows = figure.axes
    assert (line.get_title(), line.get_xscale()) == ("sizes", "log")
    assert rows.get_title() == "names"
    assert path.stat().st_size > 0


@pytest.mark.parametrize(
    ("runtime", "options"),
    [("tf_saved_model", {}), ("session", {}), ("tflite", {"batch_size": 6})],
)
def test_an_artifact_is_written_and_opened(load, tmp_path, runtime, options):
    harness = load("harness")
    assert harness.FILES.keys() == exporters.FORMATS.keys()
    assert {*harness.RUNTIMES} == {*exporters.FORMATS, harness.SESSION}
    model = composer()
    model.compile()
    artifact = harness.export_and_open(
        model.routed_model(), runtime, tmp_path / "new" / "folder", **options
    )
    if options:
        assert artifact.batch_size == 6
    gamma = np.linspace(-1.0, 2.0, 6, dtype=np.float32)
    outputs = artifact.run({"image": X, "gamma": gamma})
    composition = model(X, gamma=gamma, return_composition=True)
    np.testing.assert_array_equal(
        outputs["choices"], composition.policy.choices
    )

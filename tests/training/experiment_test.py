import json
import math

import numpy as np
import pytest

from composer_tf.config import Config, ConfigError, DataConfig, EvaluationConfig
from composer_tf.models import WideMnist
from composer_tf.training import experiment, training
from composer_tf.workdir import WorkdirError


@pytest.fixture
def calls(monkeypatch):
    """Runs that are asked for; each returns numbers of its seed and epochs."""
    asked = []

    def run(config, workdir, strategy):
        asked.append((workdir, config))
        accuracy = 0.5 + 0.1 * config.seed
        points = [
            {"gamma": gamma, "cost": cost, "accuracy": accuracy * cost}
            for gamma, cost in ((0.0, 1.0), (1.0, 0.5))
        ]
        return {
            "costs": {"unit": "parameters"},
            "entropy": [0.1, 0.2],
            "lines": {"composer": points},
            "summary": {
                "accuracy": accuracy,
                "epochs": float(config.epochs),
                "sometimes": 1.0 if config.seed else None,
            },
        }

    monkeypatch.setattr(training, "run", run)
    return asked


def some_config(**kwargs):
    return Config(
        DataConfig("wide_mnist/digits"), WideMnist(), epochs=3, **kwargs
    )


def test_one_seed_without_variants_is_the_run_itself(calls, tmp_path):
    metrics = experiment.run(some_config(seed=2), tmp_path)
    assert calls == [(tmp_path, some_config(seed=2))]
    assert metrics["summary"]["accuracy"] == 0.7
    assert not list(tmp_path.iterdir())


def test_every_variant_runs_with_every_seed(calls, tmp_path):
    config = some_config(
        seed=1,
        num_seeds=2,
        variants={
            "short": {"epochs": 1},
            "small": {"model.small_units": 4, "data.batch_size": 7},
        },
    )
    experiment.run(config, tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path, _ in calls] == [
        "short/seed_1",
        "short/seed_2",
        "small/seed_1",
        "small/seed_2",
    ]
    runs = [run for _, run in calls]
    assert [run.seed for run in runs] == [1, 2, 1, 2]
    assert [run.epochs for run in runs] == [1, 1, 3, 3]
    assert [run.model.small_units for run in runs] == [64, 64, 4, 4]
    assert [run.data.batch_size for run in runs] == [128, 128, 7, 7]
    assert all(run.num_seeds == 1 and not run.variants for run in runs)
    assert config.model.small_units == 64  # The config stays as it was.


def test_the_summary_is_mean_and_deviation_over_seeds(calls, tmp_path):
    summary = experiment.run(some_config(num_seeds=3), tmp_path)
    written = json.loads((tmp_path / "summary.json").read_text())
    assert written == summary
    accuracy = written["default"]["accuracy"]
    assert accuracy["mean"] == pytest.approx(0.6)
    assert accuracy["std"] == pytest.approx(0.1)  # Of 0.5, 0.6 and 0.7.
    assert accuracy["by_seed"] == pytest.approx({"0": 0.5, "1": 0.6, "2": 0.7})
    assert (tmp_path / "summary.png").exists()
    assert (
        "| accuracy | 0.6000 ± 0.1000 |"
        in (tmp_path / "summary.md").read_text()
    )


def test_publishing_copies_the_summary_and_the_first_seeds(tmp_path):
    config = some_config(seed=3, num_seeds=2, variants={"a": {}, "b": {}})
    workdir = tmp_path / "workdir"
    for name in config.runs():
        (workdir / name).mkdir(parents=True)
        (workdir / name / "tradeoff.csv").write_text(name)
        (workdir / name / "routing.png").write_text(name)
        (workdir / name / "model.keras").write_text(name)
    (workdir / "summary.json").write_text("{}")
    results = tmp_path / "results"
    (results / "of_before").mkdir(parents=True)
    (results / "of_before" / "routing.png").write_text("old")
    (results / "summary.json").write_text("old")
    experiment.publish(config, workdir, results)
    files = [path for path in results.rglob("*") if path.is_file()]
    assert {path.relative_to(results).as_posix() for path in files} == {
        "summary.json",
        *(
            f"{v}/{file}"
            for v in "ab"
            for file in ("tradeoff.csv", "routing.png")
        ),
    }
    assert (results / "b" / "routing.png").read_text() == "b/seed_3"


def test_publishing_seeds_without_variants_copies_summary_and_first(tmp_path):
    config = some_config(num_seeds=2)
    workdir = tmp_path / "workdir"
    for name in config.runs():
        (workdir / name).mkdir(parents=True)
        (workdir / name / "metrics.json").write_text(name)
        (workdir / name / "routing.png").write_text(name)
    for name in ("summary.json", "summary.md", "summary.png"):
        (workdir / name).write_text(name)
    experiment.publish(config, workdir, tmp_path / "results")
    copied = {p.name: p.read_text() for p in (tmp_path / "results").iterdir()}
    assert copied == {
        **{n: n for n in ("summary.json", "summary.md", "summary.png")},
        "metrics.json": "seed_0",
        "routing.png": "seed_0",
    }


def test_publishing_one_run_copies_its_metrics(tmp_path):
    workdir = tmp_path / "workdir"
    workdir.mkdir()
    for name in ("metrics.json", "tradeoff.csv", "routing.png", "model.keras"):
        (workdir / name).write_text(name)
    experiment.publish(some_config(), workdir, tmp_path / "results")
    copied = {path.name for path in (tmp_path / "results").iterdir()}
    assert copied == {"metrics.json", "tradeoff.csv", "routing.png"}


def test_publishing_removes_nothing_but_what_was_published(tmp_path):
    workdir = tmp_path / "workdir"
    mine = workdir / "seed_0" / "model.keras"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    (workdir / "metrics.json").write_text("{}")
    for destination in (workdir, tmp_path):
        with pytest.raises(WorkdirError, match=r"such as .*model\.keras"):
            experiment.publish(some_config(), workdir, destination)
    with pytest.raises(WorkdirError, match="is a file"):
        experiment.publish(some_config(), workdir, mine)
    assert mine.read_text() == "mine"
    link = tmp_path / "link"
    link.symlink_to("nowhere")
    with pytest.raises(WorkdirError, match="is a symbolic link"):
        experiment.publish(some_config(), workdir, link)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "holiday.png").write_text("mine")
    with pytest.raises(WorkdirError, match=r"such as holiday\.png"):
        experiment.publish(some_config(), workdir, tmp_path / "pictures")


def test_a_number_that_a_seed_lacks_has_no_mean(calls, tmp_path):
    summary = experiment.run(some_config(num_seeds=2), tmp_path)
    assert summary["default"]["sometimes"] == {
        "mean": None,
        "std": None,
        "by_seed": {"0": None, "1": 1.0},
    }


def test_the_folder_of_another_experiment_is_refused(calls, tmp_path):
    experiment.run(some_config(num_seeds=2), tmp_path)
    del calls[:]
    with pytest.raises(WorkdirError, match="num_seeds: 2 -> 3"):
        experiment.run(some_config(num_seeds=3), tmp_path)
    assert not calls


def test_a_variant_of_no_field_is_refused_before_anything_runs(calls, tmp_path):
    config = some_config(variants={"fine": {}, "bad": {"model.typo": 1}})
    with pytest.raises(ConfigError, match=r"model\.typo"):
        experiment.run(config, tmp_path)
    assert not calls


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "`epochs`"),
        ({"model.estimator": "ppo"}, "`estimator`"),
        ({"seed": 7}, "must not name 'seed'"),
    ],
)
def test_a_variant_that_cannot_work_is_refused_before_anything_runs(
    calls, tmp_path, changes, message
):
    config = some_config(variants={"fine": {}, "bad": changes})
    with pytest.raises(ConfigError, match=message):
        experiment.run(config, tmp_path / "workdir")
    assert not calls
    assert not (tmp_path / "workdir").exists()


def test_a_bad_number_of_seeds_is_refused(calls, tmp_path):
    with pytest.raises(ConfigError, match="`num_seeds`"):
        experiment.run(some_config(num_seeds=0), tmp_path)


@pytest.mark.slow
def test_real_runs_are_summed_up_and_not_done_again(tmp_path, capsys):
    config = Config(
        DataConfig("wide_mnist/digits", batch_size=500, data_dir=str(tmp_path)),
        WideMnist(small_units=4, large_units=8),
        evaluation=EvaluationConfig(num_gammas=3, num_mixtures=2),
        epochs=1,
        variants={"a": {}, "b": {"model.dearest": 1.0}},
    )
    folder = tmp_path / "experiment"
    first = experiment.run(config, folder)
    for variant in ("a", "b"):
        path = folder / variant / "seed_0" / "metrics.json"
        metrics = json.loads(path.read_text())
        value = first[variant]["lowest_gamma/accuracy"]["mean"]
        assert math.isclose(value, metrics["lines"]["composer"][0]["accuracy"])
    capsys.readouterr()
    assert experiment.run(config, folder) == first
    output = capsys.readouterr().out
    assert output.count("is finished; nothing to do") == 2
    assert "Epoch" not in output


def test_lines_of_different_lengths_are_averaged_at_equal_costs():
    def line(*points):
        return [
            {"method": "hull", "gamma": 0.0, "cost": cost, "accuracy": accuracy}
            for cost, accuracy in points
        ]

    runs = {
        0: {"lines": {"hull": line((0.2, 0.5), (1.0, 0.9))}},
        1: {"lines": {"hull": line((0.1, 0.3), (0.6, 0.7), (0.8, 1.0))}},
    }
    points = experiment.mean_lines({"": runs})
    costs = [point.cost for point in points]
    np.testing.assert_allclose(costs, np.linspace(0.2, 1.0, len(points)))
    accuracies = [point.accuracy for point in points]
    np.testing.assert_allclose(
        accuracies,
        (
            np.interp(costs, [0.2, 1.0], [0.5, 0.9])
            + np.interp(costs, [0.1, 0.6, 0.8], [0.3, 0.7, 1.0])
        )
        / 2.0,
    )

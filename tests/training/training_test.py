import csv
import io
import json
import shutil

import keras
import matplotlib.image
import numpy as np
import pytest
import tensorflow as tf

from composer_tf import datasets
from composer_tf.training import training
from composer_tf.workdir import WorkdirError
from tests.trained import assert_same_model
from tests.training.tiny_run import tiny_config

OUTPUTS = {
    ".lock",
    "config.json",
    "model.keras",
    "metrics.json",
    "tradeoff.csv",
    "tradeoff.png",
    "routing.png",
    "entropy.png",
    "examples.png",
    "alone",
    "checkpoints",
    "logs",
}
METHODS = ("composer", "random_mixture", "input_independent", "oracle")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data_dir):
    """The folder of a finished run, to be read only."""
    folder = tmp_path_factory.mktemp("runs") / "new" / "finished"
    training.run(tiny_config(data_dir), folder)
    return folder


@pytest.fixture
def workdir(finished, tmp_path):
    """A copy of it, to be changed."""
    return shutil.copytree(finished, tmp_path / "workdir")


def snapshot(folder):
    """Bytes and time of change of every file."""
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_run_writes_all_it_promises_and_nothing_else(finished):
    assert {path.name for path in finished.iterdir()} == OUTPUTS
    checkpoints = sorted(p.name for p in (finished / "checkpoints").iterdir())
    assert checkpoints == [f"epoch-00000{i}.weights.h5" for i in (1, 2)]


def test_the_model_is_calibrated_on_the_validation_split(finished, data_dir):
    model = keras.models.load_model(finished / "model.keras")
    images, labels = datasets.load_arrays(
        "wide_mnist/digits", "validation", data_dir
    )
    name, gammas, costs = model.calibration
    assert name == "glimpse"
    for gamma, cost in [(gammas[0], costs[0]), (gammas[-1], costs[-1])]:
        logs = model.evaluate(
            images, labels, gamma=gamma, verbose=0, return_dict=True
        )
        assert logs["cost"] == pytest.approx(cost, abs=1e-5)


def test_the_config_is_kept(finished, data_dir):
    kept = json.loads((finished / "config.json").read_text())
    assert kept == tiny_config(data_dir).to_json()


def test_metrics_are_json_that_any_parser_reads(finished):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON.")

    text = (finished / "metrics.json").read_text()
    metrics = json.loads(text, parse_constant=refuse)
    gammas = [point["gamma"] for point in metrics["lines"]["composer"]]
    assert gammas == [-4, 1, 6]


def test_the_csv_holds_the_points_of_all_methods(finished):
    text = (finished / "tradeoff.csv").read_text()
    assert text.splitlines()[0] == "method,gamma,cost,accuracy"
    rows = list(csv.DictReader(io.StringIO(text)))
    lines = json.loads((finished / "metrics.json").read_text())["lines"]
    points = [
        point
        for method in (*METHODS, "alone", "cascade")
        for point in lines[method]
    ]
    assert len(lines["composer"]) == 3
    assert len(lines["random_mixture"]) == len(lines["alone"]) == 2
    for row, point in zip(rows, points, strict=True):
        assert row["method"] == point["method"]
        for name in ("gamma", "cost", "accuracy"):
            assert float(row[name]) == point[name]


@pytest.mark.parametrize(
    "name", ["tradeoff.png", "routing.png", "entropy.png", "examples.png"]
)
def test_pictures_are_png(finished, name):
    picture = matplotlib.image.imread(finished / name, format="png")
    assert picture.std() > 0.0  # Not blank.


def test_the_networks_of_single_paths_are_measured_as_they_were_saved(
    finished, data_dir
):
    images, labels = datasets.load_arrays("wide_mnist/digits", "test", data_dir)
    metrics = json.loads((finished / "metrics.json").read_text())
    for path, point in zip("01", metrics["lines"]["alone"], strict=True):
        saved = finished / "alone" / path / "model.keras"
        network = keras.models.load_model(saved)
        hits = network.predict(images, verbose=0).argmax(-1) == labels
        assert point["accuracy"] == pytest.approx(hits.mean())
        parameters = network.count_params() / metrics_full(metrics)
        assert point["cost"] == pytest.approx(parameters)


def test_the_summary_names_networks_by_their_path(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    for path, point in zip("01", metrics["lines"]["alone"], strict=True):
        for field in ("cost", "accuracy"):
            named = metrics["summary"][f"alone/{path}/{field}"]
            assert named == pytest.approx(point[field])


def test_costs_are_also_in_parameters(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    own = [point["cost"] for point in metrics["lines"]["composer"]]
    assert metrics["costs"]["unit"] == "parameters"
    assert metrics["parameters"]["composer"] == pytest.approx(own, abs=1e-6)
    del metrics["parameters"]["composer"]
    assert metrics["parameters"] == metrics["costs"]


def metrics_full(metrics):
    """Parameters of the dearest path."""
    costs = metrics["costs"]
    dearest = sum(map(max, costs["modules"]))
    return costs["fixed"] + costs["controller"] + dearest


def test_the_summary_is_of_the_points(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    summary = metrics["summary"]
    first, *_, last = metrics["lines"]["composer"]
    assert summary["lowest_gamma/accuracy"] == first["accuracy"]
    assert summary["highest_gamma/cost"] == last["cost"]
    assert summary["highest_gamma/entropy"] == metrics["entropy"][-1]
    dearest = metrics["lines"]["random_mixture"][-1]
    assert summary["random_mixture/accuracy@1"] == dearest["accuracy"]
    assert summary["oracle/accuracy@1"] >= summary["composer/accuracy@1"]


@pytest.mark.parametrize("split", ["train", "validation"])
def test_tensorboard_has_a_curve_of_each_measure(finished, split):
    (events,) = (finished / "logs" / split).glob("events.out.tfevents.*")
    steps = {}
    for record in tf.data.TFRecordDataset(str(events)):
        event = tf.compat.v1.Event.FromString(record.numpy())
        for value in event.summary.value:
            steps.setdefault(value.tag, []).append(event.step)
    for measure in ("loss", "accuracy", "cost", "reward", "entropy"):
        assert steps[f"epoch_{measure}"] == [0, 1]


def test_a_finished_run_is_reported_and_not_touched(workdir, data_dir, capsys):
    before = snapshot(workdir)
    metrics = training.run(tiny_config(data_dir), workdir)
    assert snapshot(workdir) == before
    assert metrics == json.loads((workdir / "metrics.json").read_text())
    output = capsys.readouterr().out
    assert f"{workdir} is finished" in output
    table = [line.split() for line in output.splitlines() if line]
    header = table.index(["gamma", "cost", "accuracy"])
    rows = table[header + 1 : header + 1 + len(metrics["lines"]["composer"])]
    for row, point in zip(rows, metrics["lines"]["composer"], strict=True):
        expected = [point[name] for name in ("gamma", "cost", "accuracy")]
        np.testing.assert_allclose(
            [float(cell) for cell in row], expected, atol=5e-3
        )
    for name in ("tradeoff.png", "routing.png"):
        assert str(workdir / name) in output.splitlines()


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("model", "small_units", 5),
        ("data", "batch_size", 250),
        (None, "seed", 7),
    ],
)
def test_the_folder_of_another_config_is_refused(
    workdir, data_dir, part, field, value
):
    before = snapshot(workdir)
    config = tiny_config(data_dir)
    owner = getattr(config, part) if part else config
    old = getattr(owner, field)
    setattr(owner, field, value)
    name = f"{part}.{field}" if part else field
    with pytest.raises(WorkdirError, match=rf"\b{name}: {old} -> {value}"):
        training.run(config, workdir)
    assert snapshot(workdir) == before


def test_a_folder_of_something_else_is_refused(tmp_path, data_dir):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(WorkdirError, match="not empty"):
        training.run(tiny_config(data_dir), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("below", [".", "folder"])
def test_a_workdir_that_is_a_file_is_refused(tmp_path, data_dir, below):
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(WorkdirError, match=f"workdir {path}"):
        training.run(tiny_config(data_dir), path / below)
    assert path.read_text() == "precious"


@pytest.mark.parametrize("name", ["config.json", "metrics.json"])
def test_a_damaged_file_is_named(workdir, data_dir, name):
    (workdir / name).write_text('{"seed": ')
    before = snapshot(workdir)
    with pytest.raises(WorkdirError, match=f"{name} is damaged"):
        training.run(tiny_config(data_dir), workdir)
    assert snapshot(workdir) == before


def test_a_run_that_was_killed_at_its_first_file_starts_again(
    tmp_path, data_dir, monkeypatch
):
    (tmp_path / "partial-123-config.json").write_text("{")

    def stop(*args, **kwargs):
        raise datasets.DataUnavailableError("The folder was taken.")

    monkeypatch.setattr(datasets, "load", stop)
    with pytest.raises(datasets.DataUnavailableError, match="taken"):
        training.run(tiny_config(data_dir), tmp_path)


def test_evaluation_is_done_again_from_the_last_checkpoint(
    finished, workdir, data_dir, capsys
):
    for name in ("model.keras", "metrics.json", "tradeoff.png"):
        (workdir / name).unlink()
    training.run(tiny_config(data_dir), workdir)
    assert "Resuming after epoch 2 of 2" in capsys.readouterr().out
    assert_same_model(finished, workdir)
    for name in ("metrics.json", "tradeoff.csv", "tradeoff.png"):
        assert (workdir / name).read_bytes() == (finished / name).read_bytes()


def test_what_was_trained_is_evaluated_in_another_way(
    finished, workdir, data_dir, capsys
):
    config = tiny_config(data_dir)
    config.evaluation.num_gammas = 5
    config.evaluation.alone = ("1",)
    metrics = training.run(config, workdir)
    output = capsys.readouterr().out
    assert "Epoch" not in output
    assert "Training the network" not in output
    assert_same_model(finished, workdir)
    assert len(metrics["lines"]["composer"]) == 5
    written = json.loads((workdir / "config.json").read_text())
    assert written == config.to_json()
    training.run(config, workdir)
    assert f"{workdir} is finished" in capsys.readouterr().out


def test_a_lost_output_is_made_again(finished, workdir, data_dir):
    (workdir / "model.keras").unlink()
    training.run(tiny_config(data_dir), workdir)
    assert_same_model(finished, workdir)


def test_a_network_that_was_trained_is_not_trained_again(
    finished, workdir, data_dir, capsys
):
    (workdir / "metrics.json").unlink()
    training.run(tiny_config(data_dir), workdir)
    assert "Training the network" not in capsys.readouterr().out
    name = "metrics.json"
    assert (workdir / name).read_bytes() == (finished / name).read_bytes()


def test_the_same_config_gives_the_same_model(finished, tmp_path, data_dir):
    # The first run has also prepared the data; this one finds them.
    training.run(tiny_config(data_dir), tmp_path)
    assert_same_model(finished, tmp_path)


def test_the_saved_model_is_the_last_checkpoint_and_was_measured(
    finished, data_dir
):
    images, labels = datasets.load_arrays("wide_mnist/digits", "test", data_dir)
    saved = keras.models.load_model(finished / "model.keras")
    logits = saved.predict(images, gamma=1.0, verbose=0)
    model = tiny_config(data_dir).model.build(seed=0)
    model.build(images.shape)
    model.load_weights(finished / "checkpoints" / "epoch-000002.weights.h5")
    np.testing.assert_array_equal(
        logits, model.predict(images, gamma=1.0, verbose=0)
    )
    metrics = json.loads((finished / "metrics.json").read_text())
    accuracy = np.mean(np.argmax(logits, axis=1) == labels)
    assert metrics["lines"]["composer"][1]["gamma"] == 1.0
    assert metrics["lines"]["composer"][1]["accuracy"] == pytest.approx(
        accuracy
    )

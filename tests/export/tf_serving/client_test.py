"""The client, against servers that answer as TensorFlow Serving does."""

import json
import re
import subprocess
import sys
from unittest import mock

import grpc
import numpy as np
import pytest
import tensorflow as tf

from tests.export.tf_serving.servers import (
    DEFAULT,
    FETCH_SPECS,
    GAMMAS,
    HIGH,
    IMAGES,
    KIT,
    LOW,
    MAX_ROWS,
    PROTOCOLS,
    Batcher,
    at_once,
    check,
    check_each,
    client,
    grpc_server,
    rest_server,
    serving,
)


def test_gamma_changes_the_cost_of_every_image(model):
    costs = [
        model(IMAGES, gamma=gamma, return_composition=True).policy.path_cost
        for gamma in GAMMAS
    ]
    assert np.ptp(costs, axis=0).all()


@pytest.mark.parametrize("gamma", [LOW, 2.5, HIGH, GAMMAS, None])
def test_answers_are_those_of_the_keras_model(ask, model, gamma):
    outputs = ask(IMAGES, gamma)
    check(outputs, model, IMAGES, DEFAULT if gamma is None else gamma)
    assert outputs["choices"].dtype == np.int32
    assert outputs["cost"].dtype == np.float32
    np.testing.assert_allclose(
        outputs["probabilities"], tf.nn.softmax(outputs["logits"]), rtol=1e-5
    )
    assert outputs["module_probabilities"].shape == (12, 2, 2)


@pytest.mark.parametrize("budget", [0.0, 0.7, np.linspace(0.4, 1.0, 12)])
def test_a_budget_has_the_answer_of_its_gamma(ask, model, budget):
    outputs = ask(IMAGES, budget=budget)
    gamma = model.calibration.gamma(np.broadcast_to(budget, 12))
    check(outputs, model, IMAGES, gamma)
    with pytest.raises(ValueError, match="give one"):
        ask(IMAGES, LOW, budget=budget)


def test_requests_at_different_budgets_share_a_batch(protocol, runtime, model):
    batcher = Batcher(runtime, 2)
    with serving(protocol, batcher) as ask:
        answers = at_once(
            lambda images, budget: ask(images, budget=budget),
            [(IMAGES[:2], 0.5), (IMAGES[2:5], 1.0)],
        )
    assert [sorted(rows) for rows in batcher.batches] == [[2, 3]]
    gamma = [model.calibration.gamma(b) for b in (0.5, 1.0)]
    requests = [(IMAGES[:2], gamma[0]), (IMAGES[2:5], gamma[1])]
    check_each(answers, model, requests)


def test_concurrent_clients_each_get_their_own_gamma(ask, model):
    requests = [
        (IMAGES[i % 5 : i % 5 + 1 + i % 3], gamma)
        for i, gamma in enumerate(np.tile(GAMMAS, 2))
    ]
    answers = at_once(ask, requests)
    check_each(answers, model, requests)


def test_a_batch_of_mixed_gammas_gives_each_request_its_own(
    protocol, runtime, model
):
    requests = [
        (IMAGES[:1], LOW),
        (IMAGES[1:3], HIGH),
        (IMAGES[3:6], GAMMAS[3:6]),
        (IMAGES[6:8], 2.5),
    ]
    batcher = Batcher(runtime, len(requests))
    with serving(protocol, batcher) as ask:
        answers = at_once(ask, requests)
    assert [sorted(rows) for rows in batcher.batches] == [[1, 2, 2, 3]]
    check_each(answers, model, requests)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_gamma_costs_its_own_row_the_default_only(ask, model, bad):
    gamma = GAMMAS.copy()
    gamma[4] = bad
    outputs = ask(IMAGES, gamma)
    gamma[4] = DEFAULT
    check(outputs, model, IMAGES, gamma)


def test_a_bad_gamma_does_not_reach_others_in_its_batch(
    protocol, runtime, model
):
    requests = [(IMAGES[:2], np.nan), (IMAGES[2:4], LOW), (IMAGES[4:7], HIGH)]
    with serving(protocol, Batcher(runtime, len(requests))) as ask:
        answers = at_once(ask, requests)
    check_each(answers, model, [(IMAGES[:2], DEFAULT), *requests[1:]])


def test_gamma_outside_the_support_is_clipped(ask, model):
    check(ask(IMAGES, LOW - 100.0), model, IMAGES, LOW)
    check(ask(IMAGES, 1e30), model, IMAGES, HIGH)


REFUSED = {"grpc": "^INVALID_ARGUMENT: ", "rest": "^HTTP 400: "}


@pytest.mark.parametrize(
    ("images", "gamma"),
    [
        (np.zeros([2, 5, 5, 1], np.float32), 1.0),
        (np.zeros([2, 8, 8, 3], np.float32), 1.0),
        (np.zeros([2, 64], np.float32), 1.0),
        (IMAGES[:2], np.zeros([3], np.float32)),
        (IMAGES[:2], np.zeros([0], np.float32)),
        (IMAGES[:1], np.zeros([2], np.float32)),
    ],
    ids=["size", "channels", "rank", "long gamma", "empty gamma", "two gammas"],
)
def test_a_bad_request_is_refused_and_others_are_answered(
    ask, protocol, model, images, gamma
):
    good = [(IMAGES[i : i + 2], GAMMAS[i]) for i in range(6)]
    requests = [*good[:3], (images, gamma), *good[3:]]
    answers = at_once(ask, requests)
    error = answers.pop(3)
    assert isinstance(error, client.ServerError)
    with pytest.raises(client.ServerError, match=REFUSED[protocol]):
        raise error
    assert "\n" not in str(error)
    check_each(answers, model, good)


def test_a_gamma_of_wrong_length_never_joins_a_batch(protocol, runtime, model):
    good = [(IMAGES[:2], LOW), (IMAGES[2:4], HIGH)]
    bad = (IMAGES[:2], np.zeros([1], np.float32))
    with serving(protocol, Batcher(runtime, len(good))) as ask:
        *answers, error = at_once(ask, [*good, bad])
    assert isinstance(error, client.ServerError)
    check_each(answers, model, good)


F32 = np.float32


@pytest.mark.parametrize(
    ("images", "gamma", "message"),
    [
        (
            np.zeros([2, 5, 5, 1], F32),
            1.0,
            r"'image' must have the shape \[any, 8, 8, 1\], got \[2, 5, 5, 1\]",
        ),
        (np.zeros([2, 8, 8, 3], F32), 1.0, "'image' must have the shape"),
        (np.zeros([2, 64], F32), 1.0, "'image' must have the shape"),
        (IMAGES[:2], np.zeros([2, 2]), r"'gamma' must have the shape \[any\]"),
        (np.zeros([2, 8, 8, 1]), 1.0, "'image' must be float32, got float64"),
    ],
)
def test_what_would_spoil_a_batch_is_found_before_it_is_sent(
    protocol, runtime, model, images, gamma, message
):
    good = [(IMAGES[:2], LOW), (IMAGES[2:4], HIGH)]
    serve, predict = PROTOCOLS[protocol]
    with serve(Batcher(runtime, len(good))) as address:
        specs = FETCH_SPECS[protocol](address)
        image = {"image": ([-1, 8, 8, 1], "float32")}
        steering = ([-1], "float32")
        assert specs == {
            "default_gamma": image,
            "serving_default": {**image, "gamma": steering},
            "budget": {**image, "budget": steering},
        }

        def ask(images, gamma):
            client.check_request(specs, {"image": images}, gamma)
            return predict(address, {"image": images}, gamma)

        with pytest.raises(ValueError, match=message):
            ask(images, gamma)
        with pytest.raises(ValueError, match="The inputs are"):
            client.check_request(specs, {"picture": images})
        with pytest.raises(ValueError, match="no signature 'budget'"):
            client.check_request({}, {"image": images}, budget=0.5)
        answers = at_once(ask, good)
    check_each(answers, model, good)


def test_another_type_spoils_a_batch_by_grpc(runtime):
    requests = [(IMAGES[:2], LOW), (IMAGES[2:4].astype(np.float64), LOW)]
    with serving("grpc", Batcher(runtime, len(requests))) as ask:
        answers = at_once(ask, requests)
    assert all(isinstance(answer, client.ServerError) for answer in answers)


def test_a_channel_serves_many_requests(runtime, model):
    with grpc_server(runtime) as address, grpc.insecure_channel(address) as c:
        assert client.fetch_specs_grpc(c) == client.fetch_specs_grpc(address)
        for gamma in (LOW, HIGH):
            answer = client.predict_grpc(c, {"image": IMAGES}, gamma)
            check(answer, model, IMAGES, gamma)


def test_the_default_of_gamma_is_for_grpc(runtime, model):
    images = {"image": IMAGES[:3]}
    with (
        mock.patch.object(
            client, "_steered", lambda inputs, *_: ("serving_default", inputs)
        ),
        grpc_server(runtime) as address,
    ):
        check(client.predict_grpc(address, images), model, IMAGES[:3], DEFAULT)


def test_without_gamma_the_signature_that_needs_none_is_asked(
    protocol, runtime
):
    asked = []

    class Recording(Batcher):
        def __call__(self, name, tensors):
            asked.append((name, set(tensors)))
            return super().__call__(name, tensors)

    with serving(protocol, Recording(runtime, 1)) as ask:
        ask(IMAGES[:3])
    assert asked == [("default_gamma", {"image"})]


def test_bytes_are_sent_in_base64():
    with (
        mock.patch.object(
            client, "_json", return_value={"outputs": {}}
        ) as sent,
    ):
        words = np.array([[b"a\xff", b"b"]], object)
        client.predict_rest("http://server", {"words": words})
    inputs = json.loads(sent.call_args.args[2])["inputs"]
    assert inputs == {"words": [[{"b64": "Yf8="}, {"b64": "Yg=="}]]}


def test_a_server_that_is_not_there_is_one_clear_line():
    with rest_server(None) as url:
        address = url.removeprefix("http://")
    inputs = {"image": IMAGES}
    with pytest.raises(client.ServerError, match=rf"^No answer from {url}: "):
        client.predict_rest(url, inputs)
    with pytest.raises(client.ServerError, match=r"^UNAVAILABLE: "):
        client.predict_grpc(address, inputs)


def test_rest_at_the_port_of_grpc_is_one_clear_line(runtime):
    with (
        grpc_server(runtime) as address,
        pytest.raises(client.ServerError, match="does not answer as"),
    ):
        client.predict_rest(f"http://{address}", {"image": IMAGES})


def run_client(url, *args, cwd=None):
    return subprocess.run(
        [
            sys.executable,
            KIT / "client.py",
            "--rest",
            f"--server={url.removeprefix('http://')}",
            *args,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd,
    )


def test_the_program_prints_each_row_at_each_gamma(tmp_path, runtime, model):
    np.save(tmp_path / "images.npy", IMAGES[:2])
    with rest_server(runtime) as url:
        done = run_client(
            url,
            f"--images={tmp_path}/images.npy",
            "--budget=1",
            "--gamma=-2",
            "--gamma=6",
        )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if "row" not in line] == [
        "gamma -2",
        "gamma 6",
        "budget 1",
    ]
    composition = model(IMAGES[:2], budget=1.0, return_composition=True)
    choices = composition.policy.choices.numpy().tolist()
    for line, row_choices, logits in zip(
        lines[-2:], choices, composition.outputs.numpy(), strict=True
    ):
        assert f"choices {row_choices}, class {logits.argmax()} " in line


def test_the_program_sends_no_more_at_once_than_the_server_takes(runtime):
    batcher = Batcher(runtime, 1)
    with rest_server(batcher) as url:
        done = run_client(url, "--shape=8,8,1", "--rows=70", "--gamma=1")
    assert done.returncode == 0, done.stderr
    assert batcher.batches == [[MAX_ROWS], [70 - MAX_ROWS]]
    rows = re.findall(r"row (\d+): ", done.stdout)
    assert rows == [str(i) for i in range(70)]


def test_the_program_says_in_one_line_what_is_wrong(runtime):
    with rest_server(runtime) as url:
        done = run_client(url, "--shape=5,5,1", "--rows=2", "--gamma=1")
    assert done.returncode == 1
    assert done.stderr == (
        "error: 'image' must have the shape [any, 8, 8, 1], got [2, 5, 5, 1].\n"
    )
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--dtype=floaty", "--dtype must be a type of NumPy.* 'floaty'"),
        ("--images=x.npz", "--images must be a .npy file.* 'x.npz'"),
        ("--images=one.npy", "--images must be a .npy file.* 'one.npy'"),
        ("--images=text.npy", "--images must be a .npy file.* 'text.npy'"),
        ("--images=empty.npy", "--images must be a .npy file.* 'empty.npy'"),
        ("--images=none.npy", "No such file or directory: 'none.npy'"),
        ("--gamma=cheap", "--gamma must be numbers.* 'cheap'"),
        ("--budget=1,a", "--budget must be numbers.* '1,a'"),
        ("--shape=28,x", "--shape must be whole numbers.* '28,x'"),
    ],
)
def test_a_bad_flag_is_one_line(tmp_path, flag, message):
    np.savez(tmp_path / "x.npz", image=IMAGES)
    np.save(tmp_path / "one.npy", 1.0)
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "empty.npy").touch()
    done = run_client("http://localhost:1", flag, cwd=tmp_path)
    assert done.returncode == 1
    assert re.fullmatch(rf"error: .*{message}.*\n", done.stderr)

import itertools

import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

from composer_tf.evaluation import (
    PathOutcomes,
    cascade,
    early_exit,
    evaluate_paths,
    input_independent,
    interpolated_accuracy,
    oracle,
)
from tests.evaluation.tradeoff_test import (
    forced_accuracy,
    path_cost,
    random_data,
    random_model,
)


def random_outcomes(seed, num_paths=5, size=40):
    random = np.random.default_rng(seed)
    costs = random.random(num_paths)
    chances = random.random([num_paths, 1])
    return PathOutcomes(
        np.arange(num_paths)[:, np.newaxis],
        costs,
        random.random([num_paths, size]) < chances,
    )


def best_assignment(outcomes, budget, per_example):
    """Accuracy by a linear program over shares of paths."""
    num_paths, size = outcomes.correct.shape
    gains = outcomes.correct.astype(float)
    if not per_example:
        gains, size = gains.mean(axis=1, keepdims=True), 1
    prices = np.repeat(outcomes.costs[:, np.newaxis], size, axis=1)
    one_each = np.zeros([size, num_paths * size])
    for path, example in itertools.product(range(num_paths), range(size)):
        one_each[example, path * size + example] = 1.0
    solution = scipy.optimize.linprog(
        -gains.ravel() / size,
        A_ub=prices.reshape(1, -1) / size,
        b_ub=[budget],
        A_eq=one_each,
        b_eq=np.ones(size),
        bounds=(0, 1),
    )
    return -solution.fun


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_oracle_is_the_best_choice_per_example(seed, share):
    outcomes = random_outcomes(seed)
    low, high = outcomes.costs.min(), outcomes.costs.max()
    budget = low + share * (high - low) + 1e-9
    (accuracy,) = interpolated_accuracy(oracle(outcomes), [budget])
    assert accuracy == pytest.approx(
        best_assignment(outcomes, budget, per_example=True), abs=1e-6
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_input_independent_is_the_best_mixture_of_paths(seed, share):
    outcomes = random_outcomes(seed)
    low, high = outcomes.costs.min(), outcomes.costs.max()
    budget = low + share * (high - low) + 1e-9
    (accuracy,) = interpolated_accuracy(input_independent(outcomes), [budget])
    assert accuracy == pytest.approx(
        best_assignment(outcomes, budget, per_example=False), abs=1e-6
    )


def test_oracle_keeps_its_ends_when_it_has_many_points():
    outcomes = random_outcomes(0, size=5000)
    points = oracle(outcomes)
    assert len(points) <= 101
    assert points[0].accuracy == pytest.approx(
        outcomes.correct[np.argmin(outcomes.costs)].mean()
    )
    assert points[-1].accuracy == pytest.approx(
        outcomes.correct.any(axis=0).mean()
    )


def test_cascade_is_what_thresholds_give():
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 30)
    cheap, dear = random.dirichlet(np.ones(4), [2, 30])
    points = cascade(cheap, dear, labels, 0.2, 0.7)
    assert len(points) == 31
    for point in points:
        passed_on = cheap.max(-1) < point.gamma
        answers = np.where(passed_on, dear.argmax(-1), cheap.argmax(-1))
        assert point.accuracy == pytest.approx(np.mean(answers == labels))
        assert point.cost == pytest.approx(0.2 + 0.7 * passed_on.mean())


def test_early_exit_is_what_thresholds_give():
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 30)
    probabilities = random.dirichlet(np.ones(4), [30, 3])
    costs = [0.1, 0.4, 0.7]
    points = early_exit(probabilities, labels, costs)
    assert len(points) == 61  # One more than exits that may be taken.
    for point in points:
        spent, correct = 0.0, 0
        for of_exits, label in zip(probabilities, labels, strict=True):
            sure = [i for i in (0, 1) if of_exits[i].max() > point.gamma]
            taken = sure[0] if sure else 2
            spent += costs[taken]
            correct += of_exits[taken].argmax() == label
        assert point.cost == pytest.approx(spent / 30)
        assert point.accuracy == pytest.approx(correct / 30)
    assert points[0].cost == pytest.approx(0.1)
    assert points[-1].cost == pytest.approx(0.7)


def test_early_exit_keeps_its_ends_when_it_has_many_points():
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 500)
    probabilities = random.dirichlet(np.ones(4), [500, 3])
    points = early_exit(probabilities, labels, [0.1, 0.4, 0.7])
    assert len(points) <= 101
    assert points[0].cost == pytest.approx(0.1)
    assert points[-1].cost == pytest.approx(0.7)


def test_every_path_is_run_alone():
    model = random_model(num_metalayers=2)
    inputs, labels, data = random_data()
    outcomes = evaluate_paths(model, data)
    assert outcomes.correct.shape == (9, len(labels))
    for path, cost, correct in zip(*outcomes, strict=True):
        accuracy = forced_accuracy(model, inputs, labels, path)
        assert correct.mean() == pytest.approx(accuracy)
        assert cost == pytest.approx(path_cost(model, path))


def test_too_many_paths_are_refused():
    model = random_model(num_metalayers=6)
    with pytest.raises(ValueError, match=r"At most 256 paths.*729"):
        evaluate_paths(model, tf.data.Dataset.from_tensors(([[0.0] * 5], [0])))


PROBABILITIES = np.random.default_rng(0).dirichlet(np.ones(4), [6, 2])
LABELS = np.arange(6) % 4


def of_cascade(labels):
    cheap, dear = PROBABILITIES.swapaxes(0, 1)
    return cascade(cheap, dear, labels, 0.2, 0.7)


def of_early_exit(labels):
    return early_exit(PROBABILITIES, labels, [0.2, 0.9])


def of_paths(labels):
    x = np.zeros([6, 5], np.float32)
    data = tf.data.Dataset.from_tensors((x, labels))
    return evaluate_paths(random_model(), data).correct.tolist()


@pytest.mark.parametrize("measure", [of_cascade, of_early_exit, of_paths])
@pytest.mark.parametrize(
    ("labels", "got"),
    [
        (np.eye(4)[LABELS], r"\(6, 4\), dtype float64"),
        (np.eye(4, dtype=int)[LABELS], r"\(6, 4\), dtype int64"),
        (LABELS.astype("float32"), r"\(6,\), dtype float32"),
        (LABELS[:5], r"\(5,\), dtype int64"),
        (LABELS[:1], r"\(1,\), dtype int64"),
    ],
    ids=["one-hot", "one-hot integers", "floats", "too few", "one"],
)
def test_labels_that_are_not_an_integer_each_are_refused(measure, labels, got):
    message = rf"`labels` must be integers \[N\], here \[6\], got shape {got}"
    with pytest.raises(ValueError, match=message):
        measure(labels)


@pytest.mark.parametrize("measure", [of_cascade, of_early_exit])
def test_labels_may_have_an_axis_of_their_own(measure):
    assert measure(LABELS[:, np.newaxis].astype("uint8")) == measure(LABELS)


def test_a_cascade_is_of_two_networks_on_the_same_examples():
    cheap, dear = PROBABILITIES.swapaxes(0, 1)
    message = r"alike, got shapes \(6, 4\) and \(5, 4\)"
    with pytest.raises(ValueError, match=message):
        cascade(cheap, dear[:5], LABELS, 0.2, 0.7)


def test_the_oracle_gets_what_another_path_as_cheap_is_right_on_for_free():
    outcomes = PathOutcomes(
        np.int32([[0], [1]]),
        np.array([0.5, 0.5]),
        np.array([[True, False], [False, True]]),
    )
    (only,) = oracle(outcomes)
    assert (only.cost, only.accuracy) == (0.5, 1.0)

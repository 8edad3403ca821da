"""What is held against an artifact; `deployment_test` verifies real ones."""

import numpy as np
import pytest

from composer_tf.deployment.acceptance import Limits, failures
from composer_tf.exporters.verification import Parity

RIGHT = Parity(
    errors={"logits": 1e-6, "cost": 0.0},
    largest={"logits": 4.0, "cost": 1.0},
    choice_agreement=1.0,
    accuracies=(0.9, 0.9),
)


def test_nothing_is_held_against_what_is_right():
    assert failures(RIGHT, "none", Limits(0.0)) == []
    assert failures(RIGHT._replace(accuracies=None), "none", Limits(0.0)) == []


def test_how_far_accuracy_may_fall_is_an_option():
    worse = RIGHT._replace(accuracies=(0.9, 0.89))
    assert failures(worse, "int8", Limits(0.02)) == []
    (failure,) = failures(worse, "int8", Limits(0.005))
    assert failure == "accuracy falls by 1.00%, more than 0.50%"


@pytest.mark.parametrize(
    ("quantization", "error", "right"),
    [
        ("none", 3e-5, True),  # Of logits up to 4.
        ("none", 5e-5, False),
        ("float16", 3e-3, True),
        ("float16", 5e-3, False),
        ("int8", 0.9, True),
        ("int8", 1.1, False),
        ("none", np.nan, False),
    ],
)
def test_errors_are_allowed_in_proportion_and_by_quantization(
    quantization, error, right
):
    parity = RIGHT._replace(errors={"logits": error})
    found = failures(parity, quantization, Limits(0.0))
    assert (found == []) == right
    assert all(failure.startswith("logits differ by") for failure in found)


def test_a_limit_of_ones_own_replaces_that_of_the_quantization():
    parity = RIGHT._replace(errors={"logits": 5e-5})  # Of logits up to 4.
    for limit, right in ((2e-5, True), (1e-5, False)):
        found = failures(parity, "none", Limits(abs_error=limit))
        assert (found == []) == right


def test_probabilities_alone_are_judged_as_logits_are():
    errors = {"probabilities": 0.3, "cost": 0.0}
    largest = {"probabilities": 1.0, "cost": 1.0}
    wrong = RIGHT._replace(errors=errors, largest=largest)
    assert failures(wrong, "int8", Limits()) == [
        "probabilities differ by 30% of the largest"
    ]
    beside = RIGHT._replace(
        errors={"logits": 0.1, "probabilities": 0.3},
        largest={"logits": 4.0, "probabilities": 1.0},
    )
    assert failures(beside, "int8", Limits()) == []


def test_quantized_choices_may_differ_now_and_then():
    parity = RIGHT._replace(choice_agreement=0.995)
    assert failures(parity, "int8", Limits(0.0)) == []
    assert failures(parity, "none", Limits(0.0)) == [
        "choices agree on 99.50%, less than 100.00%"
    ]
    fewer = Limits(choice_agreement=0.999)
    assert failures(parity, "int8", fewer) == [
        "choices agree on 99.50%, less than 99.90%"
    ]


@pytest.mark.parametrize(
    ("largest", "error", "right"),
    [
        ({"logits": 300.0, "probabilities": 1.0}, 1e-3, True),
        ({"logits": 300.0, "probabilities": 1.0}, 2e-3, False),
        ({"logits": 1.0, "probabilities": 1.0}, 2e-5, False),
        ({"probabilities": 1.0}, 2e-5, False),
    ],
)
def test_probabilities_may_differ_as_their_logits_let_them(
    largest, error, right
):
    errors = dict.fromkeys(largest, 0.0) | {"probabilities": error}
    parity = RIGHT._replace(errors=errors, largest=largest)
    assert (failures(parity, "none", Limits()) == []) == right

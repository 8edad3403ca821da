import numpy as np
import pytest

from composer_tf.evaluation import (
    Point,
    interpolated_accuracy,
    normalized_area,
)


def line(*points):
    return [Point("some", 0.0, cost, accuracy) for cost, accuracy in points]


def test_a_line_is_straight_between_points_and_flat_beyond_the_last():
    points = line((1.0, 0.9), (0.2, 0.5))
    np.testing.assert_allclose(
        interpolated_accuracy(points, [0.2, 0.4, 1.0, 1.5]),
        [0.5, 0.6, 0.9, 0.9],
    )
    assert np.isnan(interpolated_accuracy(points, [0.1])).all()


def test_what_less_buys_more_buys_too():
    points = line((0.2, 0.5), (0.4, 0.9), (0.6, 0.7), (1.0, 0.8))
    np.testing.assert_allclose(
        interpolated_accuracy(points, [0.5, 0.6, 1.0]), 0.9
    )


def test_area_is_measured_between_worst_and_best():
    worst = line((0.0, 0.0), (1.0, 1.0))
    best = line((0.0, 0.0), (0.5, 1.0))
    assert normalized_area(worst, worst, best) == pytest.approx(0.0)
    assert normalized_area(best, worst, best) == pytest.approx(1.0)
    # (1/2 - 3/8) / (1/2 - 1/4), of the triangles above the lines.
    between = line((0.0, 0.0), (0.75, 1.0))
    assert normalized_area(between, worst, best) == pytest.approx(0.5, abs=1e-3)

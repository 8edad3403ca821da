import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from composer_tf.evaluation import (
    Point,
    plot_entropy,
    plot_examples,
    plot_routing,
    plot_tradeoff,
)

POINTS = [
    Point("composer", 6.0, 0.2, 0.5),
    Point("composer", -2.0, 0.9, 0.8),
    Point("composer", 2.0, 0.4, 0.7),
    Point("random_mixture", 0.0, 0.2, 0.5),
    Point("random_mixture", 1.0, 1.0, 0.8),
]
PROBABILITIES = np.random.default_rng(0).random([2, 4, 3])
GAMMAS = [-2.0, 1.5]
MODULES = ["a", "b", "c"]
LABELS = ["zero", "one", "two", "three"]


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved, in order."""
    saved = []
    save = Figure.savefig

    def spy(figure, *args, **kwargs):
        saved.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", spy)
    return saved


def test_tradeoff_draws_a_line_per_method_in_the_order_of_cost(
    tmp_path, figures
):
    plot_tradeoff(POINTS, tmp_path / "curve.png")
    (axes,) = figures[0].axes
    composer, mixture = axes.lines
    np.testing.assert_array_equal(
        composer.get_xydata(), [[0.2, 0.5], [0.4, 0.7], [0.9, 0.8]]
    )
    np.testing.assert_array_equal(
        mixture.get_xydata(), [[0.2, 0.5], [1.0, 0.8]]
    )
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["Composer", "Random mixture"]
    assert "Cost" in axes.get_xlabel()
    assert "Accuracy" in axes.get_ylabel()


def test_tradeoff_takes_methods_it_does_not_know(tmp_path, figures):
    plot_tradeoff([Point("mine", 0.0, 0.5, 0.5)], tmp_path / "curve.png")
    (text,) = figures[0].axes[0].get_legend().get_texts()
    assert text.get_text() == "mine"


def test_routing_draws_a_heatmap_per_gamma(tmp_path, figures):
    plot_routing(
        PROBABILITIES, GAMMAS, MODULES, LABELS, tmp_path / "routing.png"
    )
    left, right, _ = figures[0].axes  # And the colour bar.
    for axes, heatmap in zip((left, right), PROBABILITIES, strict=True):
        (image,) = axes.images
        np.testing.assert_array_equal(image.get_array(), heatmap)
        assert image.get_clim() == (0, 1)
        assert image.origin == "lower"
        ticks = [label.get_text() for label in axes.get_xticklabels()]
        assert ticks == MODULES
    assert [t.get_text() for t in left.get_yticklabels()] == LABELS
    assert "-2" in left.get_title()
    assert "1.5" in right.get_title()


def test_routing_takes_labels_that_do_not_occur(tmp_path):
    probabilities = PROBABILITIES.copy()
    probabilities[:, 1] = np.nan
    path = tmp_path / "routing.png"
    plot_routing(probabilities, GAMMAS, MODULES, LABELS, path)
    assert matplotlib.image.imread(path).ndim == 3


def test_routing_refuses_another_number_of_gammas(tmp_path):
    path = tmp_path / "routing.png"
    with pytest.raises(ValueError, match="shorter"):
        plot_routing(PROBABILITIES, [0.0, 1.0, 2.0], MODULES, LABELS, path)
    assert not path.exists()


def test_the_same_data_gives_the_same_file(tmp_path):
    for name in ("one.png", "two.png"):
        plot_tradeoff(POINTS, tmp_path / name)
    one, two = (tmp_path / name for name in ("one.png", "two.png"))
    assert one.read_bytes() == two.read_bytes()
    plot_tradeoff(POINTS[:2], two)
    assert one.read_bytes() != two.read_bytes()


def test_pictures_are_png_whatever_the_path_is_called(tmp_path):
    path = tmp_path / "picture.partial"
    plot_tradeoff(POINTS, path)
    picture = matplotlib.image.imread(path, format="png")
    assert picture.std() > 0.0  # Not blank.


def test_examples_stand_in_the_row_of_their_module(tmp_path, figures):
    images = np.zeros([5, 2, 3, 1], np.uint8)
    images[:, ..., 0] = np.arange(1, 6)[:, np.newaxis, np.newaxis]
    choices = np.array([1, 0, 1, 1, 1])
    path = tmp_path / "examples.png"
    plot_examples(images, choices, MODULES, path, width=3)
    (axes,) = figures[0].axes
    (image,) = axes.images
    drawn = np.asarray(image.get_array())[::2, ::3]  # A pixel of each.
    np.testing.assert_array_equal(
        drawn, [[2, 255, 255], [1, 3, 4], [255, 255, 255]]
    )
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels == MODULES


def test_entropy_is_drawn_against_gamma(tmp_path, figures):
    plot_entropy([-1.0, 1.0], [0.2, 1.1], "entropy", tmp_path / "e.png")
    (axes,) = figures[0].axes
    (line,) = axes.lines
    np.testing.assert_array_equal(line.get_xydata(), [[-1.0, 0.2], [1.0, 1.1]])
    assert "entropy" in axes.get_xlabel()
    assert "nats" in axes.get_ylabel()

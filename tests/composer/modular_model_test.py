"""What a Composer is made of: costs, paths, layers that do not fit."""

import keras
import numpy as np
import pytest

import composer_tf as ct
from tests.two_metalayers import X, make

layers = keras.layers


def test_cost_counts_stem_fixed_steps_and_controller():
    model = make(stem=layers.Dense(3))
    model(X)
    table = model.cost_table
    assert table.fixed == (3 * 3 + 3) + (6 * 5 + 5)
    assert table.controller == model.controller.count_params()
    assert table.modules == ((24.0, 24.0), (24.0, 24.0, 24.0))
    composition = model(X, return_composition=True)
    np.testing.assert_allclose(composition.cost, np.ones(7), rtol=1e-6)
    np.testing.assert_allclose(
        model.overhead + composition.policy.path_cost, np.ones(7), rtol=1e-6
    )


def test_costs_may_be_macs_or_numbers():
    by_macs = make(costs="macs")
    by_macs(X)
    assert by_macs.cost_table.modules[0] == (18.0, 18.0)
    assert by_macs.cost_table.fixed == 30.0
    assert by_macs.cost_table.controller > 0
    given = make(costs=[[1.0, 3.0], [2.0, 0.0, 5.0]])
    given(X)
    assert given.cost_table.fractions == (
        (0.125, 0.375),
        (0.25, 0.0, 0.625),
    )


@pytest.mark.parametrize(
    ("alternatives", "error"), [(True, TypeError), (False, ValueError)]
)
def test_a_forgotten_metalayer_is_hinted_at(alternatives, error):
    dense = [layers.Dense(4), layers.Dense(4)]
    steps = [dense, layers.Dense(3)] if alternatives else dense
    hint = r"wrap alternatives in `ct.Metalayer\(\[...\]\)`"
    with pytest.raises(error, match=hint):
        ct.Composer(steps)


def test_one_layer_in_two_places_is_refused():
    shared = layers.Dense(4)
    with pytest.raises(ValueError, match="stands twice"):
        ct.Composer([ct.Metalayer([shared, shared])])
    with pytest.raises(ValueError, match="stands twice"):
        ct.Composer([ct.Metalayer([shared]), ct.Metalayer([shared])])
    with pytest.raises(ValueError, match="stands twice"):
        ct.Composer([ct.Metalayer([shared, layers.Dense(4)])], stem=shared)
    nested = [keras.Sequential([shared, layers.Dense(4)]) for _ in range(2)]
    with pytest.raises(ValueError, match=f"{shared.name}.* stands twice"):
        ct.Composer([ct.Metalayer(nested)])


@pytest.mark.parametrize(
    ("where", "parts"),
    [
        ("`stem`", lambda inner: {"stem": inner}),
        ("`stem`", lambda inner: {"stem": keras.Sequential([inner])}),
        ("`metalayers`", lambda inner: {"step": inner}),
        ("`modules` of metalayer 'metalayer", lambda inner: {"module": inner}),
    ],
    ids=("stem", "within the stem", "step", "module"),
)
def test_a_composer_within_a_composer_is_refused(where, parts):
    inner = make(name="inner")
    given = {
        "module": layers.Dense(3),
        "step": layers.Dense(3),
        "stem": None,
        **parts(inner),
    }
    with pytest.raises(TypeError, match=f"^{where}.* Composer, got 'inner'"):
        ct.Composer(
            [ct.Metalayer([layers.Dense(3), given["module"]]), given["step"]],
            stem=given["stem"],
        )


def test_a_controller_of_another_model_is_refused():
    controller = ct.RNNController()
    make(controller=controller)(X)
    pair = ct.Metalayer([layers.Dense(2), layers.Dense(2)])
    with pytest.raises(ValueError, match="make a controller of its own"):
        ct.Composer([pair], controller=controller)(X)


@pytest.mark.parametrize("path", [(-1, -1), (0,), (0, 0, 0), (0, 3)])
def test_a_path_names_a_module_of_each_metalayer(path):
    model = make()
    model(X)
    with pytest.raises(ValueError, match="`path` must be"):
        model.along(X, path)


def test_modules_that_disagree_in_shape_are_refused_before_training():
    model = ct.Composer(
        [ct.Metalayer([layers.Dense(3), layers.Dense(4, name="wide")])]
    )
    with pytest.raises(ValueError, match="wide: \\(None, 4\\)"):
        model(X)


def test_several_inputs_without_a_stem_are_refused():
    with pytest.raises(ValueError, match="stem"):
        make()({"left": X, "right": X})


def test_several_inputs_in_a_list_are_refused():
    model = make(stem=layers.Concatenate())
    with pytest.raises(ValueError, match="mapping by name"):
        model([X, X])


@pytest.mark.parametrize(
    "name",
    ["my-input", "class", "_x", "bär", "2d", "", 0, "override", "cost"],
)
def test_an_input_whose_name_no_artifact_can_have_is_refused(name):
    with pytest.raises(ValueError, match=rf"name of an input.* got {name!r}"):
        make()({name: X})
    with pytest.raises(ValueError, match=rf"name of an input.* got {name!r}"):
        make(stem=layers.Concatenate()).build({"x": (None, 3), name: (None, 3)})
    make()({"gamma": np.zeros(7, np.float32), "x_1": X})

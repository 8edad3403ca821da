import keras
import numpy as np
import pytest

import composer_tf as ct
from composer_tf.static_networks import counterparts


def build(costs="parameters", num_metalayers=2):
    """Costs by hand of 4 inputs: a dense layer has inputs + 1 per unit."""
    dense = keras.layers.Dense

    def metalayer(units):
        return ct.Metalayer(
            [dense(units), keras.Sequential([dense(6), dense(units)])]
        )

    steps = [metalayer(3), dense(2), metalayer(5)]
    model = ct.Composer(
        steps if num_metalayers == 2 else steps[2:],
        stem=keras.layers.Rescaling(2.0),
        costs=costs,
    )
    model.build((None, 4))
    return model


FIXED = 3 * 2 + 2  # The dense layer between the metalayers.
FIRST = (4 * 3 + 3, 4 * 6 + 6 + 6 * 3 + 3)
SECOND = (2 * 5 + 5, 2 * 6 + 6 + 6 * 5 + 5)


@pytest.mark.parametrize("path", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_a_path_costs_its_modules_and_what_is_fixed(path):
    model = build()
    cost = FIXED + FIRST[path[0]] + SECOND[path[1]]
    share = counterparts.cost_of_path(model, path)
    assert share == pytest.approx(cost / model.cost_table.full)
    network = counterparts.path_network(model, path)
    assert network.count_params() == cost


def test_an_exit_stands_where_there_are_weights_before_a_metalayer():
    model = build()
    network = counterparts.early_exit_network(model)
    first = FIRST[1] + FIXED + 2 * 5 + 5  # The exit has 5 classes.
    costs = np.array([first, first + SECOND[1]])
    np.testing.assert_allclose(
        counterparts.costs_of_exits(model, network),
        costs / model.cost_table.full,
    )
    images = np.random.default_rng(0).normal(size=[7, 4]).astype(np.float32)
    logits = network.predict(images, verbose=0)  # [B, exits, classes]
    dearest = counterparts.path_network(model, (1, 1))
    np.testing.assert_allclose(
        logits[:, -1], dearest.predict(images, verbose=0), rtol=1e-5, atol=1e-6
    )


def test_a_composer_may_have_been_called_with_a_mapping():
    plain = build()
    mapped = ct.Composer.from_config(plain.get_config())
    mapped({"image": np.zeros([1, 4], np.float32)})
    network = counterparts.early_exit_network(mapped)
    assert counterparts.costs_of_exits(
        mapped, network
    ) == counterparts.costs_of_exits(
        plain, counterparts.early_exit_network(plain)
    )
    assert counterparts.path_network(mapped, (0, 1)).built


@pytest.mark.parametrize("path", [(-1, 0), (0,), (0, 2)])
def test_a_path_names_a_module_of_each_metalayer(path):
    for function in (
        counterparts.path_network,
        counterparts.cost_of_path,
    ):
        with pytest.raises(ValueError, match="`path` must be"):
            function(build(), path)


def test_an_exit_needs_weights_before_a_metalayer():
    with pytest.raises(ValueError, match=r"weights before a metalayer"):
        counterparts.early_exit_network(build(num_metalayers=1))


def test_one_metalayer_behind_a_trained_stem_has_an_exit_before_it():
    dense = keras.layers.Dense
    model = ct.Composer(
        [ct.Metalayer([dense(5), dense(5, use_bias=False)])], stem=dense(3)
    )
    model.build((None, 4))
    network = counterparts.early_exit_network(model)
    assert [stage.count_params() for stage in network.stages] == [
        4 * 3 + 3 + 3 * 5 + 5,
        3 * 5 + 5,
    ]


def test_exits_need_costs_that_can_be_counted():
    model = build(costs=[[1.0, 2.0], [1.0, 2.0]])
    network = counterparts.early_exit_network(model)
    with pytest.raises(ValueError, match=r"can be counted.*'user'"):
        counterparts.costs_of_exits(model, network)

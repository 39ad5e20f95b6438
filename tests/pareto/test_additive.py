from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pareto import additive_frontier, is_efficient, plot, score_policies, within_budget
from tests import reference_pareto as slow


def tables(layers, seed, bits=range(2, 9)):
    """Costs and losses of the sizes and shapes that real networks have: loss falls by about 4 with every bit."""
    generator = np.random.default_rng(seed)
    cost, loss = {}, {}
    for number in range(layers):
        unit, sensitivity = int(generator.lognormal(6, 1)), generator.lognormal(0, 1)
        cost[f"layer{number}"] = {b: unit * b + int(generator.integers(0, 20)) for b in bits}
        loss[f"layer{number}"] = {b: sensitivity * 4.0**-b * generator.lognormal(0, 0.3) for b in bits}
    return cost, loss


def brute_force(cost, loss):
    choices = {name: tuple(row) for name, row in cost.items()}
    points = slow.brute_force_frame([cost, loss], choices)
    sums = np.array([sums for _, sums in points])
    return points, sums, is_efficient(sums, sense=("min", "min"), keep="first")


@pytest.mark.slow
@settings(max_examples=25)
@given(st.data())
def test_equal_to_brute_force(data):
    value = st.integers(-5, 20)
    cost, loss = {}, {}
    for name in data.draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True)):
        widths = data.draw(st.lists(st.integers(2, 8), min_size=1, max_size=4, unique=True))
        cost[name] = {width: data.draw(value) for width in widths}
        loss[name] = {width: data.draw(value) for width in reversed(widths)}
    front = additive_frontier(cost, loss)
    _, sums, mask = brute_force(cost, loss)
    assert sorted(map(tuple, sums[mask])) == list(zip(front["cost"], front["loss"], strict=True))
    policies = front[list(cost)].to_numpy()
    assert score_policies(policies, cost).tolist() == front["cost"].tolist()
    assert score_policies(policies, {name: loss[name] for name in cost}).tolist() == front["loss"].tolist()


def test_equal_to_brute_force_on_real_numbers():
    cost, loss = tables(6, seed=1, bits=(2, 3, 4, 5, 8))
    front = additive_frontier(cost, loss)
    _, sums, mask = brute_force(cost, loss)
    expected = sums[mask][np.argsort(sums[mask][:, 0])]
    np.testing.assert_allclose(front[["cost", "loss"]].to_numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("epsilon", [0.001, 0.01, 0.1])
def test_bounded_error_keeps_its_guarantee(epsilon):
    cost, loss = tables(21, seed=2)
    exact = additive_frontier(cost, loss)
    rough = additive_frontier(cost, loss, epsilon)
    assert len(rough) < len(exact)
    places = np.searchsorted(rough["cost"], exact["cost"], side="right") - 1
    assert (places >= 0).all()  # for every exact point there is one that costs no more ...
    excess = rough["loss"].to_numpy()[places] - exact["loss"].to_numpy()
    assert excess.max() <= epsilon  # ... and loses at most epsilon more
    assert excess.min() >= -1e-12
    assert rough["loss"].iloc[-1] == pytest.approx(exact["loss"].iloc[-1])


def optimum(cost, loss, budget):
    """The least loss within a budget as an integer program, solved by HiGHS."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    columns = [(name, width) for name in cost for width in cost[name]]
    one_each = np.array([[float(name == layer) for layer, _ in columns] for name in cost])
    costs = np.array([cost[name][width] for name, width in columns]) / budget
    solution = milp(
        [loss[name][width] for name, width in columns],
        integrality=np.ones(len(columns)),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(one_each, 1, 1), LinearConstraint(costs[None], -np.inf, 1)],
        options={"mip_rel_gap": 0.0},
    )
    assert solution.success, solution.message
    return solution.fun


@pytest.mark.slow
@pytest.mark.parametrize(("layers", "budgets"), [(21, 8), (53, 4)])
def test_equal_to_an_integer_program_at_many_budgets(layers, budgets):
    cost, loss = tables(layers, seed=layers)
    front = additive_frontier(cost, loss)
    low, high = front["cost"].iloc[0], front["cost"].iloc[-1]
    for share in np.linspace(0.03, 0.9, budgets):
        budget = float(int(low + share * (high - low)))
        # HiGHS stops within 1e-6 of integers and constraints: hence the tolerance on its side, not on ours.
        assert within_budget(front, budget)["loss"] == pytest.approx(optimum(cost, loss, budget), rel=1e-5)


def test_forms_of_tables_and_what_comes_back():
    cost, loss = tables(5, seed=3)
    front = additive_frontier(cost, loss)
    array = additive_frontier(
        pd.DataFrame(cost).T.to_numpy(), pd.DataFrame(loss).T.to_numpy(), bits=range(2, 9), names=list(cost)
    )
    pd.testing.assert_frame_equal(front, array)
    pd.testing.assert_frame_equal(front, additive_frontier(pd.DataFrame(cost).T, pd.DataFrame(loss).T[::-1]))
    assert (front[list(cost)].dtypes == np.uint8).all()
    assert front["cost"].is_monotonic_increasing
    assert front["loss"].is_monotonic_decreasing
    assert all(a < b for a, b in itertools.pairwise(front["cost"]))
    assert plot(front, front, budgets=[front["cost"].median()]).axes[0].get_xlabel() == "cost"


def test_what_does_not_fit_is_named():
    cost, loss = tables(3, seed=4)
    with pytest.raises(ValueError, match="loss_table lacks layer 'layer2'"):
        additive_frontier(cost, {name: loss[name] for name in ("layer0", "layer1")})
    with pytest.raises(ValueError, match="loss_table has no value for layer 'layer1' at 8 bits"):
        additive_frontier(cost, loss | {"layer1": dict.fromkeys(range(2, 8), 1.0)})
    with pytest.raises(ValueError, match="epsilon must be a finite number that is not negative, got -1"):
        additive_frontier(cost, loss, -1)
    with pytest.raises(ValueError, match="budget 1 is below the cheapest policy"):
        within_budget(additive_frontier(cost, loss), 1)

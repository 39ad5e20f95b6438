from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pareto import DesignSpace, Store, hypervolume, measured_losses, score_policies, search
from pareto._gain import expected_gain
from pareto._surrogate import Surrogate
from tests.pareto.evaluators import value

LAYERS = ("a", "b", "c", "d", "e", "f")
SPACE = DesignSpace(dict.fromkeys(LAYERS, (2, 3, 4, 5, 8)))
COST = {
    name: {bits: bits * size for bits in (2, 3, 4, 5, 8)} for name, size in zip(LAYERS, (1, 8, 2, 9, 4, 3), strict=True)
}
SENSITIVITY = np.array([9.0, 1.0, 4.0, 0.5, 2.0, 6.0])


def accuracy(policies):
    """Layers that lose by their step, and lose more together: the sum is bent."""
    loss = (np.exp2(2.0 - policies.astype(np.float64)) * SENSITIVITY).sum(axis=1)
    return 95.0 * np.exp(-((loss / 9.0) ** 1.5))


def volume(policies):
    points = np.column_stack([accuracy(policies), score_policies(policies, COST)])
    return hypervolume(points, reference=(0.0, 217.0), sense=("max", "min"))


@pytest.mark.slow
def test_three_hundred_of_fifteen_thousand_policies_find_the_frontier():
    found = search(SPACE, accuracy, cost=COST, evaluations=200, progress=False)
    assert found.evaluations == 200
    assert found.reason == "evaluations"
    share = volume(found.frame[list(LAYERS)].to_numpy(np.uint8)) / volume(SPACE.policies())
    chance = volume(SPACE.sample(200, seed=0)) / volume(SPACE.policies())
    assert share > 0.995 > chance


def test_losses_of_one_layer_at_a_time_make_the_first_policies_good():
    losses = measured_losses(dict.fromkeys(LAYERS, 8), accuracy, SPACE)
    plain = search(SPACE, accuracy, cost=COST, evaluations=24, progress=False)
    told = search(SPACE, accuracy, cost=COST, losses=losses, evaluations=24, progress=False)
    assert volume(told.front[list(LAYERS)].to_numpy(np.uint8)) > volume(plain.front[list(LAYERS)].to_numpy(np.uint8))


def test_a_small_space_is_measured_whole_and_its_frontier_is_the_true_one():
    space = DesignSpace({"conv": (2, 3, 4), "fc1": (2, 3, 4, 5), "fc2": (2, 8)})
    found = search(space, value, evaluations=300, progress=False)
    assert found.reason == "whole space measured"
    assert len(found.frame) == len(space)
    np.testing.assert_array_equal(found.frame["accuracy"], value(space.policies()))


class _StopError(Exception):
    pass


def test_a_search_that_was_cut_off_goes_on_as_if_it_had_not_been(tmp_path):
    def seen_by(path, stops):
        seen, calls = [], 0

        def evaluate(rows):
            nonlocal calls
            calls += 1
            if calls in stops:
                raise _StopError
            seen.extend(row.tobytes() for row in rows)
            return accuracy(rows)

        for _ in range(len(stops) + 1):
            try:
                with Store(path, layers=LAYERS, fingerprint={}) as store:
                    search(SPACE, evaluate, cost=COST, evaluations=50, store=store, progress=False)
            except _StopError:
                continue
        return seen

    whole = seen_by(tmp_path / "whole.sqlite", ())
    assert len(whole) == len(set(whole)) == 50
    assert seen_by(tmp_path / "cut.sqlite", (2, 4, 5)) == whole


def test_what_the_store_holds_counts_and_other_widths_do_not(tmp_path):
    with Store(tmp_path / "s.sqlite", layers=LAYERS, fingerprint={}) as store:
        store.add([[2] * 6, [7] * 6], accuracy(np.array([[2] * 6, [7] * 6])))
        found = search(SPACE, accuracy, evaluations=9, store=store, progress=False)
        assert len(store) == 10
    assert found.evaluations == 9
    assert not (found.frame["a"] == 7).any()


def test_included_policies_come_first():
    seen = []

    def evaluate(rows):
        seen.extend(rows.tolist())
        return accuracy(rows)

    search(SPACE, evaluate, include=[[5, 2, 4, 2, 3, 8]], evaluations=3, batch=2, progress=False)
    assert seen[0] == [5, 2, 4, 2, 3, 8]
    assert len(seen) == 3


@pytest.mark.slow
def test_processes_measure_as_many():
    space = DesignSpace({"conv": (2, 3, 4), "fc1": (2, 3, 4, 5), "fc2": (2, 8)})
    found = search(space, value, evaluations=17, batch=2, engine="processes", workers=2, progress=False)
    assert found.evaluations == 17


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"evaluations": 0}, "evaluations must be at least 1"),
        ({"engine": "process"}, "did you mean 'processes'"),
        ({"metric": "acuracy", "store": True}, "did you mean 'accuracy'"),
        ({"cost_name": "a"}, "already a column"),
        ({"cost": {"a": {2: 1}}}, "cost has no value|cost lacks layer"),
        ({"cost": lambda rows: rows.sum()}, "cost must return 5 finite numbers"),
        ({"include": [[2, 2, 2, 2, 2, 7]]}, "layer 'f' 7 bits"),
    ],
)
def test_wrong_input_is_named(tmp_path, options, message):
    with Store(tmp_path / "s.sqlite", layers=LAYERS, fingerprint={}) as store:
        options = {**options, "store": store} if options.get("store") else options
        with pytest.raises(ValueError, match=message):
            search(SPACE, accuracy, **{"evaluations": 5, "progress": False, **options})


def test_a_store_of_other_layers_is_refused(tmp_path):
    with Store(tmp_path / "s.sqlite", layers=["x"], fingerprint={}) as store, pytest.raises(ValueError, match="layers"):
        search(SPACE, accuracy, store=store)


def test_the_guess_is_the_textbook_formula():
    random = np.random.default_rng(0)
    inputs, values, new = random.random((30, 3)), random.random(30), random.random((5, 3))
    guess = Surrogate(inputs, values)
    lengths, noise = guess.inverse_lengths, guess.noise

    def kernel(left, right):
        return np.exp(-0.5 * (((left[:, None] - right[None]) * lengths) ** 2).sum(axis=2))

    inner = np.linalg.inv(kernel(inputs, inputs) + noise * np.eye(30))
    standard = (values - values.mean()) / values.std()
    variance = standard @ inner @ standard / 30
    across = kernel(new, inputs)
    mean, deviation = guess.predict(new)
    np.testing.assert_allclose(mean, values.mean() + values.std() * across @ inner @ standard, rtol=1e-6)
    left = 1.0 - np.einsum("ij,jk,ik->i", across, inner, across)
    np.testing.assert_allclose(deviation, values.std() * np.sqrt(left * variance), rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6))
def test_expected_gain_is_the_mean_of_added_volumes(seed, steps):
    random = np.random.default_rng(seed)
    costs, values = np.sort(random.random(steps)), np.sort(random.random(steps))
    cost, mean, deviation = random.random(), random.random(), 0.2 * random.random() + 0.01
    gain = expected_gain(np.array([cost]), np.array([mean]), np.array([deviation]), costs, values, 0.0, 1.0)[0]
    # quantiles of the normal instead of draws: no noise
    drawn = pd.Series(np.sort(np.random.default_rng(1).normal(mean, deviation, 4000)))
    old = _area(costs, values)
    added = [_area(np.append(costs, cost), np.append(values, each)) - old for each in drawn[::40]]
    fine = [_area(np.append(costs, cost), np.append(values, each)) - old for each in drawn[20::40]]
    assert abs(gain - np.mean(added + fine)) < 0.15 * deviation + 1e-9


def _area(costs, values):
    points = np.column_stack([values, costs])
    return hypervolume(points, reference=(0.0, 1.0), sense=("max", "min"))


@pytest.mark.filterwarnings("ignore:.*have failed:UserWarning")
def test_failing_policies_do_not_stop_a_search_and_count_as_evaluations(tmp_path):
    space = DesignSpace({"a": (2, 3, 4, 5), "b": (2, 3, 4, 5)})

    def fragile(rows):
        if (rows[:, 0] == 3).any():
            raise ArithmeticError("diverged")
        return np.where(rows[:, 1] == 4, np.nan, rows.sum(axis=1))

    with Store(tmp_path / "s.sqlite", layers=space.names, fingerprint={}) as store:
        found = search(space, fragile, evaluations=10, batch=4, store=store, progress=False)
        assert len(store) + len(store.failures()) == 10
        found = search(space, fragile, evaluations=16, batch=4, store=store, progress=False)
        assert (found.evaluations, found.reason) == (9, "whole space measured")
        assert len(store.failures()) == 7
        found = search(space, lambda rows: rows.sum(axis=1), store=store, retry_failed=True, progress=False)
        assert (found.evaluations, len(store.failures())) == (16, 0)

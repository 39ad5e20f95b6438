from __future__ import annotations

import numpy as np
import pytest

from pareto import DesignSpace, Store, run_campaign
from tests.pareto.evaluators import value

SPACE = DesignSpace({"conv": (2, 3, 4), "fc1": (2, 3, 4, 5), "fc2": (2, 8)})


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "run.sqlite", layers=SPACE.names, fingerprint={"seed": 0}) as opened:
        yield opened


def test_every_policy_once(store):
    seen = []

    def evaluate(policies):
        assert policies.dtype == np.uint8
        seen.extend(map(tuple, policies.tolist()))
        return value(policies)

    frame = run_campaign(SPACE, evaluate, store, engine="serial", unit_rows=5, progress=False)
    assert sorted(seen) == sorted(map(tuple, SPACE.policies().tolist()))
    np.testing.assert_array_equal(frame["accuracy"], value(SPACE.policies()))
    run_campaign(SPACE, evaluate, store, engine="serial", progress=False)
    assert len(seen) == len(SPACE)


def test_units_are_neighbours(store):
    units = []

    def evaluate(policies):
        units.append([SPACE.index(row) for row in policies.tolist()])
        return value(policies)

    run_campaign(SPACE, evaluate, store, engine="serial", unit_rows=8, progress=False)
    assert sorted(units) == [list(range(0, 8)), list(range(8, 16)), list(range(16, 24))]


def test_an_array_of_policies_with_repeats(store):
    rows = np.array([[4, 5, 8], [2, 2, 2], [4, 5, 8]])
    frame = run_campaign(rows, value, store, engine="serial", progress=False)
    assert frame[list(SPACE.names)].to_numpy().tolist() == [[2, 2, 2], [4, 5, 8]]


def test_what_was_done_before_an_error_is_kept(store):
    def evaluate(policies):
        if len(store) >= 10:
            raise ArithmeticError("the model is broken")
        return value(policies)

    with pytest.raises(ArithmeticError):
        run_campaign(SPACE, evaluate, store, engine="serial", unit_rows=2, progress=False)
    assert len(store) == 10
    assert len(run_campaign(SPACE, value, store, engine="serial", progress=False)) == len(SPACE)


def test_the_bar_shows_rate_and_counts(store, capsys):
    run_campaign(SPACE, value, store, engine="serial", unit_rows=5)
    shown = capsys.readouterr().err
    assert "24/24" in shown
    assert "policies/s" in shown


def test_wrong_arguments_are_named(store):
    with pytest.raises(ValueError, match=r"'processes', 'ray', 'serial', got 'serie'; did you mean 'serial'"):
        run_campaign(SPACE, value, store, engine="serie")
    with pytest.raises(ValueError, match="the design space has layers"):
        run_campaign(DesignSpace({"conv": (2,)}), value, store)
    with pytest.raises(ValueError, match="unit_rows must be at least 1"):
        run_campaign(SPACE, value, store, unit_rows=0)
    with pytest.raises(ValueError, match=r"evaluate must return shape \(24, 1\)"):
        run_campaign(SPACE, lambda rows: rows, store, engine="serial", progress=False)


class Fragile:
    """Raises or gives NaN for chosen first widths, and counts what it is asked for."""

    def __init__(self, raises=(), nan=()):
        self.raises, self.nan, self.asked = raises, nan, []

    def __call__(self, rows):
        self.asked.append(len(rows))
        if np.isin(rows[:, 0], self.raises).any():
            raise ArithmeticError("diverged")
        return np.where(np.isin(rows[:, 0], self.nan), np.nan, rows.sum(axis=1))


WIDE = DesignSpace({"a": tuple(range(2, 18)), "b": (2, 3)})


def wide_store(folder):
    return Store(folder / "wide.sqlite", layers=WIDE.names, fingerprint={})


def test_a_failure_is_kept_with_its_reason_and_tried_again_only_when_told(tmp_path):
    options = {"engine": "serial", "unit_rows": 32, "progress": False}
    with wide_store(tmp_path) as store:
        with pytest.warns(UserWarning, match="4 policies have failed and no result"):
            frame = run_campaign(WIDE, Fragile(raises=(5,), nan=(9,)), store, **options)
        assert sorted(set(WIDE.choices["a"]) - set(frame["a"])) == [5, 9]
        assert store.failures()["reason"].tolist() == ["ArithmeticError: diverged"] * 2 + ["accuracy is NaN"] * 2
        whole = Fragile()
        with pytest.warns(UserWarning, match="4 policies have failed"):
            run_campaign(WIDE, whole, store, **options)
        assert whole.asked == []
        assert len(run_campaign(WIDE, whole, store, retry_failed=True, **options)) == len(WIDE)
        assert sum(whole.asked) == 4
        assert store.failures().empty


def test_an_evaluator_that_fails_for_every_policy_ends_the_run(tmp_path):
    options = {"engine": "serial", "unit_rows": 4, "progress": False}
    everything = WIDE.choices["a"]
    with wide_store(tmp_path) as store:
        with pytest.raises(ArithmeticError, match="diverged"):
            run_campaign(WIDE, Fragile(raises=everything), store, **options)
        with pytest.raises(ValueError, match="accuracy is NaN for policy"):
            run_campaign(WIDE, Fragile(nan=everything), store, **options)
        store.forget_failures()
        store.add([[2, 2]], [4.0])
        with pytest.raises(ArithmeticError, match="diverged"):  # one that was measured before fails as well
            run_campaign(WIDE, Fragile(raises=everything), store, **options)
        with pytest.warns(UserWarning, match="policies have failed"):  # it does not: the others are to blame
            run_campaign(WIDE, Fragile(raises=everything[1:]), store, **options)
        assert len(store) == 2
        assert len(store.failures()) == 30

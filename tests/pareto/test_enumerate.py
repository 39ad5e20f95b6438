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
    with pytest.raises(ValueError, match=r"values must have shape \(24, 1\)"):
        run_campaign(SPACE, lambda rows: rows, store, engine="serial", progress=False)

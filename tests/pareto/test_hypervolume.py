from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pareto import hypervolume
from tests import reference_pareto as slow


@pytest.mark.slow
@given(st.integers(1, 6), st.data())
def test_equal_to_counting_cells(objectives, data):
    value = st.integers(-2, 4).map(float)
    rows = data.draw(st.lists(st.lists(value, min_size=objectives, max_size=objectives), max_size=8))
    sense = data.draw(st.lists(st.sampled_from(["max", "min"]), min_size=objectives, max_size=objectives))
    reference = data.draw(st.lists(st.integers(-2, 4), min_size=objectives, max_size=objectives))
    points = np.array(rows, dtype=float).reshape(-1, objectives)
    points.setflags(write=False)
    expected = slow.hypervolume(points, reference, sense)
    assert hypervolume(points, reference=reference, sense=sense) == pytest.approx(expected, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("objectives", [2, 3, 4, 5, 6])
def test_a_staircase_has_a_closed_form(objectives):
    # All points of {0..n}^M with coordinate sum n dominate, up to n + 1, a simplex of unit cells.
    n = 6 if objectives < 5 else 3
    grid = np.array([p for p in np.ndindex(*[n + 1] * objectives) if sum(p) == n], dtype=float)
    cells = math.comb(n + objectives, objectives) - math.comb(n + objectives - 1, objectives)
    above = (n + 1) ** objectives - sum(math.comb(s + objectives - 1, objectives - 1) for s in range(n))
    assert cells == len(grid)
    volume = hypervolume(grid, reference=[n + 1] * objectives, sense=["min"] * objectives)
    assert volume == pytest.approx(above)


@pytest.mark.parametrize(("objectives", "rows"), [(2, 3000), (3, 2000), (4, 1500), (5, 200), (6, 60), (7, 30)])
@pytest.mark.parametrize("kind", ["all efficient", "few efficient", "ties"])
def test_equal_to_moocore(objectives, rows, kind):
    moocore = pytest.importorskip("moocore", reason="moocore is not installed")
    points = np.abs(np.random.default_rng(objectives).standard_normal((rows, objectives)))
    if kind == "all efficient":
        points /= np.linalg.norm(points, axis=1, keepdims=True)
    if kind == "ties":  # some with an edge of no length
        points = np.floor(2 * points)
    ours = hypervolume(points, reference=[0.0] * objectives, sense=["max"] * objectives)
    theirs = moocore.hypervolume(points, ref=[0.0] * objectives, maximise=True)
    assert ours == pytest.approx(theirs, rel=1e-10)


def test_adding_a_point_never_shrinks_it():
    points = np.random.default_rng(2).random((40, 3))
    volumes = [hypervolume(points[:count], reference=[0.9] * 3, sense=["min"] * 3) for count in range(41)]
    # a point that adds nothing may change the order of a sum
    assert all(before <= after + 1e-15 for before, after in itertools.pairwise(volumes))
    assert volumes[0] == 0.0


def test_by_name_and_wrong_references():
    import pandas as pd

    frame = pd.DataFrame({"accuracy": [90.0, 95.0], "energy_pj": [2.0, 5.0]})
    sense = {"energy_pj": "min", "accuracy": "max"}
    assert hypervolume(frame, reference={"energy_pj": 10, "accuracy": 80}, sense=sense) == 105.0
    with pytest.raises(ValueError, match="reference has no value for 'energy_pj'"):
        hypervolume(frame, reference={"accuracy": 80}, sense=sense)
    with pytest.raises(ValueError, match="must have 2 values"):
        hypervolume(frame, reference=(1, 2, 3), sense=sense)
    with pytest.raises(ValueError, match="must be finite"):
        hypervolume(frame, reference=(1, np.inf), sense=sense)
    with pytest.raises(ValueError, match="row 1 is infinite in column 'accuracy'"):
        hypervolume(frame.replace(95.0, np.inf), reference=(80, 10), sense=sense)

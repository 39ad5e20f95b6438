from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pareto import is_efficient, rank
from tests import reference_pareto as slow


@pytest.mark.slow
@given(st.integers(1, 4), st.data())
def test_equal_to_peeling(objectives, data):
    value = st.integers(-3, 3).map(float)
    rows = data.draw(st.lists(st.lists(value, min_size=objectives, max_size=objectives), max_size=25))
    sense = data.draw(st.lists(st.sampled_from(["max", "min"]), min_size=objectives, max_size=objectives))
    points = np.array(rows, dtype=float).reshape(-1, objectives)
    points.setflags(write=False)
    np.testing.assert_array_equal(rank(points, sense=sense), slow.rank(points, sense))


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_rank_zero_is_the_front(objectives):
    points = np.random.default_rng(1).random((3000, objectives))
    sense = ["max", "min", "max", "min"][:objectives]
    np.testing.assert_array_equal(rank(points, sense=sense) == 0, is_efficient(points, sense=sense))


def test_a_chain_has_one_row_a_front():
    points = np.repeat(np.arange(50.0)[:, None], 3, axis=1)
    assert rank(points, sense=["max"] * 3).tolist() == list(range(49, -1, -1))


def test_equal_to_moocore():
    moocore = pytest.importorskip("moocore", reason="moocore is not installed")
    generator = np.random.default_rng(5)
    for objectives in (2, 3):
        points = generator.integers(0, 40, (600, objectives)).astype(float)
        expected = moocore.pareto_rank(points)
        unique, place = np.unique(points, axis=0, return_inverse=True)
        # moocore gives later copies of a row a later front; ours share one, so compare without copies.
        np.testing.assert_array_equal(rank(unique, sense=["min"] * objectives), moocore.pareto_rank(unique))
        np.testing.assert_array_equal(
            rank(points, sense=["min"] * objectives), rank(unique, sense=["min"] * objectives)[place.ravel()]
        )
        assert len(expected) == len(points)


def test_nan_is_refused():
    with pytest.raises(ValueError, match="row 1 is NaN"):
        rank([[1.0, 2.0], [np.nan, 1.0]], sense=("min", "min"))

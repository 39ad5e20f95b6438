from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pareto import frontier, is_efficient
from tests import reference_pareto as slow

values = st.sampled_from([0.0, 1.0, 2.0, 3.0, -1.0, 0.5, float("inf"), float("-inf")])


@pytest.mark.slow
@given(st.integers(1, 5), st.data())
def test_equal_to_the_definition(objectives, data):
    rows = data.draw(st.lists(st.lists(values, min_size=objectives, max_size=objectives), max_size=25))
    sense = data.draw(st.lists(st.sampled_from(["max", "min"]), min_size=objectives, max_size=objectives))
    points = np.array(rows, dtype=float).reshape(-1, objectives)
    before = points.copy()
    points.setflags(write=False)
    mask = is_efficient(points, sense=sense)
    np.testing.assert_array_equal(mask, slow.is_efficient(points, sense))
    np.testing.assert_array_equal(points, before)


def test_ties_follow_the_stated_rule():
    points = [[1, 1], [1, 1], [1, 2], [0, 3], [0, 3], [5, 5]]
    assert is_efficient(points, sense=("min", "min")).tolist() == [True, True, False, True, True, False]
    first = is_efficient(points, sense=("min", "min"), keep="first")
    assert first.tolist() == [True, False, False, True, False, False]


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_nan_is_refused_with_its_row(objectives):
    points = np.zeros((7, objectives))
    points[5, 1] = np.nan
    with pytest.raises(ValueError, match="row 5 is NaN in column '1'"):
        is_efficient(points, sense=["min"] * objectives)
    points[2] = np.inf, *[-np.inf] * (objectives - 1)  # a sum that is NaN without any NaN entry
    points[5, 1] = 0
    assert is_efficient(points, sense=["min"] * objectives).any()


def test_nan_in_a_frame_names_its_column():
    frame = pd.DataFrame({"accuracy": [1.0, np.nan], "energy_pj": [1.0, 2.0]}, index=["a", "b"])
    with pytest.raises(ValueError, match="row 1 is NaN in column 'accuracy'"):
        frontier(frame, sense={"accuracy": "max", "energy_pj": "min"})


def test_front_keeps_labels_and_columns_and_rises():
    frame = pd.DataFrame(
        {"fc": [2, 3, 4, 5], "accuracy": [90, 80, 95, 85], "energy_pj": [5, 4, 9, 6]}, index=list("wxyz")
    )
    front = frontier(frame, sense={"accuracy": "max", "energy_pj": "min"})
    assert front.index.tolist() == ["x", "w", "y"]
    assert list(front.columns) == list(frame.columns)
    assert front.attrs["sense"] == {"accuracy": "max", "energy_pj": "min"}
    assert "sense" not in frame.attrs


@pytest.mark.parametrize(
    ("sense", "error", "words"),
    [
        ("max", TypeError, "sense must be a sequence"),
        (("max",), ValueError, "one entry for each of 2 objectives, it has 1"),
        (("max", "minn"), ValueError, "'minn'; did you mean 'min'"),
        (
            {"accuracy": "max", "energy": "min"},
            ValueError,
            "'energy', which is not an objective; did you mean 'energy_pj'",
        ),
        ({"accuracy": "max"}, ValueError, "does not say 'max' or 'min' for 'energy_pj'"),
    ],
)
def test_sense_is_explicit_and_checked(sense, error, words):
    frame = pd.DataFrame({"accuracy": [1.0], "energy_pj": [1.0]})
    with pytest.raises(error, match=words):
        is_efficient(frame, sense=sense)


def test_values_that_cannot_be_compared_are_refused():
    with pytest.raises(TypeError, match="column 'a' must hold numbers"):
        is_efficient(pd.DataFrame({"a": ["x"], "b": [1]}), sense=("min", "min"))
    with pytest.raises(ValueError, match=r"beyond 2\*\*53"):
        is_efficient(np.array([[2**60, 1]]), sense=("min", "min"))
    with pytest.raises(ValueError, match=r"shape \(rows, objectives\), got shape \(3,\)"):
        is_efficient([1, 2, 3], sense=("min",))
    with pytest.raises(ValueError, match="column 'energy', which the frame lacks; did you mean 'energy_pj'"):
        frontier(pd.DataFrame({"energy_pj": [1]}), sense={"energy": "min"})


def test_the_empty_set_has_an_empty_front():
    for objectives in (1, 2, 3, 4):
        assert is_efficient(np.empty((0, objectives)), sense=["max"] * objectives).shape == (0,)

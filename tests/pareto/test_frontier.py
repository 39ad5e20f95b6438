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
    with pytest.raises(TypeError, match="column 'a' must hold real numbers"):
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


def test_tables_of_other_libraries_are_taken():
    columns, sense = {"accuracy": [95, 80, 90], "energy_pj": [9, 3, 3]}, {"accuracy": "max", "energy_pj": "min"}
    expected = frontier(pd.DataFrame(columns), sense=sense)
    place = {"__module__": "polars.dataframe.frame"}  # no dependency: a stand-in with the two things that are used
    values = {"columns": list(columns), "__getitem__": lambda _self, name: pd.Series(columns[name])}
    pd.testing.assert_frame_equal(frontier(type("DataFrame", (), place | values)(), sense=sense), expected)
    with pytest.raises(TypeError, match=r"collect\(\) it first"):
        frontier(type("LazyFrame", (), place)(), sense=sense)
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    table = arrow.table(columns)
    pd.testing.assert_frame_equal(frontier(table, sense=sense), expected)
    assert is_efficient(table, sense=("max", "min")).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("points", "error", "words"),
    [
        (np.ma.masked_array([[1.0, 2.0], [3.0, 4.0]], mask=[[0, 0], [1, 0]]), ValueError, "row 1 is masked"),
        (np.array([[1 + 2j, 3.0]]), TypeError, "must hold real numbers, its dtype is complex128"),
        (pd.DataFrame({"a": [1 + 2j], "b": [1.0]}), TypeError, "column 'a' must hold real numbers"),
        (np.array([[2**53 + 1, 1]], dtype=object), ValueError, r"beyond 2\*\*53"),
        (pd.DataFrame({"a": [2**53 + 1], "b": [0.5]}), ValueError, r"column 'a' holds integers beyond 2\*\*53"),
        (
            pd.DataFrame({"a": pd.array([1, None], dtype="Int64"), "b": [1, 2]}),
            ValueError,
            "row 1 is NaN in column 'a'",
        ),
    ],
)
def test_what_a_conversion_would_change_is_refused(points, error, words):
    with pytest.raises(error, match=words):
        is_efficient(points, sense=("max", "min"))


def test_senses_in_full_words_are_hinted():
    with pytest.raises(ValueError, match="got 'maximize'; did you mean 'max'"):
        is_efficient([[1.0, 2.0]], sense=("maximize", "min"))
    with pytest.raises(ValueError, match="got 'Minimise'; did you mean 'min'"):
        is_efficient([[1.0, 2.0]], sense=("max", "Minimise"))

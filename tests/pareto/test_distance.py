from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pareto import distance, frontier
from tests import reference_pareto as slow


@pytest.mark.slow
@given(st.integers(1, 3), st.data())
def test_equal_to_the_definition(objectives, data):
    row = st.lists(st.integers(-3, 3).map(float), min_size=objectives, max_size=objectives)
    points = np.array(data.draw(st.lists(row, min_size=1, max_size=10)))
    front = np.array(data.draw(st.lists(row, min_size=1, max_size=10)))
    sense = data.draw(st.lists(st.sampled_from(["max", "min"]), min_size=objectives, max_size=objectives))
    points.setflags(write=False)
    front.setflags(write=False)
    np.testing.assert_array_equal(distance(points, front, sense=sense), slow.distance(points, front, sense))


def test_gap_of_a_frame_by_name():
    frame = pd.DataFrame(
        {"energy_pj": [2.0, 5.0, 6.0], "accuracy": [90.0, 95.0, 91.0], "fc": [2, 8, 4]}, index=list("abc")
    )
    sense = {"accuracy": "max", "energy_pj": "min"}
    gaps = distance(frame, frontier(frame, sense=sense), sense=sense)
    assert gaps.loc["a"].tolist() == [0.0, 0.0]
    assert gaps.loc["c"].to_dict() == {"accuracy": 4.0, "energy_pj": 1.0}
    beyond = pd.DataFrame({"accuracy": [94.0], "energy_pj": [4.0]})
    assert distance(beyond, frame, sense=sense).iloc[0].to_dict() == {"accuracy": -4.0, "energy_pj": -1.0}


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"front must have shape \(at least 1, 2\), got \(0, 2\)"):
        distance([[1.0, 2.0]], np.empty((0, 2)), sense=("min", "min"))
    with pytest.raises(ValueError, match="front: row 0 is NaN"):
        distance([[1.0, 2.0]], [[np.nan, 1.0]], sense=("min", "min"))
    with pytest.raises(TypeError, match="points must be a frame when sense goes by name"):
        distance([[1.0, 2.0]], [[1.0, 1.0]], sense={"a": "min", "b": "min"})

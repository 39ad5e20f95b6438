from __future__ import annotations

import pandas as pd
import pytest

from pareto import DesignSpace, frontier, plot_data

SENSE = {"accuracy": "max", "energy_pj": "min"}


@pytest.fixture
def frame():
    return DesignSpace({"conv": (2, 3), "fc": (2, 3)}).frame(
        accuracy=[50.0, 80.0, 79.0, 90.0], energy_pj=[1.0, 2.0, 3.0, 4.0]
    )


def rows(data, *kinds):
    part = data[data["kind"].isin(kinds)]
    return part[["kind", "label", "x", "y", "efficient"]].to_numpy().tolist()


def test_every_point_is_in_the_frame(frame):
    front = frontier(frame, sense=SENSE)
    ours = {"conv": 3, "fc": 2}
    data = plot_data(frame, front, mark={"ours": ours, "rival": {"accuracy": 95, "energy_pj": 3.5}}, budgets=[3.5])
    assert data.attrs["x"] == "energy_pj"
    assert data.attrs["layers"] == ["conv", "fc"]
    assert rows(data, "front") == [
        ["front", "", 1.0, 50.0, True],
        ["front", "", 2.0, 80.0, True],
        ["front", "", 4.0, 90.0, True],
    ]
    assert rows(data, "uniform", "mark", "budget best") == [
        ["uniform", "2 bits", 1.0, 50.0, True],
        ["uniform", "3 bits", 4.0, 90.0, True],
        ["mark", "ours", 3.0, 79.0, False],
        ["mark", "rival", 3.5, 95.0, True],
        ["budget best", "3.5", 2.0, 80.0, True],
    ]
    assert data[data["kind"] == "policy"]["row"].tolist() == [0, 1, 2, 3]
    assert data[data["kind"] == "budget"]["x"].tolist() == [3.5]


def test_axes_can_be_chosen_among_three_objectives(frame):
    frame["cycles"] = [4, 3, 2, 1]
    front = frontier(frame, sense=SENSE | {"cycles": "min"})
    assert plot_data(frame, front).attrs["x"] == "energy_pj"
    assert plot_data(frame, front, x="cycles").attrs["x"] == "cycles"
    both = plot_data(frame, front, x="cycles", y="energy_pj")
    assert both.attrs["y"] == "energy_pj"
    with pytest.raises(ValueError, match="x='cycle' is not an objective; did you mean 'cycles'"):
        plot_data(frame, front, x="cycle")


def test_a_front_read_from_a_file_needs_its_sense(frame):
    front = pd.DataFrame(frontier(frame, sense=SENSE).to_dict())
    with pytest.raises(ValueError, match="front does not say which objectives"):
        plot_data(frame, front)
    assert len(plot_data(frame, front, sense=SENSE)) == 4 + 3 + 2


def test_policies_that_are_not_there_are_named(frame):
    front = frontier(frame, sense=SENSE)
    with pytest.raises(ValueError, match=r"'ours'.* is not among the 4 policies"):
        plot_data(frame, front, mark={"ours": {"conv": 8, "fc": 2}})
    with pytest.raises(ValueError, match="names layer 'con', not a column; did you mean 'conv'"):
        plot_data(frame, front, mark={"ours": {"con": 2, "fc": 2}})
    with pytest.raises(ValueError, match="matches 2 rows with different values"):
        plot_data(frame, front, mark={"ours": {"conv": 2}})
    with pytest.raises(ValueError, match=r"budget 0.5: no front point has 'energy_pj' within it; the front spans 1..4"):
        plot_data(frame, front, budgets=[0.5])

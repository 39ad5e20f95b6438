from __future__ import annotations

import pytest

from stripes_sim import LayerShape, Stripes, explore
from stripes_sim.energy import area_mm2
from stripes_sim.explore import DEFAULT_GRID

NET = [
    LayerShape(name="a", kind="conv", in_channels=64, out_channels=64, kernel_size=3, input_size=(14, 14), padding=1),
    LayerShape(name="b", kind="linear", in_channels=512, out_channels=100),
]


def test_each_row_is_a_run_on_that_machine():
    frame = explore(NET, [{"a": 3, "b": 5}, 8], {"tiles": (1, 4), "rows": (8, 16)}, activation_bits=8)
    assert len(frame) == 8
    for row in frame.to_dict("records"):
        hw = Stripes(tiles=row["tiles"], rows=row["rows"])
        result = hw.run(NET, {"a": 3, "b": 5} if row["policy"] == "policy 0" else 8, 8)
        assert row["cycles"] == result.cycles
        assert row["energy_pj"] == result.energy_pj
        assert row["utilisation"] == result.utilisation
        assert row["area_mm2"] == area_mm2(hw)["total"]
        assert row["bound"] in ("compute", "weight buffer", "activation buffer", "DRAM")
    assert frame["utilisation"].between(0, 1).all()


def test_policies_are_labelled():
    grid = {"tiles": (1,)}
    assert explore(NET, 4, grid)["policy"].tolist() == ["4 bits"]
    assert explore(NET, {"a": 3, "b": 5}, grid)["policy"].tolist() == ["policy"]
    assert explore(NET, {"learned": {"a": 3, "b": 5}, "uniform": 8}, grid)["policy"].tolist() == ["learned", "uniform"]


def test_the_default_grid_is_swept_from_the_given_machine():
    frame = explore(NET[:1], 4, hardware=Stripes(name="mine", dram="hbm2"))
    expected = 1
    for values in DEFAULT_GRID.values():
        expected *= len(values)
    assert len(frame) == expected


def test_bad_grids_and_policies_are_named():
    with pytest.raises(ValueError, match="grid sweeps 'tile', which is no hardware parameter; did you mean 'tiles'"):
        explore(NET, 4, {"tile": (1, 2)})
    with pytest.raises(ValueError, match=r"grid\['tiles'\] must be a list of values, but it is 3"):
        explore(NET, 4, {"tiles": 3})
    with pytest.raises(ValueError, match="tiles must be more than 0 tiles"):
        explore(NET, 4, {"tiles": (0,)})
    with pytest.raises(ValueError, match="policies is empty"):
        explore(NET, [], {"tiles": (1,)})
    with pytest.raises(ValueError, match="names 'c', which is no layer"):
        explore(NET, {"a": 3, "c": 4}, {"tiles": (1,)})

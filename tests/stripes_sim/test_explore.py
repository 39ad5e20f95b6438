from __future__ import annotations

import pandas as pd
import pytest

from benchmarks._networks import convolutional_layers
from stripes_sim import BitFusion, DaDianNao, LayerShape, Loom, Stripes, explore
from stripes_sim.energy import area_mm2
from stripes_sim.explore import DEFAULT_GRID
from tests import reference_stripes as slow

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


GRIDS = {
    "numbers of every kind": (
        Stripes(),
        {
            "tiles": (1, 3),
            "rows": (8, 20),
            "columns": (5, 16),
            "lanes": (4, 16),
            "pe_width_bits": (8, 16),
            "activation_buffer_bytes": (2**12, 2**20),
            "weight_buffer_bytes": (2**14, 2**22),
        },
    ),
    "memory and technology": (
        Stripes(serial="activations"),
        {
            "buffer_bank_bytes": (64, 3000, 2**16),
            "dram_bytes_per_s": (1e9, 5e10),
            "weight_buffer_bits_per_cycle": (64, 4096),
            "activation_buffer_bits_per_cycle": (64, 4096),
            "node_nm": (28, 45.5),
            "supply_v": (0.8, 0.9),
            "clock_hz": (1e8, 1e9),
        },
    ),
    "words and switches": (
        DaDianNao(),
        {
            "storage": ("packed", "padded"),
            "data_width_bits": (8, 16),
            "resident_weights": (True, False),
            "dram": ("lpddr4", "hbm2"),
            "compat": (None, "dnnsim"),
            "buffer_banks": (16, 256),
            "buffer_bank_width_bits": (32, 256),
        },
    ),
    "both operands": (Loom(), {"serial_bits": (1, 2, 4), "rows": (16, 256), "space_to_depth": (True, False)}),
    "units": (BitFusion(), {"pe_width_bits": (2, 8, 16), "lanes": (3, 16), "columns": (1, 4), "rows": (5, 32)}),
    "ways of computing": (
        Stripes(),
        {"serial": ("weights", "activations", "both", "none", "spatial"), "tiles": (1, 4)},
    ),
}


SLOW = ("numbers of every kind", "memory and technology", "words and switches")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in GRIDS]
)
def test_machines_side_by_side_cost_what_one_run_after_the_other_costs(name):
    base, grid = GRIDS[name]
    layers, bits = convolutional_layers("AlexNet")
    layers = [*layers, NET[1], LayerShape(name="s", kind="matmul", in_channels=8, out_channels=9, tokens=7, copies=3)]
    policy = {**bits, "b": 3}
    frame = explore(layers, policy, grid, hardware=base)
    rows = slow.explored(layers, policy, base, grid)
    assert len(frame) == len(rows)
    for key in rows[0]:
        values = [row[key] for row in rows]
        assert frame[key].equals(pd.Series(values, name=key)) if key in grid else frame[key].tolist() == values, key


def test_one_impossible_machine_among_many_is_named():
    with pytest.raises(
        ValueError, match=r"layer 'a': 16-bit activations need more than one PE of 8 bits .* columns=1;"
    ):
        explore(NET, 4, {"columns": (4, 1, 2), "pe_width_bits": (8, 16)})
    with pytest.raises(ValueError, match="at least 2 bits wide, but pe_width_bits=1"):
        explore(NET, 4, {"pe_width_bits": (8, 1)}, hardware=BitFusion())

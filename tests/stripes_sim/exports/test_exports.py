"""Files for other simulators: against the rules of their parsers, and through their real parsers where installed."""

from __future__ import annotations

import csv
import io
import json
import re
from math import prod
from pathlib import Path

import pytest

from stripes_sim import LayerShape, Stripes, export_workload
from stripes_sim.constants import CONSTANTS
from stripes_sim.exports.nests import nests, spread
from stripes_sim.exports.yaml_text import yaml_text

NET = [
    LayerShape(
        name="first", kind="conv", in_channels=3, out_channels=20, kernel_size=(5, 3), input_size=(31, 17), stride=2
    ),
    LayerShape(
        name="convDP",
        kind="conv",
        in_channels=8,
        out_channels=36,
        kernel_size=3,
        input_size=(7, 7),
        padding=1,
        groups=4,
    ),
    LayerShape(
        name="along", kind="conv", in_channels=6, out_channels=5, kernel_size=(3,), input_size=(11,), padding=(2,)
    ),
    LayerShape(name="table", kind="embedding", in_channels=50, out_channels=8, tokens=3),
    LayerShape(name="scores", kind="matmul", in_channels=16, out_channels=9, tokens=9, copies=4),
    LayerShape(name="experts", kind="linear", in_channels=24, out_channels=10, tokens=2, copies=6, matrices=3),
    LayerShape(name="fc", kind="linear", in_channels=50, out_channels=37, tokens=5),
]
RESULT = Stripes(tiles=2).run(NET, 4, 8, batch=2)


def test_nests_multiply_as_often_as_the_layers() -> None:
    found, idle = nests(RESULT)
    assert idle == ["table"]
    assert [nest.macs for nest in found] == [2 * layer.macs for layer in NET if layer.macs]


def test_the_spread_is_the_tile_and_its_rectangle_of_windows_needs_the_fewest_sets() -> None:
    square = spread(nests(Stripes().run([NET[1]], 4))[0][0], Stripes())
    assert (square.lanes, square.rows, square.tiles) == (2, 9, 1)
    # 7 x 7 windows on 16 columns: 2 x 7 take 4 sets, as 49 / 16 do
    assert sorted((square.columns_p, square.columns_q)) == [2, 7]


def test_three_axes_and_transposed_layers_are_refused(tmp_path: Path) -> None:
    deep = LayerShape(
        name="deep", kind="conv", in_channels=1, out_channels=1, kernel_size=(1, 1, 1), input_size=(2, 2, 2)
    )
    with pytest.raises(ValueError, match="layer 'deep': a 3-dimensional convolution"):
        export_workload(Stripes().run([deep], 4), tmp_path, to="zigzag")
    up = LayerShape(name="up", kind="conv_transpose", in_channels=1, out_channels=1, kernel_size=2, input_size=(2, 2))
    with pytest.raises(ValueError, match="layer 'up': a transposed convolution"):
        export_workload(Stripes().run([up], 4), tmp_path, to="scalesim")
    with pytest.raises(ValueError, match="did you mean 'timeloop'"):
        export_workload(RESULT, tmp_path, to="timelop")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------- SCALE-Sim


def test_scalesim_counts_our_products(tmp_path: Path) -> None:
    made = export_workload(RESULT, tmp_path, to="scalesim")
    assert made.left_out == ("table",)
    total = 0
    for line in (tmp_path / "topology.csv").read_text().splitlines()[1:]:
        name, *cells, end = (cell.strip() for cell in line.split(","))
        assert end == ""
        assert "DP" not in name
        height, width, kernel, across, channels, filters, stride = map(int, cells)
        # as its topology_utils.py counts
        places = prod(-(-(size - k + stride) // stride) for size, k in ((height, kernel), (width, across)))
        total += places * kernel * across * channels * filters
    assert total == 2 * sum(layer.macs for layer in NET)


def test_scalesim_has_no_dilation(tmp_path: Path) -> None:
    wide = LayerShape(
        name="wide", kind="conv", in_channels=1, out_channels=1, kernel_size=3, input_size=(9, 9), dilation=2
    )
    with pytest.raises(ValueError, match=re.escape("layer 'wide': SCALE-Sim has no dilation")):
        export_workload(Stripes().run([wide], 4), tmp_path, to="scalesim")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # it leaves its file open
def test_scalesim_reads_it(tmp_path: Path) -> None:
    topologies = pytest.importorskip("scalesim.topology_utils", reason="needs scalesim").topologies
    export_workload(RESULT, tmp_path, to="scalesim")
    read = topologies()
    read.load_arrays(str(tmp_path / "topology.csv"))
    read.topo_calc_hyperparams()
    assert sum(row[2] for row in read.layers_calculated_hyperparams) == 2 * sum(layer.macs for layer in NET)


# ---------------------------------------------------------------------- Timeloop


@pytest.mark.slow
def test_timeloop_factors_multiply_up_as_its_parser_wants(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml", reason="needs PyYAML")
    made = export_workload(RESULT, tmp_path, to="timeloop")
    assert len(made.files) == len(NET) - 1
    for file, nest in zip(made.files, nests(RESULT)[0], strict=True):
        data = yaml.safe_load((tmp_path / file).read_text())
        assert data["problem"]["instance"].items() >= nest.sizes.items()
        levels = {entry["name"].partition("[")[0]: entry for entry in data["architecture"]["subtree"][0]["local"]}
        loops = [directive for directive in data["mapping"] if directive["type"] != "datatype"]
        # mapping/parser.cpp: (((res3 - 1) * P2 + (res2 - 1)) * P1 + ...) + 1 is the size of the dimension
        product = dict.fromkeys(nest.sizes, 0)
        spatial: dict[str, int] = {}
        for directive in loops:
            assert directive["target"] in levels
            assert sorted(directive["permutation"]) == sorted(nest.sizes)
            for key, end, _, rest in re.findall(r"([A-Z])=(\d+)(,(\d+))?", directive["factors"]):
                product[key] = product[key] * int(end) + int(rest or end) - 1
                if directive["type"] == "spatial":
                    spatial[key] = int(end)
        assert {key: value + 1 for key, value in product.items()} == dict(nest.sizes)
        accumulators = levels["accumulator"]["attributes"]
        assert spatial["P"] * spatial["Q"] <= accumulators["meshX"] == 16
        assert spatial["M"] <= accumulators["meshY"] == 32
        assert spatial["C"] <= 16


# ---------------------------------------------------------------------- ZigZag

CASE = [
    LayerShape(name="c1", kind="conv", in_channels=16, out_channels=32, kernel_size=3, input_size=(8, 8), padding=1),
    LayerShape(name="fc", kind="linear", in_channels=128, out_channels=10),
]


def test_zigzag_equation_and_precision(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml", reason="needs PyYAML")
    export_workload(RESULT, tmp_path, to="zigzag")
    layers = yaml.safe_load((tmp_path / "workload.yaml").read_text())
    assert [prod(layer["loop_sizes"]) for layer in layers] == [2 * layer.macs for layer in NET if layer.macs]
    first = dict(zip(layers[0]["loop_dims"], layers[0]["loop_sizes"], strict=True))
    assert first == {"B": 2, "G": 1, "K": 20, "C": 3, "OY": 14, "OX": 8, "FY": 5, "FX": 3}
    assert layers[0]["dimension_relations"] == ["ix=2*ox+1*fx", "iy=2*oy+1*fy"]
    assert layers[0]["operand_precision"] == {"W": 4, "I": 8, "O": 32, "O_final": 8}
    # a product of two activations has its second operand at activation bits
    assert layers[3]["operand_precision"]["W"] == 8


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of its own dependencies
def test_zigzag_runs_it_and_counts_our_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api = pytest.importorskip("zigzag.api", reason="needs zigzag-dse")
    result = Stripes().run(CASE, 4, 8)
    export_workload(result, tmp_path, to="zigzag")
    monkeypatch.chdir(tmp_path)
    *_, evaluated = api.get_hardware_performance_zigzag(
        "workload.yaml",
        "accelerator.yaml",
        "mapping.yaml",
        dump_folder="out",
        lpf_limit=4,
        loma_show_progress_bar=False,
    )
    costs = {cost.layer.name: cost for cost, *_ in evaluated[0][1]}
    assert {name: cost.layer.total_mac_count for name, cost in costs.items()} == {each.name: each.macs for each in CASE}
    # its unit does a whole product in a cycle, ours one bit of it
    assert costs["c1"].ideal_temporal_cycle == result.frame["compute_cycles"][0] / 4


# ---------------------------------------------------------------------- Accelergy


def test_accelergy_rows_are_the_constants(tmp_path: Path) -> None:
    export_workload(RESULT, tmp_path, to="accelergy")
    rows = {
        file.stem: list(csv.DictReader(io.StringIO(file.read_text()))) for file in (tmp_path / "data").glob("*.csv")
    }
    # as the plug-in's walk_csv looks a component up
    bank = next(row for row in rows["SRAM"] if (row["depth"], row["action"]) == ("1024", "read"))
    assert float(bank["energy"]) == pytest.approx(4 * CONSTANTS["sram_read_4096"].value)
    assert {row["type"] for row in rows["DRAM"]} == {"LPDDR4", "DDR3", "HBM2"}
    eight = next(row for row in rows["intmultiplier"] if row["datawidth"] == "8")
    assert float(eight["energy"]) == pytest.approx(0.2)  # Horowitz's 8-bit multiplication, pJ
    assert float(rows["fusion_unit"][0]["area"]) == pytest.approx(1733.13)  # um2
    assert "path_to_data_dir" in (tmp_path / "stripes_sim.table.yaml").read_text()


# ---------------------------------------------------------------------- YAML


def test_yaml_is_read_as_it_was_meant() -> None:
    yaml = pytest.importorskip("yaml", reason="needs PyYAML")
    data = {
        "text": "a: b # no\n- c",
        "number": 1.5,
        "truth": True,
        "nested": [{"x": [1, 2], "y": {"z": "07"}}, {"x": []}],
        "deep": [[["a"]], [["b", "c"]]],
        "none": {},
    }
    assert yaml.safe_load(yaml_text(data)) == data
    assert json.loads(yaml_text([1, "a"])) == [1, "a"]

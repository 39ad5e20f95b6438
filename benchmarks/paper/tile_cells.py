"""A serial PE's size by yosys beside the area model: transistors of a lane by width and lanes, and the model's mm2.

Needs yosys. Its estimate (``stat -tech cmos``) counts gates and no flip-flops; these are counted with 24 transistors
each, which is ours. Ratios are what can be compared: the model has one constant, from a recalled tile, times the width.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from importlib import resources

import pandas as pd

from benchmarks._report import write_json
from stripes_sim import Stripes
from stripes_sim.energy import area_mm2

FLIP_FLOP = 24  # transistors
SHAPES = tuple((width, lanes) for width in (4, 8, 16) for lanes in (8, 16))


def synthesised(width: int, lanes: int, accumulator: int = 32) -> dict[str, int]:
    """Cells, flip-flops and transistors of one PE.

    Raises:
        ValueError: yosys is not installed.
    """
    if shutil.which("yosys") is None:
        raise ValueError("yosys is not installed (Debian and Ubuntu: apt-get install yosys)")
    with resources.as_file(resources.files("stripes_sim.rtl") / "pe.v") as source:
        script = (
            f"read_verilog -sv {source}; chparam -set LANES {lanes} -set WIDTH {width} -set SUM {accumulator} pe; "
            "synth -top pe; abc -g cmos; stat -tech cmos"
        )
        text = subprocess.run(["yosys", "-p", script], capture_output=True, text=True, check=True).stdout
    last = text[text.rindex("Number of cells") :]
    cells = int(re.findall(r"Number of cells:\s+(\d+)", last)[0])
    flops = sum(int(count) for count in re.findall(r"\$_S?DFFE?_\w+\s+(\d+)", last))
    gates = int(re.findall(r"Estimated number of transistors:\s+(\d+)", last)[0])
    return {"cells": cells, "flip_flops": flops, "transistors": gates + FLIP_FLOP * flops}


def table() -> pd.DataFrame:
    """One row a shape; ``model_um2`` is the area model's lane at 65 nm, ratios are to the 16-bit PE of 16 lanes."""
    rows = []
    for width, lanes in SHAPES:
        found = synthesised(width, lanes)
        hw = Stripes(lanes=lanes, pe_width_bits=width, node_nm=65)
        rows.append(
            {
                "width": width,
                "lanes": lanes,
                **found,
                "transistors_per_lane": found["transistors"] / lanes,
                "model_um2_per_lane": area_mm2(hw)["array"] * 1e6 / hw.lane_count,
            }
        )
    frame = pd.DataFrame(rows)
    full = frame[(frame.width == 16) & (frame.lanes == 16)].iloc[0]
    frame["yosys_ratio"] = frame.transistors_per_lane / full.transistors_per_lane
    frame["model_ratio"] = frame.model_um2_per_lane / full.model_um2_per_lane
    return frame


def main(argv: list[str]) -> int:
    """Synthesise, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks tile_cells", description=__doc__)
    parser.add_argument("--json", help="where to write the rows")
    args = parser.parse_args(argv)
    frame = table()
    print(frame.round(2).to_string(index=False))
    if args.json:
        write_json(args.json, {"rows": frame.to_dict("records")})
    return 0

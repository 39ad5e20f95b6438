"""What an access costs, what a machine's area is and what it leaks; the constants behind are in `CONSTANTS`.

Energy of a multiply-accumulate and area of the array depend on the way of computing: `stripes_sim.dataflows`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from stripes_sim.constants import BASE_NODE_NM, BASE_SUPPLY_V, CONSTANTS, Constant, scale_area, scale_energy
from stripes_sim.dataflows import dataflow_named
from stripes_sim.parameters import Parameters

__all__ = ["CONSTANTS", "Constant", "area_mm2", "buffer_pj_per_bit", "dram_pj_per_bit", "leakage_w"]


def buffer_pj_per_bit(hw: Parameters, access: Literal["read", "write"]) -> np.float64:
    """Energy of one bit of an on-chip buffer, by the size of its banks.

    Linear between the sizes of the CACTI sweep on logarithmic axes; beyond 16 KiB it grows with the square root of
    the size (bit and word lines), which is ours.
    """
    known = {int(key.rsplit("_", 1)[1]): c.value for key, c in CONSTANTS.items() if key.startswith(f"sram_{access}_")}
    sizes, values = np.array(list(known), dtype=float), np.array(list(known.values()))
    size = np.maximum(hw.buffer_bank_bytes, sizes[0])
    per_byte = np.exp(np.interp(np.log(size), np.log(sizes), np.log(values)))
    found: np.float64 = per_byte * np.sqrt(np.maximum(1.0, size / sizes[-1])) / 8 * scale_energy(hw)
    return found


def dram_pj_per_bit(hw: Parameters) -> float:
    """Off-chip energy of the machine's DRAM technology."""
    return CONSTANTS[f"dram_{hw.dram}"].value


def area_mm2(hw: Parameters) -> dict[str, float]:
    """Area by part, square millimetres at the machine's node; every constant behind it is assumed (see CONSTANTS)."""
    mebibytes = (hw.weight_buffer_bytes + hw.activation_buffer_bytes + hw.output_buffer_bytes) / 2**20
    buffers = CONSTANTS["area_buffer"]
    array = dataflow_named(hw.serial).array_mm2(hw)
    memory = mebibytes * buffers.value * scale_area(hw, buffers.node_nm or BASE_NODE_NM)
    return {"array": array, "buffers": memory, "total": array + memory}


def leakage_w(hw: Parameters) -> float:
    """Static power: a density over the area, both at the constant's node, scaled with node and supply."""
    density = CONSTANTS["leakage_density"]
    node = density.node_nm or BASE_NODE_NM
    area_there = area_mm2(hw)["total"] / scale_area(hw, node)
    return density.value * area_there * hw.node_nm / node * hw.supply_v / BASE_SUPPLY_V

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

_LARGEST_BANK = 16384  # bytes, of the CACTI sweep


def buffer_pj_per_bit(hw: Parameters, access: Literal["read", "write"]) -> np.float64:
    """Energy of one bit of an on-chip buffer, by the size of its banks.

    Linear between the sizes of the CACTI sweep on logarithmic axes; beyond 16 KiB it grows with the square root of
    the size (bit and word lines), which is ours.
    """
    size, per_byte = _by_bank_size(hw, access)
    found: np.float64 = per_byte * np.sqrt(np.maximum(1.0, size / _LARGEST_BANK)) / 8 * scale_energy(hw)
    return found


def _by_bank_size(hw: Parameters, what: str) -> tuple[np.float64, np.float64]:
    """Bytes of a bank, at least the sweep's smallest, and what the sweep says of it."""
    known = {int(key.rsplit("_", 1)[1]): c.value for key, c in CONSTANTS.items() if key.startswith(f"sram_{what}_")}
    sizes, values = np.array(list(known), dtype=float), np.array(list(known.values()))
    size = np.maximum(hw.buffer_bank_bytes, sizes[0])
    return size, np.exp(np.interp(np.log(size), np.log(sizes), np.log(values)))


def dram_pj_per_bit(hw: Parameters) -> float:
    """Off-chip energy of the machine's DRAM technology."""
    return CONSTANTS[f"dram_{hw.dram}"].value


def area_mm2(hw: Parameters) -> dict[str, float]:
    """Area by part, square millimetres at the machine's node; every constant behind it is assumed (see CONSTANTS)."""
    buffers = CONSTANTS["area_buffer"]
    array = dataflow_named(hw.serial).array_mm2(hw)
    memory = _buffer_bytes(hw) / 2**20 * buffers.value * scale_area(hw, buffers.node_nm or BASE_NODE_NM)
    return {"array": array, "buffers": memory, "total": array + memory}


def _buffer_bytes(hw: Parameters) -> int:
    return hw.weight_buffer_bytes + hw.activation_buffer_bytes + hw.output_buffer_bytes


def leakage_w(hw: Parameters) -> float:
    """Static power, scaled with node and supply, by what ``hw.leakage`` says.

    ``"density"``: one assumed density over the whole area. ``"measured"``: a synthesis' density over the array, and the
    CACTI sweep's leakage of every bank of SRAM; beyond its largest bank in proportion to the size. ``"off"``: none.
    """
    if hw.leakage == "off":
        return 0.0
    area = area_mm2(hw)
    density = CONSTANTS["leakage_density" if hw.leakage == "density" else "leakage_logic"]
    node = density.node_nm or BASE_NODE_NM
    leaking = area["total" if hw.leakage == "density" else "array"] / scale_area(hw, node)
    power = density.value * leaking * hw.node_nm / node
    if hw.leakage == "measured":
        size, bank_mw = _by_bank_size(hw, "leakage")
        # a part of a bank leaks as that part
        per_byte = bank_mw / np.minimum(size, _LARGEST_BANK) * 1e-3
        power = power + _buffer_bytes(hw) * per_byte * hw.node_nm / BASE_NODE_NM
    return power * hw.supply_v / BASE_SUPPLY_V

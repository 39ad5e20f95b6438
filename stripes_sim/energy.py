"""Every energy and area constant, with its unit, node, source and standing; and what a layer's work costs.

``status`` says how far a number can be trusted: "measured" (synthesis or circuit simulation, read in the named
source), "published" (printed in the named paper or file), "assumed" (ours, or recalled without the source at hand).
All constants are for 45 nm and 0.9 V unless ``node_nm`` says otherwise; `scale_energy` and `scale_area` move them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from stripes_sim.hardware import Accelerator

__all__ = ["CONSTANTS", "Constant", "area_mm2", "leakage_w"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Constant:
    """One number with everything needed to judge it."""

    what: str
    value: float
    unit: str
    node_nm: int | None
    source: str
    status: Literal["measured", "published", "assumed"]


_HOROWITZ = "fit to Horowitz, ISSCC 2014, as in QKeras qtools/config_public.py"
_CACTI = "CACTI 7 sweep (RAM, 1R1W, 4-byte block, itrs-hp), BitFusion sram/cacti_sweep.csv"
_SYNTHESIS = "BitFusion results/systolic_array_synth.csv, 500 MHz"
_PRAGMATIC = "Table III of Bit-Pragmatic, MICRO 2017, recalled: low confidence"
_DRAM = "accelergy-cacti-plug-in cacti_wrapper.py"


def _sram(what: str, values: tuple[float, ...], unit: str) -> dict[str, Constant]:
    sizes = (128, 1024, 2048, 4096, 8192, 16384)
    return {
        f"sram_{what}_{size}": Constant(
            what=f"SRAM bank of {size} bytes, {what}",
            value=value,
            unit=unit,
            node_nm=45,
            source=_CACTI,
            status="measured",
        )
        for size, value in zip(sizes, values, strict=True)
    }


CONSTANTS: dict[str, Constant] = {
    "add_per_bit": Constant(
        what="n-bit addition, per bit", value=0.003125, unit="pJ/bit", node_nm=45, source=_HOROWITZ, status="published"
    ),
    "multiply_square": Constant(
        what="n-bit multiplication, quadratic term",
        value=0.002994791667,
        unit="pJ/bit^2",
        node_nm=45,
        source=_HOROWITZ,
        status="published",
    ),
    "multiply_linear": Constant(
        what="n-bit multiplication, linear term",
        value=0.001041666667,
        unit="pJ/bit",
        node_nm=45,
        source=_HOROWITZ,
        status="published",
    ),
    "fusion_unit": Constant(
        what="BitFusion unit (8x8, splits to 2x2), one cycle",
        value=0.56,
        unit="pJ/cycle",
        node_nm=45,
        source=_SYNTHESIS,
        status="measured",
    ),
    "serial_pe": Constant(
        what="bit-serial PE, 8 lanes, 8-bit parallel operand, one cycle, as synthesised",
        value=0.28125,
        unit="pJ/cycle",
        node_nm=28,
        source="BitSim (yc2367/BitSim, sim/stripes.py, PE_ENERGY)",
        status="measured",
    ),
    "place_and_route": Constant(
        what="factor from synthesis to layout for the serial PE",
        value=1.5,
        unit="",
        node_nm=None,
        source="BitSim (yc2367/BitSim, sim/stripes.py)",
        status="published",
    ),
    "accumulator_bits": Constant(
        what="width of the accumulator behind an adder tree",
        value=32,
        unit="bit",
        node_nm=None,
        source="wide enough for 16x16-bit products over 2^0 and 8x8-bit ones over 2^16 terms",
        status="assumed",
    ),
    **_sram("read", (0.171, 0.283, 0.476, 0.857, 1.598, 2.495), "pJ/byte"),
    **_sram("write", (0.231, 0.824, 0.91, 1.078, 1.391, 2.105), "pJ/byte"),
    "dram_lpddr4": Constant(
        what="LPDDR4 access", value=8.0, unit="pJ/bit", node_nm=None, source=_DRAM, status="published"
    ),
    "dram_ddr3": Constant(
        what="DDR3 access",
        value=70.0,
        unit="pJ/bit",
        node_nm=None,
        source=f"{_DRAM} (Chatterjee et al., MICRO 2017)",
        status="published",
    ),
    "dram_hbm2": Constant(what="HBM2 access", value=3.9, unit="pJ/bit", node_nm=None, source=_DRAM, status="published"),
    "area_serial_lane": Constant(
        what="one lane of a serial PE, per bit of pe_width_bits",
        value=3.05 / (16 * 16 * 16) / 16,
        unit="mm2/bit",
        node_nm=65,
        source=f"Stripes tile of 3.05 mm2 with 16x16x16 lanes of 16 bits; {_PRAGMATIC}",
        status="assumed",
    ),
    "area_parallel_lane": Constant(
        what="one bit-parallel multiplier with its share of the adder tree, per bit^2",
        value=1.55 / (16 * 16) / 16**2,
        unit="mm2/bit^2",
        node_nm=65,
        source=f"DaDianNao tile of 1.55 mm2 with 16x16 lanes of 16x16 bits; {_PRAGMATIC}",
        status="assumed",
    ),
    "area_buffer": Constant(
        what="on-chip buffer (eDRAM)",
        value=(90.0 - 16 * 1.55) / 36,
        unit="mm2/MiB",
        node_nm=65,
        source=f"DaDianNao chip of 90 mm2 less 16 tiles, over 36 MiB; {_PRAGMATIC}",
        status="assumed",
    ),
    "leakage_density": Constant(
        what="leakage power of logic and buffers",
        value=0.02,
        unit="W/mm2",
        node_nm=65,
        source="about a tenth of the 18.8 W that DaDianNao's 90 mm2 draw; ours, no published figure found",
        status="assumed",
    ),
}
_BASE_NODE_NM, _BASE_SUPPLY_V = 45, 0.9


def scale_energy(hw: Accelerator, from_node_nm: int = _BASE_NODE_NM) -> float:
    """Dynamic energy moves with capacitance (linear in the node) and the square of the supply voltage."""
    return float(hw.node_nm / from_node_nm * (hw.supply_v / _BASE_SUPPLY_V) ** 2)


def scale_area(hw: Accelerator, from_node_nm: int) -> float:
    """Area moves with the square of the node."""
    return float((hw.node_nm / from_node_nm) ** 2)


def buffer_pj_per_bit(hw: Accelerator, access: Literal["read", "write"]) -> float:
    """Energy of one bit of an on-chip buffer, by the size of its banks.

    Linear between the sizes of the CACTI sweep on logarithmic axes; beyond 16 KiB it grows with the square root of
    the size (bit and word lines), which is ours.
    """
    known = {int(key.rsplit("_", 1)[1]): c.value for key, c in CONSTANTS.items() if key.startswith(f"sram_{access}_")}
    sizes, values = np.array(list(known), dtype=float), np.array(list(known.values()))
    size = float(max(hw.buffer_bank_bytes, sizes[0]))
    per_byte = float(np.exp(np.interp(np.log(size), np.log(sizes), np.log(values))))
    return per_byte * math.sqrt(max(1.0, size / float(sizes[-1]))) / 8 * scale_energy(hw)


def mac_pj(hw: Accelerator, weight_bits: Floats, activation_bits: Floats) -> Floats:
    """Energy of one multiply-accumulate, float64 of the broadcast shape.

    Parallel: a W x W multiplier and an accumulation, whatever the bits. Serial: a lane's share of the PE in every
    cycle of the serial operand, in proportion to the bits that it adds (see `_lane_pj`). Both operands serial: the same
    with digits instead of the parallel operand. Spatial: a fusion unit's cycle, shared by the products that it holds.
    Idle lanes are clock-gated: tails cost time and leakage only.
    """
    add, accumulator = CONSTANTS["add_per_bit"].value, CONSTANTS["accumulator_bits"].value
    width = float(hw.pe_width_bits)
    weight, activation = np.broadcast_arrays(weight_bits, activation_bits)
    pes = np.ceil(weight / width) * np.ceil(activation / width)
    if hw.serial == "none":
        multiply = CONSTANTS["multiply_square"].value * width**2 + CONSTANTS["multiply_linear"].value * width
        energy = pes * (multiply + add * accumulator) * scale_energy(hw)
    elif hw.serial == "spatial":
        products = np.maximum(width // np.maximum(activation, 2), 1) * np.maximum(width // np.maximum(weight, 2), 1)
        energy = CONSTANTS["fusion_unit"].value * (width / 8) ** 2 * pes / products * scale_energy(hw)
    elif hw.serial == "both":
        energy = weight * np.ceil(activation / hw.serial_bits) * _lane_pj(hw, np.float64(hw.serial_bits))
    else:
        serial, parallel = (weight, activation) if hw.serial == "weights" else (activation, weight)
        energy = serial * _lane_pj(hw, parallel)
    return np.asarray(energy, dtype=np.float64)


def _lane_pj(hw: Accelerator, parallel_bits: Floats | np.float64) -> Floats:
    """One lane of a serial PE for one cycle.

    The measured PE's energy is spread over the bits that its adders handle: n lanes of w bits take an adder tree of
    about n (w + 1) bits and one accumulator, so a lane handles w + 1 + accumulator / n. Other widths and lane counts
    cost in proportion.
    """
    pe, layout = CONSTANTS["serial_pe"], CONSTANTS["place_and_route"].value
    accumulator = CONSTANTS["accumulator_bits"].value
    measured_lanes, measured_bits = 8, 8
    per_bit = pe.value * layout / measured_lanes / (measured_bits + 1 + accumulator / measured_lanes)
    return np.asarray(per_bit * (parallel_bits + 1 + accumulator / hw.lanes) * scale_energy(hw, pe.node_nm or 28))


def dram_pj_per_bit(hw: Accelerator) -> float:
    """Off-chip energy of the machine's DRAM technology."""
    return CONSTANTS[f"dram_{hw.dram}"].value


def area_mm2(hw: Accelerator) -> dict[str, float]:
    """Area by part, square millimetres at the machine's node; every constant behind it is assumed (see CONSTANTS)."""
    lanes = hw.lanes * hw.columns * hw.rows * hw.tiles
    width = hw.pe_width_bits
    if hw.serial in ("none", "spatial"):
        key, per_lane = "area_parallel_lane", CONSTANTS["area_parallel_lane"].value * width**2
    else:
        key, per_lane = "area_serial_lane", CONSTANTS["area_serial_lane"].value
        # both operands serial: a lane is as wide as its serial digit, not as the other operand
        per_lane *= hw.serial_bits if hw.serial == "both" else width
    mebibytes = (hw.weight_buffer_bytes + hw.activation_buffer_bytes) / 2**20
    buffers = CONSTANTS["area_buffer"]
    array = lanes * per_lane * scale_area(hw, CONSTANTS[key].node_nm or _BASE_NODE_NM)
    memory = mebibytes * buffers.value * scale_area(hw, buffers.node_nm or _BASE_NODE_NM)
    return {"array": array, "buffers": memory, "total": array + memory}


def leakage_w(hw: Accelerator) -> float:
    """Static power: a density over the area, both at the constant's node, scaled with node and supply."""
    density = CONSTANTS["leakage_density"]
    node = density.node_nm or _BASE_NODE_NM
    area_there = area_mm2(hw)["total"] / scale_area(hw, node)
    return density.value * area_there * hw.node_nm / node * hw.supply_v / _BASE_SUPPLY_V

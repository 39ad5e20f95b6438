"""Every energy and area constant, with its unit, node, source and standing.

``status`` says how far a number can be trusted: "measured" (synthesis or circuit simulation, read in the named
source), "published" (printed in the named paper or file), "assumed" (ours, or recalled without the source at hand).
All constants are for 45 nm and 0.9 V unless ``node_nm`` says otherwise; `scale_energy` and `scale_area` move them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stripes_sim.parameters import Parameters

__all__ = ["BASE_NODE_NM", "BASE_SUPPLY_V", "CONSTANTS", "Constant", "lanes_mm2", "scale_area", "scale_energy"]


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
    **_sram("leakage", (0.2496, 1.789, 3.23, 7.302, 13.694, 27.127), "mW"),
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
    "term_lane_power": Constant(
        what="power of a term-serial lane over that of a serial one, whole chips",
        value=2.50 / 1.60,
        unit="",
        node_nm=None,
        source="PRA-2b draws 2.50 times DaDianNao (Bit-Pragmatic, MICRO 2017), Stripes 1.60 times (recalled)",
        status="assumed",
    ),
    "area_term_lane": Constant(
        what="one lane of a term-serial PE, per bit of pe_width_bits",
        value=(1.68 * 90.0 - (90.0 - 16 * 1.55)) / 65536 / 16,
        unit="mm2/bit",
        node_nm=65,
        source=f"PRA-2b's chip is 1.68 times DaDianNao's (Bit-Pragmatic, MICRO 2017); its 90 mm2: {_PRAGMATIC}",
        status="assumed",
    ),
    "area_fusion_unit": Constant(
        what="BitFusion unit (8x8, splits to 2x2)",
        value=1733.13e-6,
        unit="mm2",
        node_nm=45,
        source=_SYNTHESIS,
        status="measured",
    ),
    "area_buffer": Constant(
        what="on-chip buffer (eDRAM)",
        value=(90.0 - 16 * 1.55) / 36,
        unit="mm2/MiB",
        node_nm=65,
        source=f"DaDianNao chip of 90 mm2 less 16 tiles, over 36 MiB; {_PRAGMATIC}",
        status="assumed",
    ),
    "leakage_logic": Constant(
        what="leakage power of logic",
        value=949.24e-6 / 27752.83558e-6,
        unit="W/mm2",
        node_nm=45,
        source=f"{_SYNTHESIS}: 949.24 uW and 27753 um2 of a 4x4 array of 8-bit units",
        status="measured",
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
BASE_NODE_NM, BASE_SUPPLY_V = 45, 0.9


def scale_energy(hw: Parameters, from_node_nm: int = BASE_NODE_NM) -> float:
    """Dynamic energy moves with capacitance (linear in the node) and the square of the supply voltage."""
    return hw.node_nm / from_node_nm * (hw.supply_v / BASE_SUPPLY_V) ** 2


def scale_area(hw: Parameters, from_node_nm: int) -> float:
    """Area moves with the square of the node."""
    return (hw.node_nm / from_node_nm) ** 2


def lanes_mm2(hw: Parameters, constant: str, units: float) -> float:
    """Area of all lanes of ``hw`` at its node, a lane having so many ``units`` (bits, squared bits) of a constant."""
    per_lane = CONSTANTS[constant]
    return hw.lane_count * (per_lane.value * units) * scale_area(hw, per_lane.node_nm or BASE_NODE_NM)

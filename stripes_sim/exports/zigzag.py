"""ZigZag's workload, mapping and accelerator, as the parsers of zigzag-dse 3.9.1 take them.

The array has four dimensions: lanes (D1), columns (D2), rows (D3) and tiles (D4). ZigZag's unit does a whole product
in a cycle: what bits save in time on a serial machine it cannot say. Bits are those of the operands in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stripes_sim.constants import CONSTANTS
from stripes_sim.dataflows import dataflow_named
from stripes_sim.energy import buffer_pj_per_bit, dram_pj_per_bit
from stripes_sim.exports.nests import Nest, spread
from stripes_sim.parameters import Parameters

__all__ = ["accelerator", "mapping", "workload"]

_EQUATION = "O[b][g][k][oy][ox]+=W[g][k][c][fy][fx]*I[b][g][c][iy][ix]"
_DIMENSIONS = {"B": "N", "G": "G", "K": "M", "C": "C", "OY": "P", "OX": "Q", "FY": "R", "FX": "S"}
_LINKS = {"O": "O", "W": "I2", "I": "I1"}


def workload(nests: Sequence[Nest]) -> list[dict[str, Any]]:
    """A convolution for each nest. Which layer feeds which is not known here: inputs are constants like weights."""
    return [
        {
            "id": number,
            "name": nest.name,
            "operator_type": "Conv",
            "equation": _EQUATION,
            "dimension_relations": [
                f"ix={nest.stride[1]}*ox+{nest.dilation[1]}*fx",
                f"iy={nest.stride[0]}*oy+{nest.dilation[0]}*fy",
            ],
            "loop_dims": list(_DIMENSIONS),
            "loop_sizes": [nest.sizes[key] for key in _DIMENSIONS.values()],
            "pr_loop_dims": ["IX", "IY"],
            "pr_loop_sizes": [nest.input_size[1], nest.input_size[0]],
            "padding": [list(nest.padding[1]), list(nest.padding[0])],
            "operand_precision": {
                "W": nest.weight_bits,
                "I": nest.activation_bits,
                "O": int(CONSTANTS["accumulator_bits"].value),
                "O_final": nest.activation_bits,
            },
            "operand_source": {"W": number, "I": number},
        }
        for number, nest in enumerate(nests)
    ]


def mapping(nests: Sequence[Nest], hw: Parameters) -> list[dict[str, Any]]:
    """What each layer unrolls in space, and a default for others."""
    found: dict[str, dict[str, Any]] = {}
    for nest in nests:
        taken = spread(nest, hw)
        unrolled = {
            "D1": [f"C, {taken.lanes}"],
            "D2": [f"OX, {taken.columns_q}", f"OY, {taken.columns_p}"],
            "D3": [f"K, {taken.rows}"],
            "D4": [f"K, {taken.tiles}"],
        }
        found[nest.name] = {"name": nest.name, "spatial_mapping": unrolled, "memory_operand_links": _LINKS}
    default = {
        "D1": [f"C, {hw.lanes}"],
        "D2": [f"OX, {hw.columns}"],
        "D3": [f"K, {hw.rows}"],
        "D4": [f"K, {hw.tiles}"],
    }
    return [*found.values(), {"name": "default", "spatial_mapping": default, "memory_operand_links": _LINKS}]


def accelerator(hw: Parameters, weight_bits: int, activation_bits: int) -> dict[str, Any]:
    """Accumulators, the two buffers and DRAM around the array; energies in pJ, those of the unit at the given bits."""
    buffers = {
        "weight_buffer": (hw.weight_buffer_bytes, hw.weight_buffer_bits_per_cycle, ["I2"]),
        "activation_buffer": (hw.activation_buffer_bytes, hw.activation_buffer_bits_per_cycle, ["I1", "O"]),
    }
    unit_pj = float(dataflow_named(hw.serial).mac_pj(hw, *_floats(weight_bits, activation_bits)))
    width = int(CONSTANTS["accumulator_bits"].value)
    dram_width = max(round(8 * hw.dram_bytes_per_s / hw.clock_hz), 1)
    dram_pj = dram_pj_per_bit(hw) * dram_width
    every = ["D1", "D2", "D3", "D4"]
    return {
        "name": hw.name,
        "memories": {
            # the energy of an accumulator is part of the unit's
            "accumulator": _memory(width, width, 0.0, 0.0, ["O"], ["D1"]),
            **{
                name: _memory(
                    8 * size,
                    bits,
                    float(buffer_pj_per_bit(hw, "read")) * bits,
                    float(buffer_pj_per_bit(hw, "write")) * bits,
                    operands,
                    every,
                )
                for name, (size, bits, operands) in buffers.items()
            },
            "dram": _memory(10**15, dram_width, dram_pj, dram_pj, ["I1", "I2", "O"], every),
        },
        "operational_array": {
            "unit_energy": unit_pj,
            "unit_area": 1.0,
            "dimensions": every,
            "sizes": [hw.lanes, hw.columns, hw.rows, hw.tiles],
        },
    }


def _floats(*bits: int) -> list[Any]:
    import numpy as np

    return [np.array(float(number)) for number in bits]


def _memory(
    bits: int, port_bits: int, read_pj: float, write_pj: float, operands: list[str], served: list[str]
) -> dict[str, Any]:
    def moves(kinds: tuple[str, ...]) -> list[str]:
        # inputs and weights are filled from above (fh) and taken below (tl); outputs go both ways
        return [f"{op}, {kind}" for op in operands for kind in kinds if op == "O" or kind in ("fh", "tl")]

    return {
        "size": bits,
        "r_cost": read_pj,
        "w_cost": write_pj,
        "area": 0.0,
        "latency": 1,
        "operands": operands,
        "ports": [
            {
                "name": f"{kind[0]}_port_1",
                "type": kind,
                "bandwidth_min": 1,
                "bandwidth_max": port_bits,
                "allocation": moves(kinds),
            }
            for kind, kinds in (("read", ("tl", "th")), ("write", ("fh", "fl")))
        ],
        "served_dimensions": served,
    }

"""Timeloop's problem, architecture and mapping (version 0.4), as its ``src/mapping/parser.cpp`` reads them.

The mapping is the array's: lanes, columns, rows and tiles in space, all other loops in time, channels innermost, below
both buffers. A layer that the buffers do not hold whole is one that ``timeloop-model`` refuses with its sizes; the
mapper finds a tiling for it. A factor ``C=4,2`` is 4 with a rest of 2 in the last round. A multiplier here does a whole
product in a cycle: what bits save in time on a serial machine Timeloop cannot say.
"""

from __future__ import annotations

from typing import Any

from stripes_sim.constants import CONSTANTS
from stripes_sim.exports.nests import Nest, spread
from stripes_sim.parameters import Parameters

__all__ = ["architecture", "mapping", "problem"]

_COEFFICIENTS = {
    "Hstride": ("stride", 0),
    "Wstride": ("stride", 1),
    "Hdilation": ("dilation", 0),
    "Wdilation": ("dilation", 1),
}
# inner to outer, as Timeloop writes permutations
_IN_TIME = "CSRMQPNG"
_TENSORS = ("Weights", "Inputs", "Outputs")


def problem(nest: Nest) -> dict[str, Any]:
    """The layer as a workload."""
    coefficients = {name: getattr(nest, field)[axis] for name, (field, axis) in _COEFFICIENTS.items()}
    projections = {
        "Weights": [[["G"]], [["M"]], [["C"]], [["R"]], [["S"]]],
        "Inputs": [
            [["N"]],
            [["G"]],
            [["C"]],
            [["R", "Hdilation"], ["P", "Hstride"]],
            [["S", "Wdilation"], ["Q", "Wstride"]],
        ],
        "Outputs": [[["N"]], [["G"]], [["M"]], [["P"]], [["Q"]]],
    }
    spaces = [
        {"name": name, "projection": projection, **({"read_write": True} if name == "Outputs" else {})}
        for name, projection in projections.items()
    ]
    return {
        "problem": {
            "version": 0.4,
            "shape": {
                "name": "grouped_convolution",
                "dimensions": list(nest.sizes),
                "coefficients": [{"name": name, "default": 1} for name in coefficients],
                "data_spaces": spaces,
            },
            "instance": {**nest.sizes, **coefficients},
        }
    }


def architecture(hw: Parameters, nest: Nest) -> dict[str, Any]:
    """The machine, with words as wide as the layer's operands."""
    dram_bits = max(round(8 * hw.dram_bytes_per_s / hw.clock_hz), 1)
    pes, lanes = hw.columns * hw.rows * hw.tiles, hw.lanes
    width = int(CONSTANTS["accumulator_bits"].value)

    def buffer(name: str, size: int, bits: int, word: int) -> dict[str, Any]:
        words = max(bits // word, 1)
        attributes = {
            "depth": max(8 * size // (words * word), 1),
            "width": words * word,
            "datawidth": word,
            "read_bandwidth": words,
            "write_bandwidth": words,
        }
        return {"name": f"{name}[1..1]", "class": "SRAM", "attributes": attributes}

    local = [
        {
            "name": "DRAM[1..1]",
            "class": "DRAM",
            "attributes": {"type": hw.dram.upper(), "width": dram_bits, "datawidth": nest.activation_bits},
        },
        buffer(
            "activation_buffer",
            hw.activation_buffer_bytes,
            hw.activation_buffer_bits_per_cycle,
            nest.activation_bits,
        ),
        buffer("weight_buffer", hw.weight_buffer_bytes, hw.weight_buffer_bits_per_cycle, nest.weight_bits),
        {
            "name": f"accumulator[1..{pes}]",
            "class": "regfile",
            "attributes": {
                "depth": 1,
                "width": width,
                "datawidth": width,
                "meshX": hw.columns,
                "meshY": hw.rows * hw.tiles,
            },
        },
        {
            "name": f"multiplier[1..{pes * lanes}]",
            "class": "intmac",
            "attributes": {
                "datawidth": max(nest.weight_bits, nest.activation_bits),
                "meshX": hw.columns * lanes,
                "meshY": hw.rows * hw.tiles,
            },
        },
    ]
    attributes = {"technology": f"{hw.node_nm:g}nm", "global_cycle_seconds": 1 / hw.clock_hz}
    machine = {"name": "machine", "attributes": attributes, "local": local}
    return {"architecture": {"version": 0.4, "subtree": [machine]}}


def mapping(nest: Nest, hw: Parameters) -> dict[str, Any]:
    """Where each loop runs."""
    space = spread(nest, hw).by_dimension
    lanes, rest = {"C": space["C"]}, {key: size for key, size in space.items() if key != "C"}
    in_time = {key: -(-size // space.get(key, 1)) for key, size in nest.sizes.items()}
    order = {
        "DRAM": [],
        "activation_buffer": ["Inputs", "Outputs"],
        "weight_buffer": ["Weights"],
        "accumulator": ["Outputs"],
    }
    order["DRAM"] = list(_TENSORS)
    kept = [
        {"target": level, "type": "datatype", "keep": tensors, "bypass": [t for t in _TENSORS if t not in tensors]}
        for level, tensors in order.items()
    ]
    loops = [
        _directive(nest, "DRAM", "temporal", {}),
        _directive(nest, "activation_buffer", "temporal", {}),
        _directive(nest, "weight_buffer", "temporal", in_time),
        # windows along one side of the array, filters along the other
        {**_directive(nest, "weight_buffer", "spatial", rest, "QPCSRNGM"), "split": 7},
        _directive(nest, "accumulator", "temporal", {}),
        {**_directive(nest, "accumulator", "spatial", lanes), "split": 8},
    ]
    return {"mapping": [*kept, *loops]}


def _directive(
    nest: Nest, target: str, kind: str, taken: dict[str, int], permutation: str = _IN_TIME
) -> dict[str, Any]:
    """A level's factors. In space the last round of a loop may be partly empty: its rest comes behind the factor."""
    factors = []
    for key, size in nest.sizes.items():
        factor = taken.get(key, 1)
        rest = (size - 1) % factor + 1 if kind == "spatial" else factor
        factors.append(f"{key}={factor}" if rest == factor else f"{key}={factor},{rest}")
    return {"target": target, "type": kind, "factors": " ".join(factors), "permutation": permutation}

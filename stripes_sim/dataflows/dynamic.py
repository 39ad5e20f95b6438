"""Serial activations whose precision is found as they come: Dynamic Stripes, which DNNsim calls ShapeShifter.

Delmas et al., "Dynamic Stripes", arXiv 1706.00504. Columns that share a group stream as many bits as the widest of
their values needs, at least one; a layer with negative values streams one more for the sign of two's complement.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stripes_sim._packed import Ints
from stripes_sim._value_kernels import any_set
from stripes_sim._words import plane_words, precisions
from stripes_sim.constants import lanes_mm2
from stripes_sim.dataflows.base import Floats
from stripes_sim.dataflows.lanes import serial_lane_pj
from stripes_sim.dataflows.sensed import Costs, Cycles, Sensed, Tile, Words
from stripes_sim.parameters import Parameters

__all__ = ["DynamicActivations", "group_precisions"]


class DynamicActivations(Sensed):
    """A step takes as many cycles as its widest group of columns has bits."""

    name = "dynamic"
    title = "serial activations, precision found by group"
    options = frozenset({"group_columns", "trim_zeros", "column_registers"})
    assumes = ("Stripes' lanes, without what finds the precision of a group (no figure at hand)",)

    def step_cycles(self, hw: Parameters, weight_bits: Ints, activation_bits: Ints) -> Ints:
        """At most Pa."""
        return activation_bits

    def activation_words(self, hw: Parameters, tile: Tile, values: npt.NDArray[np.int32], signed: bool) -> list[Words]:
        """Bit planes that values have."""
        return list(plane_words(values, tile.activation_digits, tile.width, signed=signed))

    def costs(self, hw: Parameters, tile: Tile, words: list[Words], index: Cycles, filters: Words | None) -> Costs:
        """The widest group, or with registers every group by itself."""
        bits = group_precisions(hw, tile, words, index)
        if not hw.column_registers:
            bits = bits.max(axis=3, keepdims=True)
        return Costs(bits)

    def cycle_pj(self, hw: Parameters, weight_bits: Floats, activation_bits: Floats) -> Floats:
        """A lane as wide as the weight. What finds the precision is not counted."""
        return serial_lane_pj(hw, weight_bits)

    def array_mm2(self, hw: Parameters) -> float:
        """The lanes of Stripes. What finds the precision is not counted."""
        return lanes_mm2(hw, "area_serial_lane", hw.pe_width_bits)


def group_precisions(hw: Parameters, tile: Tile, words: list[Words], index: Cycles) -> Cycles:
    """Bits that each group of columns needs in a step, (sets, 1, taps * chunks, groups); 0 where it has no window."""
    windows, taps = index.shape
    chunks = -(-words[0].shape[1] // tile.lanes)
    sets, columns = -(-windows // tile.columns), tile.columns * len(words)
    size = min(hw.group_columns, columns)
    groups = -(-columns // size)
    joined = np.zeros((sets, groups * size, taps * chunks), dtype=np.uint32)
    lanes = np.empty((windows, taps, chunks), dtype=np.uint32)
    for digit, each in enumerate(words):
        any_set(each, index, tile.lanes, lanes)
        filled = np.zeros((sets * tile.columns, taps * chunks), dtype=np.uint32)
        filled[:windows] = lanes.reshape(windows, -1)
        joined[:, digit : columns : len(words)] = filled.reshape(sets, tile.columns, -1)
    together = np.bitwise_or.reduce(joined.reshape(sets, groups, size, -1), axis=2)
    bits = precisions(together, trim=hw.trim_zeros)
    used = (windows - (sets - 1) * tile.columns) * len(words)
    if hw.compat == "dnnsim" and used % size == 0 and used // size < groups:
        bits[-1, used // size] = 1
    return np.ascontiguousarray(np.moveaxis(bits, 1, 2)[:, None])

"""Terms of the activations in turn: Bit-Pragmatic (Albericio et al., MICRO 2017, arXiv 1610.06920).

A lane adds its weight once for each power of two that its activation is made of. The lanes of a column share a shift;
in a cycle a lane's own shift may lie less than 2^B places above it, B = ``first_stage_bits``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stripes_sim._packed import Ints
from stripes_sim._value_kernels import rounds
from stripes_sim._words import term_words
from stripes_sim.constants import CONSTANTS, lanes_mm2
from stripes_sim.dataflows.base import Floats
from stripes_sim.dataflows.lanes import serial_lane_pj
from stripes_sim.dataflows.sensed import Costs, Cycles, Sensed, Tile, Words
from stripes_sim.parameters import Parameters

__all__ = ["TermsOfActivations"]

# no two places of a 17-bit number are further apart
_FARTHEST = 32


class TermsOfActivations(Sensed):
    """A step takes as many cycles as the slowest column needs to use up the terms of its activations."""

    name = "pragmatic"
    title = "terms of the activations in turn"
    options = frozenset({"first_stage_bits", "booth", "column_registers"})
    assumes = (
        "power of a lane 1.56 times, and area 1.77 times, that of Stripes (from chips of 2.50 and 1.68 DaDianNao)",
    )

    def step_cycles(self, hw: Parameters, weight_bits: Ints, activation_bits: Ints) -> Ints:
        """At most Pa: every bit is set."""
        return activation_bits

    def activation_words(self, hw: Parameters, tile: Tile, values: npt.NDArray[np.int32], signed: bool) -> list[Words]:
        """Places of the terms of magnitudes."""
        return list(term_words(values, tile.activation_digits, tile.width, booth=hw.booth))

    def costs(self, hw: Parameters, tile: Tile, words: list[Words], index: Cycles, filters: Words | None) -> Costs:
        """Cycles of every column, or of the slowest one."""
        windows, taps = index.shape
        chunks = -(-words[0].shape[1] // tile.lanes)
        sets = -(-windows // tile.columns)
        reach = min(2 ** min(hw.first_stage_bits, 5), _FARTHEST)
        filled = np.zeros((sets * tile.columns, len(words), taps * chunks), dtype=np.int64)
        one = np.empty((windows, taps, chunks), dtype=np.int64)
        for digit, each in enumerate(words):
            rounds(each, index, tile.lanes, reach, one)
            filled[:windows, digit] = one.reshape(windows, -1)
        columns = filled.reshape(sets, tile.columns * len(words), -1)
        if not hw.column_registers:
            columns = columns.max(axis=1, keepdims=True)
        return Costs(np.ascontiguousarray(np.moveaxis(columns, 1, 2)[:, None]))

    def cycle_pj(self, hw: Parameters, weight_bits: Floats, activation_bits: Floats) -> Floats:
        """A serial lane with shifters, as wide as the weight."""
        return np.asarray(CONSTANTS["term_lane_power"].value * serial_lane_pj(hw, weight_bits))

    def array_mm2(self, hw: Parameters) -> float:
        """A serial lane with shifters."""
        return lanes_mm2(hw, "area_term_lane", hw.pe_width_bits)

"""Both operands serial: Loom (Sharify et al., DAC 2018, arXiv 1706.07853).

Without values its precisions are those of the layers. With them, groups of columns stream as many activation bits as
their values need; with ``dynamic_weights`` groups of as many rows have a precision of their weights, too.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stripes_sim._packed import Ints
from stripes_sim._words import plane_words, precisions
from stripes_sim.constants import lanes_mm2
from stripes_sim.dataflows.base import Floats, ceil_div
from stripes_sim.dataflows.dynamic import group_precisions
from stripes_sim.dataflows.lanes import round_robin_cycles, serial_lane_pj
from stripes_sim.dataflows.sensed import Costs, Cycles, Sensed, Tile, Words
from stripes_sim.parameters import Parameters

__all__ = ["SerialBoth"]


class SerialBoth(Sensed):
    """A step takes min(Pw, W) * ceil(min(Pa, W) / s) cycles, s = ``serial_bits`` at once."""

    name = "both"
    title = "both operands serial"
    broadcasts = True
    options = frozenset({"group_columns", "trim_zeros", "dynamic_weights"})

    def needs_values(self, hw: Parameters) -> bool:
        """What is found from values has no closed form."""
        return hw.dynamic_weights or hw.trim_zeros

    def wants_weights(self, hw: Parameters) -> bool:
        """For their precision by group."""
        return hw.dynamic_weights

    def step_cycles(self, hw: Parameters, weight_bits: Ints, activation_bits: Ints) -> Ints:
        """Pw * ceil(Pa / s)."""
        return weight_bits * -(-activation_bits // hw.serial_bits)

    def token_cycles(
        self, hw: Parameters, steps: Floats, columns: Floats, weight_bits: Ints, activation_bits: Ints
    ) -> Floats:
        """One bit plane per cycle, so Pw planes for each step; a column is busy for ceil(Pa / s) cycles with each."""
        return round_robin_cycles(steps * weight_bits, columns, ceil_div(activation_bits, hw.serial_bits))

    def activation_words(self, hw: Parameters, tile: Tile, values: npt.NDArray[np.int32], signed: bool) -> list[Words]:
        """Bit planes that values have."""
        return list(plane_words(values, tile.activation_digits, tile.width, signed=signed))

    def weight_words(self, hw: Parameters, tile: Tile, values: npt.NDArray[np.int32], signed: bool) -> Words:
        """The same of weights."""
        return np.stack(plane_words(values, tile.weight_digits, tile.width, signed=signed))

    def costs(self, hw: Parameters, tile: Tile, words: list[Words], index: Cycles, filters: Words | None) -> Costs:
        """ceil(Pa / s) of the widest group of columns, for each plane of the weights."""
        bits = group_precisions(hw, tile, words, index).max(axis=3, keepdims=True)
        busy = -(-bits // hw.serial_bits)
        if filters is None:
            # that simulator puts PEs side by side for wide weights, and takes all planes in turn nevertheless
            planes = tile.weight_bits if hw.compat == "dnnsim" else min(tile.weight_bits, tile.width)
            return Costs(busy, np.full((1, busy.shape[2]), planes))
        return Costs(busy, _row_precisions(hw, tile, filters))

    def mac_pj(self, hw: Parameters, weight_bits: Floats, activation_bits: Floats) -> Floats:
        """A lane in every cycle of both."""
        digits = np.ceil(activation_bits / hw.serial_bits)
        return np.asarray(weight_bits * digits * self.cycle_pj(hw, weight_bits, activation_bits))

    def cycle_pj(self, hw: Parameters, weight_bits: Floats, activation_bits: Floats) -> Floats:
        """A lane as wide as one digit of the activation."""
        return serial_lane_pj(hw, 1.0 * hw.serial_bits)

    def array_mm2(self, hw: Parameters) -> float:
        """A lane is as wide as its serial digit, not as the other operand."""
        return lanes_mm2(hw, "area_serial_lane", hw.serial_bits)


def _row_precisions(hw: Parameters, tile: Tile, filters: Words) -> Cycles:
    """Weight bits of the widest group of rows in any tile, (filter steps, taps * chunks)."""
    digits, count, _, channels = filters.shape
    by_lanes = np.bitwise_or.reduceat(filters, np.arange(0, channels, tile.lanes), axis=3)
    rows = np.moveaxis(by_lanes, 0, 1).reshape(count * digits, -1)
    per_step = tile.rows * tile.tiles * digits
    found = []
    for first in range(0, len(rows), per_step):
        starts = [
            start
            for tile_first in range(first, min(first + per_step, len(rows)), tile.rows * digits)
            for start in range(tile_first, min(tile_first + tile.rows * digits, len(rows)), hw.group_columns)
        ]
        groups = np.bitwise_or.reduceat(rows[: first + per_step], starts, axis=0)
        found.append(precisions(groups, trim=hw.trim_zeros).max(axis=0))
    return np.array(found)

"""Terms of both operands in turn: Laconic (Sharify et al., ISCA 2019; arXiv 1805.04513).

A lane multiplies one term of its activation by one of its weight in a cycle, so a product takes as many cycles as the
numbers of terms multiplied, and the slowest lane of all windows and filters at work holds the others back.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stripes_sim._packed import Ints
from stripes_sim._value_kernels import most_of_windows, slowest_products
from stripes_sim._words import term_counts
from stripes_sim.constants import lanes_mm2
from stripes_sim.dataflows.base import Floats
from stripes_sim.dataflows.lanes import serial_lane_pj
from stripes_sim.dataflows.sensed import Costs, Cycles, Sensed, Tile, Words
from stripes_sim.parameters import Parameters

__all__ = ["TermsOfBoth"]


class TermsOfBoth(Sensed):
    """A step takes max over lanes of (most terms of an activation) * (most terms of a weight), at least 1."""

    name = "laconic"
    title = "terms of both operands in turn"
    options = frozenset({"booth"})
    assumes = ("a lane of Laconic takes the power and area of a serial lane of one bit (no figure at hand)",)

    def wants_weights(self, hw: Parameters) -> bool:
        """For their terms."""
        return True

    def step_cycles(self, hw: Parameters, weight_bits: Ints, activation_bits: Ints) -> Ints:
        """At most Pa * Pw: every bit is set."""
        return activation_bits * weight_bits

    def activation_words(self, hw: Parameters, tile: Tile, values: npt.NDArray[np.int32], signed: bool) -> list[Words]:
        """Numbers of terms; of a wide value, of its digit with most."""
        return [term_counts(values, tile.activation_digits, tile.width, booth=hw.booth)]

    def weight_words(self, hw: Parameters, tile: Tile, values: npt.NDArray[np.int32], signed: bool) -> Words:
        """The same of weights."""
        return term_counts(values, tile.weight_digits, tile.width, booth=hw.booth)[None]

    def costs(self, hw: Parameters, tile: Tile, words: list[Words], index: Cycles, filters: Words | None) -> Costs:
        """The slowest lane of each step."""
        assert filters is not None  # the machine wants weights
        windows, taps = index.shape
        channels = words[0].shape[1]
        chunks = -(-channels // tile.lanes)
        most = np.empty((-(-windows // tile.columns), taps, channels), dtype=np.uint8)
        most_of_windows(words[0], index, tile.columns, most)
        weights = _most_of_filters(tile, filters[0])
        busy = np.empty((len(most), len(weights), taps, chunks), dtype=np.int64)
        slowest_products(most, weights, tile.lanes, busy)
        return Costs(busy.reshape(len(most), len(weights), taps * chunks, 1))

    def cycle_pj(self, hw: Parameters, weight_bits: Floats, activation_bits: Floats) -> Floats:
        """A serial lane of one bit."""
        return serial_lane_pj(hw, 1.0)

    def array_mm2(self, hw: Parameters) -> float:
        """A serial lane of one bit."""
        return lanes_mm2(hw, "area_serial_lane", 1)


def _most_of_filters(tile: Tile, filters: Words) -> npt.NDArray[np.uint8]:
    """For each filter step the most terms that a lane's weights have, (filter steps, taps, channels)."""
    if tile.diagonal:  # row i has a weight for lane i alone
        return np.ascontiguousarray(filters[None, :, :, 0].swapaxes(1, 2))
    starts = np.arange(0, len(filters), tile.rows * tile.tiles)
    return np.maximum.reduceat(filters, starts, axis=0)

"""What several kinds of machines have in common: a serial lane's energy, and words that go to the columns in turn."""

from __future__ import annotations

import numpy as np

from stripes_sim._packed import Ints
from stripes_sim.constants import CONSTANTS, scale_energy
from stripes_sim.dataflows.base import Floats
from stripes_sim.parameters import Parameters

__all__ = ["round_robin_cycles", "serial_lane_pj"]


def round_robin_cycles(words: Floats, columns: Floats, busy: Floats | Ints) -> Floats:
    """Cycles until the last of ``words`` is done: one arrives per cycle, and its column is ``busy`` with it."""
    rounds, rest = (words - 1) // columns, (words - 1) % columns
    return np.asarray(rounds * np.maximum(busy, columns) + rest + busy)


def serial_lane_pj(hw: Parameters, parallel_bits: Floats | float) -> Floats:
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

"""Bit-parallel: whole operands in one cycle, whatever their bits (DaDianNao, Chen et al., MICRO 2014)."""

from __future__ import annotations

import numpy as np

from stripes_sim._packed import Ints
from stripes_sim.constants import CONSTANTS, lanes_mm2, scale_energy
from stripes_sim.dataflows.base import Floats
from stripes_sim.dataflows.tiles import Tiled
from stripes_sim.parameters import Parameters

__all__ = ["Parallel"]


class Parallel(Tiled):
    """One step is one cycle. Wider operands take several PEs side by side, narrower ones gain traffic alone."""

    name = "none"
    title = "bit-parallel"
    broadcasts = True

    def step_cycles(self, hw: Parameters, weight_bits: Ints, activation_bits: Ints) -> Ints:
        """1."""
        return np.ones_like(weight_bits)

    def token_cycles(
        self, hw: Parameters, steps: Floats, columns: Floats, weight_bits: Ints, activation_bits: Ints
    ) -> Floats:
        """One step after the other: one column works."""
        return steps

    def mac_pj(self, hw: Parameters, weight_bits: Floats, activation_bits: Floats) -> Floats:
        """A W x W multiplication and an accumulation, for each PE that the operands need."""
        width = 1.0 * hw.pe_width_bits
        pes = np.ceil(weight_bits / width) * np.ceil(activation_bits / width)
        multiply = CONSTANTS["multiply_square"].value * width**2 + CONSTANTS["multiply_linear"].value * width
        add = CONSTANTS["add_per_bit"].value * CONSTANTS["accumulator_bits"].value
        return np.asarray(pes * (multiply + add) * scale_energy(hw), dtype=np.float64)

    def array_mm2(self, hw: Parameters) -> float:
        """Multipliers: in proportion to the square of their width."""
        return lanes_mm2(hw, "area_parallel_lane", hw.pe_width_bits**2)

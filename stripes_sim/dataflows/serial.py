"""Bit-serial: one operand's bits, one after the other; fewer bits take fewer cycles.

Stripes (Judd et al., MICRO 2016) is serial in the activations; the machine that learned weight bits need is serial in
the weights.
"""

from __future__ import annotations

import numpy as np

from stripes_sim._packed import Ints
from stripes_sim.constants import lanes_mm2
from stripes_sim.dataflows.base import Floats, ceil_div
from stripes_sim.dataflows.lanes import round_robin_cycles, serial_lane_pj
from stripes_sim.dataflows.tiles import Tiled
from stripes_sim.parameters import Parameters

__all__ = ["SerialActivations", "SerialWeights"]


class Serial(Tiled):
    """What both have in common: lanes whose other operand is as wide as the PE."""

    def array_mm2(self, hw: Parameters) -> float:
        """Lanes: in proportion to their width W."""
        return lanes_mm2(hw, "area_serial_lane", hw.pe_width_bits)


class SerialWeights(Serial):
    """The weights are serial: a step takes min(Pw, W) cycles."""

    name = "weights"
    title = "serial weights"
    broadcasts = True

    def step_cycles(self, hw: Parameters, weight_bits: Ints, activation_bits: Ints) -> Ints:
        """Pw."""
        return weight_bits

    def token_cycles(
        self, hw: Parameters, steps: Floats, columns: Floats, weight_bits: Ints, activation_bits: Ints
    ) -> Floats:
        """All columns advance by one bit plane per cycle, as far as the buffer's word is wide; the last ones wait for
        those before.
        """
        width, rounds, rest = hw.pe_width_bits, steps // columns, steps % columns
        last = np.where(rest > 0, np.maximum(rest, width), 0)
        return np.asarray(ceil_div((rounds * np.maximum(columns, width) + last) * weight_bits, width))

    def mac_pj(self, hw: Parameters, weight_bits: Floats, activation_bits: Floats) -> Floats:
        """A lane as wide as the activation, in every cycle of the weight."""
        return np.asarray(weight_bits * serial_lane_pj(hw, activation_bits))


class SerialActivations(Serial):
    """The activations are serial: a step takes min(Pa, W) cycles."""

    name = "activations"
    title = "serial activations"
    broadcasts = True

    def step_cycles(self, hw: Parameters, weight_bits: Ints, activation_bits: Ints) -> Ints:
        """Pa."""
        return activation_bits

    def token_cycles(
        self, hw: Parameters, steps: Floats, columns: Floats, weight_bits: Ints, activation_bits: Ints
    ) -> Floats:
        """A column is busy for Pa cycles with its word.

        Low precision gains nothing here (Judd et al. section 5; DNNsim counts the same).
        """
        return round_robin_cycles(steps, columns, activation_bits)

    def mac_pj(self, hw: Parameters, weight_bits: Floats, activation_bits: Floats) -> Floats:
        """A lane as wide as the weight, in every cycle of the activation."""
        return np.asarray(activation_bits * serial_lane_pj(hw, weight_bits))

"""Bit-serial: one operand's bits, or both operands', one after the other; fewer bits take fewer cycles.

Stripes (Judd et al., MICRO 2016) is serial in the activations; the machine that learned weight bits need is serial in
the weights. Loom (Sharify et al., DAC 2018) is serial in both.
"""

from __future__ import annotations

import numpy as np

from stripes_sim._packed import Ints
from stripes_sim.constants import CONSTANTS, lanes_mm2, scale_energy
from stripes_sim.dataflows.base import Floats, ceil_div
from stripes_sim.dataflows.tiles import Tiled
from stripes_sim.parameters import Parameters

__all__ = ["Serial", "SerialActivations", "SerialBoth", "SerialWeights"]


class Serial(Tiled):
    """What the three have in common: lanes whose other operand is as wide as the PE."""

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
        """All columns advance by one bit plane per cycle, as far as the buffer's word is wide."""
        planes = ceil_div(steps, columns) * weight_bits
        return np.asarray(np.maximum(planes, ceil_div(steps * weight_bits, hw.pe_width_bits)))

    def mac_pj(self, hw: Parameters, weight_bits: Floats, activation_bits: Floats) -> Floats:
        """A lane as wide as the activation, in every cycle of the weight."""
        return np.asarray(weight_bits * _lane_pj(hw, activation_bits))


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
        return _round_robin(steps, columns, activation_bits)

    def mac_pj(self, hw: Parameters, weight_bits: Floats, activation_bits: Floats) -> Floats:
        """A lane as wide as the weight, in every cycle of the activation."""
        return np.asarray(activation_bits * _lane_pj(hw, weight_bits))


class SerialBoth(Serial):
    """Both are serial: a step takes min(Pw, W) * ceil(min(Pa, W) / s) cycles, s = ``serial_bits`` at once."""

    name = "both"
    title = "both operands serial"
    broadcasts = True

    def step_cycles(self, hw: Parameters, weight_bits: Ints, activation_bits: Ints) -> Ints:
        """Pw * ceil(Pa / s)."""
        return weight_bits * -(-activation_bits // hw.serial_bits)

    def token_cycles(
        self, hw: Parameters, steps: Floats, columns: Floats, weight_bits: Ints, activation_bits: Ints
    ) -> Floats:
        """One bit plane per cycle, so Pw planes for each step; a column is busy for ceil(Pa / s) cycles with each."""
        return _round_robin(steps * weight_bits, columns, ceil_div(activation_bits, hw.serial_bits))

    def mac_pj(self, hw: Parameters, weight_bits: Floats, activation_bits: Floats) -> Floats:
        """A lane as wide as one digit of the activation, in every cycle of both."""
        digits = np.ceil(activation_bits / hw.serial_bits)
        return np.asarray(weight_bits * digits * _lane_pj(hw, 1.0 * hw.serial_bits))

    def array_mm2(self, hw: Parameters) -> float:
        """A lane is as wide as its serial digit, not as the other operand."""
        return lanes_mm2(hw, "area_serial_lane", hw.serial_bits)


def _round_robin(words: Floats, columns: Floats, busy: Floats | Ints) -> Floats:
    """Cycles until the last of ``words`` is done: one arrives per cycle, and its column is ``busy`` with it."""
    rounds, rest = (words - 1) // columns, (words - 1) % columns
    return np.asarray(rounds * np.maximum(busy, columns) + rest + busy)


def _lane_pj(hw: Parameters, parallel_bits: Floats | float) -> Floats:
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

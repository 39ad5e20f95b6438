"""Spatially composed: units of W bits that split into narrow multipliers (BitFusion, Sharma et al., ISCA 2018)."""

from __future__ import annotations

import numpy as np

from stripes_sim._packed import Ints, Packed
from stripes_sim.constants import CONSTANTS, lanes_mm2, scale_energy
from stripes_sim.dataflows.base import ArrayWork, Dataflow, Floats, ceil_div
from stripes_sim.parameters import Parameters

__all__ = ["Spatial"]


class Spatial(Dataflow):
    """``lanes`` x ``rows`` fusion units, each a grid of 2-bit multipliers.

    A unit of W bits (8) does ``floor(W/Pa) * floor(W/Pw)`` products at once, operands counted as at least 2 bits:
    3 bits cost what 4 do, 5 to 7 what 8 do. Operands beyond W take two passes each. Layers that read the image (the
    first, and any with three channels) are unrolled to a matrix product, so that few channels leave no lanes idle.
    """

    name = "spatial"
    title = "spatially composed"
    broadcasts = True

    def check(self, hw: Parameters) -> None:
        """Units are made of 2-bit multipliers."""
        if hw.pe_width_bits < 2:
            raise ValueError(
                f"{hw.name}: a spatially composed unit is at least 2 bits wide, but pe_width_bits={hw.pe_width_bits}"
            )

    def array_work(
        self, work: Packed, hw: Parameters, weight_bits: Ints, activation_bits: Ints, batch: int
    ) -> ArrayWork:
        """Steps of ``lanes`` units over the channels, ``rows`` filters and ``columns`` windows at a time."""
        channels = work.in_channels // work.groups
        spread = hw.lanes * _products(hw, weight_bits, activation_bits)
        unroll = (work.first | (work.in_channels == 3)) & work.spatial & hw.space_to_depth

        def depth(taps: Floats) -> Floats:
            return np.where(unroll, ceil_div(taps * channels, spread), taps * ceil_div(channels, spread))

        filter_sets = ceil_div(ceil_div(work.out_channels, work.groups), hw.rows)
        filter_steps = ceil_div(filter_sets, hw.tiles)
        repeats = work.repeats(batch)
        steps = repeats * work.groups * work.visits(batch, hw.columns, depth)
        scheduled = repeats * work.out_channels * work.visits(batch, 1, depth)
        passes = ceil_div(activation_bits, hw.pe_width_bits) * ceil_div(weight_bits, hw.pe_width_bits)
        none = np.zeros_like(steps)
        return ArrayWork(
            compute_cycles=steps * filter_steps * passes,
            scheduled_pes=scheduled,
            idle_pes=steps * filter_sets * hw.rows * hw.columns - scheduled,
            passes=work.visits(batch, hw.columns) / work.taps,
            filter_steps=filter_steps,
            dram_weight_reads=none,
            buffer_weight_reads=none,
        )

    def at_once(self, hw: Parameters, weight_bits: Ints, activation_bits: Ints) -> tuple[Floats, Floats, Floats]:
        """Narrow operands share a unit, and with it channels."""
        channels = hw.lanes * _products(hw, weight_bits, activation_bits)
        return np.asarray(1.0 * hw.columns), channels, np.asarray(1.0 * hw.rows * hw.tiles)

    def lane_cycles(self, hw: Parameters, macs: Floats, weight_bits: Ints, activation_bits: Ints) -> Floats:
        """One unit's cycles, each shared by the products that it holds."""
        return ceil_div(macs, _products(hw, weight_bits, activation_bits))

    def mac_pj(self, hw: Parameters, weight_bits: Floats, activation_bits: Floats) -> Floats:
        """A fusion unit's cycle, shared by the products that it holds, in proportion to the square of its width."""
        width = 1.0 * hw.pe_width_bits
        passes = np.ceil(weight_bits / width) * np.ceil(activation_bits / width)
        unit = CONSTANTS["fusion_unit"].value * (width / 8) ** 2
        return np.asarray(
            unit * passes / _products(hw, weight_bits, activation_bits) * scale_energy(hw), dtype=np.float64
        )

    def array_mm2(self, hw: Parameters) -> float:
        """Synthesised units of 8 bits; other widths in proportion to the square."""
        return lanes_mm2(hw, "area_fusion_unit", (hw.pe_width_bits / 8) ** 2)


def _products(hw: Parameters, weight_bits: Ints | Floats, activation_bits: Ints | Floats) -> Floats:
    """Products that one unit holds at once, float64."""
    per_operand = [
        np.maximum(1.0 * hw.pe_width_bits // np.maximum(bits, 2), 1) for bits in (weight_bits, activation_bits)
    ]
    return np.asarray(per_operand[0] * per_operand[1])

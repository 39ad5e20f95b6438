"""What one layer works on, in bits, and the room that its tiles have on chip.

A layer runs in ``calls`` that share no inputs or outputs: the groups of a convolution, the calls of a linear layer, the
copies and samples of a matrix product. A call works on one matrix of weights (of a product: on its second operand).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stripes_sim._packed import Ints, Packed
from stripes_sim.constants import CONSTANTS
from stripes_sim.dataflows.base import Floats, ceil_div, power_of_two
from stripes_sim.parameters import Parameters

__all__ = ["SCALE_BITS", "Flags", "Operands", "Room", "operands", "room", "stored_bits", "whole_bursts"]

SCALE_BITS = 16
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Operands:
    """Bits of one call, float64 that broadcasts to (L, B), as they come from DRAM or go there.

    Attributes:
        weights: one matrix, 0 where weights stay on chip; of a product that does not fit, its second operand.
        inputs: all inputs, or those that are not on chip already.
        outputs: all outputs at their own bits.
        sums: all outputs as partial sums.
        calls: how many calls there are.
        matrices: distinct matrices among them.
        fits: the layer's inputs, outputs and what waits stay on chip together.
    """

    weights: Floats
    inputs: Floats
    outputs: Floats
    sums: Floats
    calls: Floats
    matrices: Floats
    fits: Flags


@dataclass(frozen=True, kw_only=True)
class Room:
    """Bits of each buffer that a tile may fill; without a buffer of their own outputs lie in that of the inputs."""

    weights: Floats
    inputs: Floats
    outputs: Floats
    shared: Flags


def stored_bits(hw: Parameters, bits: Ints) -> Floats:
    """Bits that one value takes in memory: its own (packed), or a power of two of at least a word (padded)."""
    taken = bits if hw.storage == "packed" else np.maximum(hw.data_width_bits, power_of_two(bits))
    return np.asarray(taken, dtype=np.float64)


def whole_bursts(bits: Floats, hw: Parameters) -> Floats:
    """What moving so many neighbouring bits takes: whole bursts."""
    return np.asarray(ceil_div(bits, hw.dram_burst_bits) * hw.dram_burst_bits, dtype=np.float64)


def room(hw: Parameters) -> Room:
    """Half of each buffer where the other half is being filled."""
    each_byte = 4.0 if hw.buffers == "double" else 8.0
    inputs = np.asarray(each_byte * hw.activation_buffer_bytes)
    outputs = np.asarray(each_byte * hw.output_buffer_bytes)
    shared = outputs == 0
    return Room(
        weights=np.asarray(each_byte * hw.weight_buffer_bytes),
        inputs=inputs,
        outputs=np.where(shared, inputs, outputs),
        shared=shared,
    )


def operands(work: Packed, hw: Parameters, weight_bits: Ints, activation_bits: Ints, batch: int) -> Operands:
    """Of every layer, for bits that broadcast to (L, B)."""
    weight_stored, activation_stored = stored_bits(hw, weight_bits), stored_bits(hw, activation_bits)
    calls = np.where(work.matmul, work.copies * batch, np.where(work.spatial, work.groups, work.copies))
    matrices = np.where(work.matmul, calls, np.where(work.spatial, work.groups, work.matrices))
    outputs = batch * work.output_count * activation_stored
    # values of this run need room, what was stored before streams past them
    kept = batch * (work.input_count - work.stored_before + work.waiting) * activation_stored
    there = room(hw)
    fits = (kept + np.where(there.shared, outputs, 0) <= there.inputs) & (outputs <= there.outputs)

    before = np.minimum(work.stored_before, work.read_count)
    streams = np.where(hw.resident_cache & ~work.first, 0.0, np.where(work.matmul, weight_stored, activation_stored))
    produced = np.where(fits & ~work.first, 0.0, work.read_count - before)
    arriving = batch * (produced * activation_stored + before * streams)
    # a product's second operand is what was stored before, as far as that goes
    second = np.where(work.matmul & ~fits, work.copies * work.in_channels * work.out_channels, 0)
    cached = np.minimum(before, second)
    second_bits = batch * ((second - cached) * activation_stored + cached * streams)

    stored = work.weight_count * weight_stored + SCALE_BITS * work.scales
    weights = np.where(work.matmul, second_bits, np.where(hw.resident_weights | work.embedding, 0.0, stored))
    return Operands(
        weights=whole_bursts(weights / matrices, hw),
        inputs=whole_bursts((arriving - second_bits) / calls, hw),
        outputs=whole_bursts(outputs / calls, hw),
        sums=whole_bursts(batch * work.output_count * CONSTANTS["accumulator_bits"].value / calls, hw),
        calls=calls,
        matrices=matrices,
        fits=fits,
    )

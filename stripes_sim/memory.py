"""Traffic of every layer through DRAM and the two on-chip buffers, and the cycles that it needs.

Layers run one after the other. Tiling rule, for a layer with W bits of weights, I of inputs and O of outputs:

* ``I + O`` and what waits on chip for later layers fit the activation buffer together: the activations stay on chip
  between layers; only the network's first input and what was stored before the run (a cache, which streams past and
  needs no room) are read from DRAM, and its last output is written. The weights come from DRAM once. What is read of a
  tensor are the inputs that the kernel meets: a strided 1x1 convolution leaves most of them where they are.
* otherwise I is read and O written, and
    - W fits the weight buffer: inputs stream past the resident weights, everything moves once;
    - it does not: the layer is cut, in whichever of three ways moves least:
      filters into ``ceil(W / buffer)`` parts, the inputs being read again for each;
      inputs (windows, tokens, samples) into ``ceil(I / (buffer / 2))`` parts, half the buffer being for outputs, and
      the weights read again for each; or input channels into as many parts, inputs and weights being read once and
      32-bit partial sums of all outputs written and read back between the parts.

A linear layer that is called several times (a recurrent one) and whose matrix does not fit the weight buffer fetches it
for each call; one with several matrices (experts) is cut matrix by matrix. ``resident_weights`` is for machines that
keep the whole network on chip between inferences: no weight is fetched; ``resident_cache`` keeps caches there.
A bit costs the same in every layer, so the whole model stays additive over layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stripes_sim._packed import Ints, Packed
from stripes_sim.constants import CONSTANTS
from stripes_sim.dataflows.base import ArrayWork, Floats, ceil_div, power_of_two
from stripes_sim.parameters import Parameters

__all__ = ["SCALE_BITS", "Traffic", "stored_bits", "traffic"]

SCALE_BITS = 16


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Bits moved by each layer, float64 of shape (L, B): exact below 2^53 (a petabyte), to 16 digits beyond.

    ``weight_bytes`` is what storing the layer's weights takes; ``dram_weight_bits`` is the weights' part of the reads.
    """

    weight_bytes: Floats
    dram_read_bits: Floats
    dram_weight_bits: Floats
    dram_write_bits: Floats
    weight_buffer_bits: Floats
    activation_read_bits: Floats
    activation_write_bits: Floats


def stored_bits(hw: Parameters, bits: Ints) -> Floats:
    """Bits that one value takes in memory: its own (packed), or a power of two of at least a word (padded)."""
    taken = bits if hw.storage == "packed" else np.maximum(hw.data_width_bits, power_of_two(bits))
    return np.asarray(taken, dtype=np.float64)


def traffic(
    work: Packed, hw: Parameters, array: ArrayWork, weight_bits: Ints, activation_bits: Ints, batch: int = 1
) -> Traffic:
    """What moves, for bits that broadcast to (L, B).

    A matmul has no stored weights: both its operands come through the activation buffer.
    """
    weight_stored, activation_stored = stored_bits(hw, weight_bits), stored_bits(hw, activation_bits)
    weights = np.where(work.matmul | work.embedding, 0.0, work.weight_count) * weight_stored + SCALE_BITS * work.scales
    outputs = batch * work.output_count * activation_stored
    # values of this run need room, what was stored before streams past them
    kept = batch * (work.input_count - work.stored_before + work.waiting) * activation_stored
    fits = kept + outputs <= 8.0 * hw.activation_buffer_bytes
    before = np.minimum(work.stored_before, work.read_count)
    arriving = np.where(hw.resident_cache & ~work.first, 0.0, before) * np.where(
        work.matmul, weight_stored, activation_stored
    )
    inputs = batch * (np.where(fits & ~work.first, 0.0, work.read_count - before) * activation_stored + arriving)
    weight_reads, input_reads, spills = _off_chip(work, hw, weights, inputs, ~fits, batch)
    # a lookup reads its rows from the table off chip, wherever the activations are
    rows = batch * work.output_count * weight_stored
    reads = np.where(work.embedding, rows, weight_reads + input_reads + spills)
    writes = np.where(fits & ~work.last, 0, outputs) + spills

    windows = work.visits(1) * work.copies * batch
    visited = windows * work.in_channels * array.filter_steps
    second_operand = np.where(work.matmul, work.copies * batch * work.in_channels * work.out_channels, 0)
    read_again = np.where(work.embedding, 0.0, visited * activation_stored + second_operand * weight_stored)
    filled = outputs + np.where(work.embedding, 0, input_reads + spills)
    return Traffic(
        weight_bytes=np.broadcast_to(weights * work.stores / 8, reads.shape),
        dram_read_bits=reads,
        dram_weight_bits=weight_reads,
        dram_write_bits=writes,
        weight_buffer_bits=weights / work.matrices * array.passes * work.copies,
        activation_read_bits=read_again,
        activation_write_bits=filled,
    )


def _off_chip(
    work: Packed,
    hw: Parameters,
    weights: Floats,
    inputs: Floats,
    spilt: npt.NDArray[np.bool_],
    batch: int,
) -> tuple[Floats, Floats, Floats]:
    """Bits of weights and inputs that are read from DRAM, and of partial sums that go there and back (one way)."""
    matrix = weights / work.matrices
    weight_parts = np.maximum(ceil_div(matrix, 8.0 * hw.weight_buffer_bytes), 1)
    input_parts = np.maximum(ceil_div(inputs / work.matrices, 4.0 * hw.activation_buffer_bytes), 1)
    # calls of one matrix are apart: between them it stays only where it fits
    calls = np.where((weight_parts > 1) & (work.matrices < work.copies) & ~work.spatial, work.copies / work.matrices, 1)
    fetched = np.where(hw.resident_weights, 0.0, weights * calls)
    partial_sums = (input_parts - 1) * batch * work.output_count * CONSTANTS["accumulator_bits"].value
    by_filters = weight_parts * inputs + fetched
    by_inputs = inputs + input_parts * fetched
    by_channels = inputs + fetched + 2 * partial_sums
    least = np.minimum(np.minimum(by_filters, by_inputs), by_channels)
    cut = spilt & (weight_parts > 1)
    channels_cut = cut & (by_channels == least)
    inputs_cut = cut & (by_inputs == least) & ~channels_cut
    filters_cut = cut & ~channels_cut & ~inputs_cut
    weight_reads = fetched * np.where(inputs_cut, input_parts, 1)
    input_reads = inputs * np.where(filters_cut, weight_parts, 1)
    return weight_reads, input_reads, np.where(channels_cut, partial_sums, 0.0)


def memory_cycles(hw: Parameters, moved: Traffic) -> dict[str, Floats]:
    """Cycles that each level needs for its traffic, by level; reads and writes share a port."""
    dram_bits_per_cycle = 8 * hw.dram_bytes_per_s / hw.clock_hz
    return {
        "weight buffer": np.ceil(moved.weight_buffer_bits / hw.weight_buffer_bits_per_cycle),
        "activation buffer": np.ceil(
            (moved.activation_read_bits + moved.activation_write_bits) / hw.activation_buffer_bits_per_cycle
        ),
        "DRAM": np.ceil((moved.dram_read_bits + moved.dram_write_bits) / dram_bits_per_cycle),
    }

"""Traffic of every layer through DRAM and the on-chip buffers, and the cycles that it needs.

Layers run one after the other. Inputs, outputs and what waits on chip for later layers that fit together stay on chip
between layers: only the network's first input and what was stored before the run (a cache, which streams past and needs
no room) are read from DRAM, and its last output is written. The weights come from DRAM once. What is read of a tensor
are the inputs that the kernel meets: a strided 1x1 convolution leaves most of them where they are.

Of all other layers inputs are read and outputs written, and the layer is cut into tiles: ``mapping="closed"`` says what
every tiling moves at least (`stripes_sim.bound`), ``mapping="search"`` what the best one does (`stripes_sim.mapping`).

A linear layer that is called several times (a recurrent one) and whose matrix does not fit the weight buffer fetches it
for each call; one with several matrices (experts) is cut matrix by matrix. ``resident_weights`` is for machines that
keep the whole network on chip between inferences: no weight is fetched; ``resident_cache`` keeps caches there.
A bit costs the same in every layer, so the whole model stays additive over layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stripes_sim._packed import Ints, Packed
from stripes_sim.bound import lower_bound
from stripes_sim.dataflows.base import ArrayWork, Floats
from stripes_sim.mapping import Levels, searched
from stripes_sim.operands import SCALE_BITS, Flags, Operands, operands, room, stored_bits
from stripes_sim.parameters import Parameters
from stripes_sim.plan import Plan, Tile

__all__ = ["SCALE_BITS", "Traffic", "memory_cycles", "stored_bits", "traffic"]


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Bits moved by each layer, float64 of shape (L, B): exact below 2^53 (a petabyte), to 16 digits beyond.

    ``weight_bytes`` is what storing the layer's weights takes; ``dram_weight_bits`` what comes into the weight buffer.
    ``binds`` says which layers do not stay on chip; ``tails`` is the factor on the array's cycles that cutting costs,
    ``tiles`` how searched layers were cut, by their numbers.
    """

    weight_bytes: Floats
    dram_read_bits: Floats
    dram_weight_bits: Floats
    dram_write_bits: Floats
    weight_buffer_bits: Floats
    activation_read_bits: Floats
    activation_write_bits: Floats
    binds: Flags
    tails: Floats
    tiles: Mapping[int, Tile]


def traffic(
    work: Packed, hw: Parameters, array: ArrayWork, weight_bits: Ints, activation_bits: Ints, batch: int = 1
) -> Traffic:
    """What moves, for bits that broadcast to (L, B).

    A matmul has no stored weights: both its operands come through the activation buffer.

    Raises:
        ValueError: a layer of which no tile fits the buffers, where tilings are searched.
    """
    operand = operands(work, hw, weight_bits, activation_bits, batch)
    at_least = lower_bound(work, operand, room(hw))
    moved = _moved(work, hw, array, operand, at_least, weight_bits, activation_bits, batch)
    if hw.mapping == "closed":
        return moved
    found = searched(work, hw, operand, at_least, _levels(hw, array, moved), weight_bits, activation_bits, batch)
    return _moved(work, hw, array, operand, found, weight_bits, activation_bits, batch)


def _moved(
    work: Packed,
    hw: Parameters,
    array: ArrayWork,
    operand: Operands,
    plan: Plan,
    weight_bits: Ints,
    activation_bits: Ints,
    batch: int,
) -> Traffic:
    weight_stored, activation_stored = stored_bits(hw, weight_bits), stored_bits(hw, activation_bits)
    weights = np.where(work.matmul | work.embedding, 0.0, work.weight_count) * weight_stored + SCALE_BITS * work.scales
    # a lookup reads its rows from the table off chip, wherever the activations are
    rows = batch * work.output_count * weight_stored
    reads = np.where(work.embedding, rows, plan.reads + plan.spills)
    writes = np.where(operand.fits & ~work.last, 0, plan.writes) + plan.spills

    windows = work.visits(1) * work.copies * batch
    visited = windows * work.in_channels * array.filter_steps
    second_operand = np.where(work.matmul, work.copies * batch * work.in_channels * work.out_channels, 0)
    read_again = np.where(work.embedding, 0.0, visited * activation_stored + second_operand * weight_stored)
    outputs = batch * work.output_count * activation_stored
    return Traffic(
        weight_bytes=np.broadcast_to(weights * work.stores / 8, reads.shape),
        dram_read_bits=reads,
        dram_weight_bits=plan.weight_fills,
        dram_write_bits=writes,
        weight_buffer_bits=weights / work.matrices * array.passes * work.copies,
        activation_read_bits=read_again + plan.sums,
        activation_write_bits=outputs + np.where(work.embedding, 0, plan.input_fills) + plan.sums,
        binds=~operand.fits & ~work.embedding,
        tails=plan.tails,
        tiles=plan.tiles,
    )


def _levels(hw: Parameters, array: ArrayWork, moved: Traffic) -> Levels:
    """What of a layer's cycles is known before it is cut."""
    return Levels(
        compute_cycles=array.compute_cycles.astype(np.float64),
        weight_buffer_cycles=memory_cycles(hw, moved)["weight buffer"],
        activation_bits=moved.activation_read_bits + moved.activation_write_bits,
    )


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

"""Compute cycles of every layer on the array: one closed form for the whole family.

Source of the tile model: the Stripes tile (Judd et al., MICRO 2016) as DNNsim (isakedo/DNNsim, commit 4748a60)
steps through it; `benchmarks.validate` holds the closed form against that simulator case by case. With

    ab = ceil(Pa / W), wb = ceil(Pw / W)            PEs of W bits side by side for wider operands
    EC = COLUMNS // ab, ER = ROWS // wb             windows and filters that a tile holds at once
    window_sets  = ceil(windows / EC)               filter_sets  = ceil(filters of a group / ER)
    filter_steps = ceil(filter_sets / TILES)        depth        = taps * ceil(channels of a group / LANES)

a convolution takes ``groups * window_sets * filter_steps * depth`` steps of

    ==============  ===============================  ============================================
    serial          cycles of one step               machine
    ==============  ===============================  ============================================
    "weights"       min(Pw, W)                       Stripes with the weight as the serial operand
    "activations"   min(Pa, W)                       Stripes as published
    "both"          min(Pw, W) * ceil(min(Pa, W)/s)  Loom; s = serial_bits
    "none"          1                                DaDianNao
    ==============  ===============================  ============================================

"spatial" machines (BitFusion) have their own step count, see `_spatial`.

A fully connected layer has no windows to share a weight, so its columns work on different input slices; the
rules are in `_single_token`. Over many tokens the shorter of the two schedules is taken: tokens as windows, or
one token after the other.

Groups run one after the other and a depthwise layer keeps one tile busy, because one activation stream feeds all
tiles. ``compat="dnnsim"`` repeats that simulator where it is known to be wrong: more than two groups are run as one
group of narrow filters, and a folded first layer has the window count of its padded square.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stripes_sim._packed import Ints, Packed

if TYPE_CHECKING:
    from stripes_sim.hardware import Accelerator

__all__ = ["ArrayWork", "array_work"]


@dataclass(frozen=True, kw_only=True)
class ArrayWork:
    """What the array does for each layer, int64 of the broadcast shape (L, B).

    ``passes``: how often one copy's weights travel from their buffer; ``filter_steps``: how often its activations do.
    ``scheduled_pes``, ``idle_pes``: PE slots with and without work, idle tiles not counted.
    ``dram_weight_reads``, ``buffer_weight_reads``: DNNsim's counters, 64-bit blocks and buffer accesses.
    """

    compute_cycles: Ints
    scheduled_pes: Ints
    idle_pes: Ints
    passes: Ints
    filter_steps: Ints
    dram_weight_reads: Ints
    buffer_weight_reads: Ints


def ceil_div(numerator: Ints | int, denominator: Ints | int) -> Ints:
    """Integer ceiling of a quotient of positive numbers."""
    return np.asarray(-(-numerator // denominator), dtype=np.int64)


def array_work(work: Packed, hw: Accelerator, weight_bits: Ints, activation_bits: Ints, batch: int = 1) -> ArrayWork:
    """Cycles, PE slots and weight reads of every layer.

    Args:
        work: the packed workload, columns of shape (L, 1).
        hw: the machine.
        weight_bits, activation_bits: int64, shapes that broadcast to (L, B); a matmul's stationary operand is an
            activation, so the caller has put the activation's bits into ``weight_bits`` there.
        batch: samples in one run.

    Raises:
        ValueError: bits that need more PEs side by side than the tile has.
    """
    weight_bits, activation_bits = np.broadcast_arrays(weight_bits, activation_bits)
    if hw.serial == "spatial":
        return _spatial(work, hw, weight_bits, activation_bits, batch)
    lay = _layout(work, hw, weight_bits, activation_bits)

    # windows that share one weight: places of a convolution, tokens of a matrix product
    shared = np.where(work.spatial, lay.windows, work.tokens) * np.where(work.matmul, 1, batch)
    window_sets = work.phases * ceil_div(shared, lay.columns)
    steps = lay.filter_steps * lay.depth
    as_windows = lay.groups * window_sets * steps * _step_cycles(hw, weight_bits, activation_bits)
    one_by_one = shared * _single_token(hw, steps, lay.columns, weight_bits, activation_bits)
    flat = ~work.spatial & ((one_by_one <= as_windows) | (hw.compat == "dnnsim"))

    sets = np.where(flat, shared, lay.groups * window_sets)
    scheduled = np.where(flat, 1, work.phases * lay.pes_per_activation) * shared
    scheduled = scheduled * work.out_channels * lay.pes_per_weight * lay.depth
    slots = sets * lay.filter_sets * lay.depth * hw.rows * np.where(flat, 1, hw.columns)
    repeats = np.where(work.embedding, 0, work.copies * np.where(work.matmul, batch, 1))
    dram_reads, buffer_reads = _weight_reads(hw, weight_bits, lay)
    return ArrayWork(
        compute_cycles=repeats * np.where(flat, one_by_one, as_windows),
        scheduled_pes=repeats * scheduled,
        idle_pes=repeats * (slots - scheduled),
        passes=np.where(flat, shared, ceil_div(shared, lay.columns)),
        filter_steps=lay.filter_steps,
        dram_weight_reads=np.where(repeats > 0, dram_reads, 0),
        buffer_weight_reads=repeats * buffer_reads * np.where(flat, shared, window_sets),
    )


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """How a layer lies on the tiles: what a tile holds at once, and how often it is filled."""

    pes_per_activation: Ints
    pes_per_weight: Ints
    columns: Ints
    rows: Ints
    lanes: Ints
    tiles: Ints
    groups: Ints
    windows: Ints
    filter_sets: Ints
    filter_steps: Ints
    depth: Ints


def _layout(work: Packed, hw: Accelerator, weight_bits: Ints, activation_bits: Ints) -> _Layout:
    pes_per_activation = ceil_div(activation_bits, hw.pe_width_bits)
    pes_per_weight = ceil_div(weight_bits, hw.pe_width_bits)
    columns, rows = hw.columns // pes_per_activation, hw.rows // pes_per_weight
    _check_composition(work, hw, activation_bits, columns, "activation", "columns")
    _check_composition(work, hw, weight_bits, rows, "weight", "rows")

    compat = hw.compat == "dnnsim"
    fold = work.foldable & hw.space_to_depth
    in_channels = np.where(fold, work.folded_channels, work.in_channels)
    channels = in_channels // work.groups
    groups = np.where(in_channels // channels == 2, 2, 1) if compat else work.groups

    # depthwise: lane i and row i of the one tile work on channel i
    depthwise = work.spatial & (channels == 1) & (in_channels != 1)
    diagonal = np.minimum(hw.lanes, rows)
    groups = np.where(depthwise, ceil_div(work.out_channels, diagonal), groups)
    filters = np.where(depthwise, diagonal, ceil_div(work.out_channels, groups))
    rows = np.where(depthwise, diagonal, rows)
    lanes = np.where(depthwise, diagonal, hw.lanes)
    tiles = np.where(depthwise, 1, hw.tiles)

    filter_sets = ceil_div(filters, rows)
    return _Layout(
        pes_per_activation=pes_per_activation,
        pes_per_weight=pes_per_weight,
        columns=columns,
        rows=rows,
        lanes=lanes,
        tiles=tiles,
        groups=groups,
        windows=np.where(fold, work.folded_windows, work.windows) if compat else work.windows,
        filter_sets=filter_sets,
        filter_steps=ceil_div(filter_sets, tiles),
        depth=np.where(fold, work.folded_taps, work.taps) * ceil_div(channels, lanes),
    )


def _step_cycles(hw: Accelerator, weight_bits: Ints, activation_bits: Ints) -> Ints:
    weight = np.minimum(weight_bits, hw.pe_width_bits)
    activation = np.minimum(activation_bits, hw.pe_width_bits)
    if hw.serial == "weights":
        return weight
    if hw.serial == "activations":
        return activation
    if hw.serial == "both":
        return weight * ceil_div(activation, hw.serial_bits)
    return np.ones_like(weight)


def _single_token(hw: Accelerator, steps: Ints, columns: Ints, weight_bits: Ints, activation_bits: Ints) -> Ints:
    """Cycles of a fully connected layer on one input vector.

    The weight buffer delivers one PE-wide word per row and lane each cycle, and no two columns share a weight.

    "activations": the word fills one column per cycle, round robin; a column is busy for Pa cycles. Low precision
    gains nothing here (Judd et al. section 5; DNNsim counts the same).
    "both": one bit plane per cycle, so Pw planes for each step; a column is busy for Pa/s cycles with each.
    "weights": all columns advance by one bit plane per cycle, as far as the word is wide.
    """
    weight = np.minimum(weight_bits, hw.pe_width_bits)
    activation = np.minimum(activation_bits, hw.pe_width_bits)
    if hw.serial == "none":
        return steps
    if hw.serial == "weights":
        return np.maximum(ceil_div(steps, columns) * weight, ceil_div(steps * weight, hw.pe_width_bits))
    issued = steps * weight if hw.serial == "both" else steps
    busy = ceil_div(activation, hw.serial_bits) if hw.serial == "both" else activation
    rounds, rest = (issued - 1) // columns, (issued - 1) % columns
    return np.asarray(rounds * np.maximum(busy, columns) + rest + busy, dtype=np.int64)


def _weight_reads(hw: Accelerator, weight_bits: Ints, lay: _Layout) -> tuple[Ints, Ints]:
    """DNNsim's counters: 64-bit blocks from DRAM, and weight buffer accesses of one window set.

    Rows are padded to the tile, and a value takes a power of two of bits, at least ``data_width_bits``. Blocks are
    dealt to banks in turn; one access fetches as many blocks as a bank is wide.
    """
    values_per_block = 64 // np.maximum(hw.data_width_bits, _power_of_two(weight_bits))
    blocks = ceil_div(lay.lanes, np.maximum(values_per_block, 1)) * lay.rows
    blocks_per_access = max(hw.buffer_bank_width_bits // 64, 1)

    def accesses(count: Ints) -> Ints:
        full, rest = np.divmod(count, blocks_per_access * hw.buffer_banks)
        return np.asarray(full * hw.buffer_banks + np.minimum(rest, hw.buffer_banks), dtype=np.int64)

    full_steps, last_tiles = np.divmod(lay.filter_sets, lay.tiles)
    per_depth = full_steps * accesses(lay.tiles * blocks) + accesses(last_tiles * blocks)
    steps = lay.groups * lay.depth
    return steps * lay.filter_sets * blocks, steps * per_depth


def _power_of_two(bits: Ints) -> Ints:
    return np.asarray(2 ** np.ceil(np.log2(bits)), dtype=np.int64)


def _check_composition(work: Packed, hw: Accelerator, bits: Ints, left: Ints, operand: str, axis: str) -> None:
    if left.min() < 1:
        layer, column = np.argwhere(left < 1)[0]
        raise ValueError(
            f"layer {work.names[layer]!r}: {bits[layer, column]}-bit {operand}s need more than one PE of "
            f"{hw.pe_width_bits} bits side by side, and {hw.name} has {axis}={getattr(hw, axis)}; "
            f"give it a wider pe_width_bits or more {axis}"
        )


def _spatial(work: Packed, hw: Accelerator, weight_bits: Ints, activation_bits: Ints, batch: int) -> ArrayWork:
    """BitFusion (Sharma et al., ISCA 2018): ``lanes`` x ``rows`` fusion units that split into narrow multipliers.

    A unit of W bits (8) is a grid of 2-bit multipliers, so it does ``floor(W/Pa) * floor(W/Pw)`` products at once,
    operands counted as at least 2 bits: 3 bits cost what 4 do, 5 to 7 what 8 do. Operands beyond W take two passes
    each. Layers that read the image (the first, and any with three channels) are unrolled to a matrix product, so that
    few channels do not leave lanes idle.
    """
    width = hw.pe_width_bits
    if width < 2:
        raise ValueError(f"{hw.name}: a spatially composed unit is at least 2 bits wide, but pe_width_bits={width}")
    fusion = np.maximum(width // np.maximum(activation_bits, 2), 1) * np.maximum(width // np.maximum(weight_bits, 2), 1)
    passes = ceil_div(activation_bits, width) * ceil_div(weight_bits, width)
    channels = work.in_channels // work.groups
    spread = hw.lanes * fusion
    unroll = (work.first | (work.in_channels == 3)) & work.spatial & hw.space_to_depth
    depth = np.where(unroll, ceil_div(work.taps * channels, spread), work.taps * ceil_div(channels, spread))
    filter_sets = ceil_div(ceil_div(work.out_channels, work.groups), hw.rows)
    filter_steps = ceil_div(filter_sets, hw.tiles)
    shared = np.where(work.spatial, work.windows, work.tokens) * np.where(work.matmul, 1, batch)
    live = np.where(work.embedding, 0, work.copies * np.where(work.matmul, batch, 1))
    window_sets = work.phases * ceil_div(shared, hw.columns)
    steps = live * work.groups * window_sets * depth
    scheduled = live * work.phases * shared * work.out_channels * depth
    slots = steps * filter_sets * hw.rows * hw.columns
    none = np.zeros_like(steps)
    return ArrayWork(
        compute_cycles=steps * filter_steps * passes,
        scheduled_pes=scheduled,
        idle_pes=slots - scheduled,
        passes=ceil_div(shared, hw.columns),
        filter_steps=filter_steps,
        dram_weight_reads=none,
        buffer_weight_reads=none,
    )

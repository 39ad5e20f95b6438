"""The tile that serial and parallel machines share: one closed form for cycles, PE slots and weight reads.

Source of the tile model: the Stripes tile (Judd et al., MICRO 2016) as DNNsim (isakedo/DNNsim, commit 4748a60)
steps through it; `benchmarks.validate` holds the closed form against that simulator case by case. With

    ab = ceil(Pa / W), wb = ceil(Pw / W)            PEs of W bits side by side for wider operands
    EC = COLUMNS // ab, ER = ROWS // wb             windows and filters that a tile holds at once
    visits       = taps * ceil(windows / EC)        filter_sets  = ceil(filters of a group / ER)
    filter_steps = ceil(filter_sets / TILES)        depth        = ceil(channels of a group / LANES)

a convolution takes ``groups * visits * filter_steps * depth`` steps, each of as many cycles as the dataflow's
`Tiled.step_cycles` says; a transposed one sums the visits of its phases (`stripes_sim.phases`).

A fully connected layer has no windows to share a weight: the weight buffer delivers one PE-wide word per row and lane
each cycle, no two columns share a weight, and its columns work on different input slices (`Tiled.token_cycles`). Over
many tokens the shorter of the two schedules is taken: tokens as windows, or one token after the other.

Groups run one after the other and a depthwise layer keeps one tile busy, because one activation stream feeds all
tiles. ``compat="dnnsim"`` repeats that simulator where it is known to be wrong: more than two groups are run as one
group of narrow filters, and a folded first layer has the window count of its padded square.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from stripes_sim._packed import Floats, Ints, Packed
from stripes_sim.dataflows.base import ArrayWork, Dataflow, ceil_div, power_of_two
from stripes_sim.parameters import Parameters

__all__ = ["Layout", "Tiled", "counted", "layout", "takes_tokens"]


class Tiled(Dataflow):
    """A dataflow on tiles of ``columns`` x ``rows`` PEs with ``lanes`` each: it says how long a step takes."""

    @abstractmethod
    def step_cycles(self, hw: Parameters, weight_bits: Ints, activation_bits: Ints) -> Ints:
        """Cycles of one step, in which every PE of a tile adds up ``lanes`` products of such operands."""

    @abstractmethod
    def token_cycles(
        self, hw: Parameters, steps: Floats, columns: Floats, weight_bits: Ints, activation_bits: Ints
    ) -> Floats:
        """Cycles of a fully connected layer of so many steps on one input vector, spread over the columns."""

    def array_work(
        self, work: Packed, hw: Parameters, weight_bits: Ints, activation_bits: Ints, batch: int
    ) -> ArrayWork:
        """See the head of this file.

        Raises:
            ValueError: bits that need more PEs side by side than the tile has.
        """
        lay = layout(work, hw, weight_bits, activation_bits)
        cycles = self.closed_cycles(work, hw, lay, weight_bits, activation_bits, batch)
        return counted(work, hw, lay, weight_bits, batch, *cycles)

    def closed_cycles(
        self, work: Packed, hw: Parameters, lay: Layout, weight_bits: Ints, activation_bits: Ints, batch: int
    ) -> tuple[Floats, Floats]:
        """Cycles of every layer by both schedules: windows (tokens) side by side, or one token after the other."""
        # PEs side by side hold a wider operand and work at the same time
        weight = np.minimum(weight_bits, hw.pe_width_bits)
        activation = np.minimum(activation_bits, hw.pe_width_bits)
        repeats, steps = work.repeats(batch), lay.filter_steps * lay.depth
        visits = _laid_out(work, hw).visits(batch, lay.columns)
        as_windows = lay.groups * visits * steps * self.step_cycles(hw, weight, activation)
        tokens = _tokens(work, batch)
        one_by_one = tokens * self.token_cycles(hw, steps, lay.columns, weight, activation)
        return repeats * as_windows, repeats * one_by_one

    def at_once(self, hw: Parameters, weight_bits: Ints, activation_bits: Ints) -> tuple[Floats, Floats, Floats]:
        """Wider operands leave room for fewer windows and filters."""
        columns = hw.columns // ceil_div(activation_bits, hw.pe_width_bits)
        rows = hw.rows // ceil_div(weight_bits, hw.pe_width_bits)
        return columns, np.asarray(1.0 * hw.lanes), rows * hw.tiles

    def lane_cycles(self, hw: Parameters, macs: Floats, weight_bits: Ints, activation_bits: Ints) -> Floats:
        """A step's cycles for each, on one lane however wide the operands."""
        return np.asarray(macs * self.step_cycles(hw, weight_bits, activation_bits))


def counted(
    work: Packed, hw: Parameters, lay: Layout, weight_bits: Ints, batch: int, as_windows: Floats, one_by_one: Floats
) -> ArrayWork:
    """Everything that is counted of layers whose cycles by both schedules are known, (L, B)."""
    flat = takes_tokens(work, hw, as_windows, one_by_one)
    work = _laid_out(work, hw)
    repeats, tokens, visits = work.repeats(batch), _tokens(work, batch), work.visits(batch, lay.columns)
    sets = np.where(flat, tokens, lay.groups * visits)
    scheduled = np.where(flat, tokens, lay.pes_per_activation * work.visits(batch))
    scheduled = scheduled * work.out_channels * lay.pes_per_weight * lay.depth
    slots = sets * lay.filter_sets * lay.depth * hw.rows * np.where(flat, 1, hw.columns)
    dram_reads, buffer_reads = _weight_reads(hw, weight_bits, lay)
    return ArrayWork(
        compute_cycles=np.where(flat, one_by_one, as_windows),
        scheduled_pes=repeats * scheduled,
        idle_pes=repeats * (slots - scheduled),
        passes=np.where(flat, tokens, visits / work.taps),
        filter_steps=lay.filter_steps,
        dram_weight_reads=np.where(repeats > 0, dram_reads * work.taps, 0),
        buffer_weight_reads=repeats * buffer_reads * np.where(flat, tokens, visits),
    )


def takes_tokens(work: Packed, hw: Parameters, as_windows: Floats, one_by_one: Floats) -> npt.NDArray[np.bool_]:
    """Whether a layer runs one token after the other, because that is shorter (or what the simulator knows)."""
    return np.asarray(~work.spatial & ((one_by_one <= as_windows) | (hw.compat == "dnnsim")))


def _tokens(work: Packed, batch: int) -> Floats:
    return np.where(work.spatial, 0.0, work.sharing(batch)[:, :1])


def _laid_out(work: Packed, hw: Parameters) -> Packed:
    """With the windows and taps of folded layers."""
    fold = work.foldable & hw.space_to_depth
    if hw.compat == "dnnsim":
        work = replace(work, phase_windows=np.where(fold, work.folded_windows, work.phase_windows))
    if fold.any():
        work = replace(
            work,
            taps=np.where(fold, work.folded_taps, work.taps),
            phase_taps=np.where(fold, work.folded_taps, work.phase_taps),
        )
    return work


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a layer lies on the tiles: what a tile holds at once, and how often it is filled for one tap."""

    pes_per_activation: Floats
    pes_per_weight: Floats
    columns: Floats
    rows: Floats
    lanes: Floats
    tiles: Floats
    groups: Floats
    filter_sets: Floats
    filter_steps: Floats
    depth: Floats


def layout(work: Packed, hw: Parameters, weight_bits: Ints, activation_bits: Ints) -> Layout:
    """How every layer lies on the tiles of ``hw`` at these bits.

    Raises:
        ValueError: bits that need more PEs side by side than the tile has.
    """
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
    return Layout(
        pes_per_activation=pes_per_activation,
        pes_per_weight=pes_per_weight,
        columns=columns,
        rows=rows,
        lanes=lanes,
        tiles=tiles,
        groups=groups,
        filter_sets=filter_sets,
        filter_steps=ceil_div(filter_sets, tiles),
        depth=ceil_div(channels, lanes),
    )


def _weight_reads(hw: Parameters, weight_bits: Ints, lay: Layout) -> tuple[Floats, Floats]:
    """DNNsim's counters for one tap: 64-bit blocks from DRAM, and weight buffer accesses of one window set.

    Rows are padded to the tile, and a value takes a power of two of bits, at least ``data_width_bits``. Blocks are
    dealt to banks in turn; one access fetches as many blocks as a bank is wide.
    """
    values_per_block = 64 // np.maximum(hw.data_width_bits, power_of_two(weight_bits))
    blocks = ceil_div(lay.lanes, np.maximum(values_per_block, 1)) * lay.rows
    blocks_per_access = np.maximum(hw.buffer_bank_width_bits // 64, 1)

    def accesses(count: Floats) -> Floats:
        full, rest = np.divmod(count, blocks_per_access * hw.buffer_banks)
        return np.asarray(full * hw.buffer_banks + np.minimum(rest, hw.buffer_banks))

    full_steps, last_tiles = np.divmod(lay.filter_sets, lay.tiles)
    per_depth = full_steps * accesses(lay.tiles * blocks) + accesses(last_tiles * blocks)
    steps = lay.groups * lay.depth
    return steps * lay.filter_sets * blocks, steps * per_depth


def _check_composition(work: Packed, hw: Parameters, bits: Ints, left: Floats, operand: str, axis: str) -> None:
    if left.min() < 1:
        at = tuple(np.argwhere(left < 1)[0])
        width, there = (np.broadcast_to(getattr(hw, key), left.shape)[at] for key in ("pe_width_bits", axis))
        raise ValueError(
            f"layer {work.names[at[-2]]!r}: {bits[at[-2:]]}-bit {operand}s need more than one PE of "
            f"{width:g} bits side by side, and {hw.name} has {axis}={there:g}; "
            f"give it a wider pe_width_bits or more {axis}"
        )

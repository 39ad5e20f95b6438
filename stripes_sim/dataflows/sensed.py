"""Tiles whose cycles depend on the values that they work on: the walk over a layer that all of them share.

A layer is walked as DNNsim (isakedo/DNNsim, commit 4748a60) does: groups, in them sets of windows, in them filter
steps (as many filters as all tiles hold), in them taps and chunks of ``lanes`` channels. What a step costs is the
machine's answer in `Sensed.costs`. The slowest column of a step holds all others back, or with R registers runs behind:

    R = 0    cycles = sum over steps of max over columns of cost
    R > 0    begin[s, c] = max(end[s - 1, c], max over columns of end[s - 1 - R]),   end = begin + cost

Tokens of a linear layer run one after the other, each chunk of channels in the next column (round robin), or side by
side as windows, whichever takes less. Several runs (sets of ``batch`` samples) are averaged.

``compat="dnnsim"``: as in `stripes_sim.dataflows.tiles`, and linear layers of several filter steps lose the input of a
step whose first column is not the first one; a group behind the last full one of a set is busy for its shortest time.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stripes_sim._gather import Phase, folded_values, folded_weights, phases_of, weights_by_tap
from stripes_sim._packed import Floats, Ints, Packed
from stripes_sim._value_kernels import round_robin, run_ahead
from stripes_sim.dataflows.base import ArrayWork
from stripes_sim.dataflows.tiles import Layout, Tiled, counted, layout, takes_tokens
from stripes_sim.layers import LayerShape
from stripes_sim.parameters import Parameters
from stripes_sim.values import LayerValues, Values

__all__ = ["Costs", "Sensed", "Tile", "Words"]

Words = npt.NDArray[Any]
Cycles = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Tile:
    """How one layer is held: what is at work at once, and the digits that PEs of ``width`` bits make of operands."""

    lanes: int
    columns: int
    rows: int
    tiles: int
    groups: int
    width: int
    activation_digits: int
    weight_digits: int
    weight_bits: int
    diagonal: bool
    """Depthwise: row i works on lane i alone."""

    def filter_steps(self, filters: int) -> int:
        """How often all tiles are filled with so many filters."""
        return -(-filters // (self.rows * self.tiles))


class Costs(NamedTuple):
    """Cycles of a group's steps.

    ``busy``: (window sets, filter steps or 1, taps * chunks, columns or 1): how long each column is busy with a step; 1
    column where all wait for the slowest, 1 filter step where all filters cost the same. ``planes``: (filter steps or
    1, taps * chunks) planes of the weights that follow each other, each of them as long as ``busy`` says.
    """

    busy: Cycles
    planes: Cycles | None = None

    def steps(self) -> Cycles:
        """Cycles of whole steps, shaped as ``busy``."""
        return self.busy if self.planes is None else self.busy * self.planes[..., None]


class _Totals(NamedTuple):
    """Cycles of some steps, the sum of these steps' own cycles, and their number."""

    cycles: float
    steps: float
    number: float

    def plus(self, other: _Totals) -> _Totals:
        return _Totals(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


_NONE = _Totals(0, 0, 0)


class Sensed(Tiled):
    """A dataflow on tiles that looks at values; without them it has a closed form where it does not `needs_values`.

    `Tiled.step_cycles` is the most that a step can take at such bits: what products of two activations count where
    nobody gave their values.
    """

    def needs_values(self, hw: Parameters) -> bool:
        """Whether ``hw`` has no closed form."""
        return True

    def wants_weights(self, hw: Parameters) -> bool:
        """Whether ``hw`` looks at the values of weights, too."""
        return False

    @abstractmethod
    def activation_words(self, hw: Parameters, tile: Tile, values: npt.NDArray[np.int32], signed: bool) -> list[Words]:
        """Activations as the machine sees them, an array for each digit; ``signed``: the layer has negative ones."""

    def weight_words(self, hw: Parameters, tile: Tile, values: npt.NDArray[np.int32], signed: bool) -> Words:
        """Weights (filters, taps, channels) as the machine sees them, (digits or 1, filters, taps, channels)."""
        raise NotImplementedError(f"{self.name} does not look at weights")

    @abstractmethod
    def costs(self, hw: Parameters, tile: Tile, words: list[Words], index: Cycles, filters: Words | None) -> Costs:
        """What the steps of one group cost.

        Args:
            hw: the machine.
            tile: how it holds the layer.
            words: (rows, channels) of the group for each digit; the last row is padding.
            index: (windows, taps), which row each window meets with each tap.
            filters: the group's weights, (digits or 1, filters, taps, channels), where the machine looks at them.
        """

    @abstractmethod
    def cycle_pj(self, hw: Parameters, weight_bits: Floats, activation_bits: Floats) -> Floats:
        """Energy of one lane in one cycle, pJ."""

    def mac_pj(self, hw: Parameters, weight_bits: Floats, activation_bits: Floats) -> Floats:
        """A lane's energy in each cycle of the longest step."""
        longest = self.step_cycles(hw, weight_bits, activation_bits)  # type: ignore[arg-type]  # whole numbers
        return np.asarray(longest * self.cycle_pj(hw, weight_bits, activation_bits))

    def token_cycles(
        self, hw: Parameters, steps: Floats, columns: Floats, weight_bits: Ints, activation_bits: Ints
    ) -> Floats:
        """One word per cycle to the columns in turn, each busy with the longest step."""
        busy = self.step_cycles(hw, weight_bits, activation_bits)
        rounds, rest = (steps - 1) // columns, (steps - 1) % columns
        return np.asarray(rounds * np.maximum(busy, columns) + rest + busy)

    def array_work(
        self, work: Packed, hw: Parameters, weight_bits: Ints, activation_bits: Ints, batch: int
    ) -> ArrayWork:
        """In closed form, where the machine has one.

        Raises:
            ValueError: it needs values.
        """
        if self.needs_values(hw):
            weights = " and weights" if self.wants_weights(hw) else ""
            raise ValueError(
                f"{hw.name} computes with the values of its layers, so it has no cycles without them: give run() "
                f"activations{weights} of stripes_sim.capture(model, inputs), or waveq score --activations validation"
            )
        return super().array_work(work, hw, weight_bits, activation_bits, batch)

    def sensed_work(
        self,
        layers: Sequence[LayerShape],
        values: Values,
        work: Packed,
        hw: Parameters,
        weight_bits: Ints,
        activation_bits: Ints,
        batch: int,
    ) -> ArrayWork:
        """The same from values; bits have the shape (L, 1).

        Raises:
            ValueError: bits that need more PEs side by side than the tile has.
        """
        lay = layout(work, hw, weight_bits, activation_bits)
        closed = self.closed_cycles(work, hw, lay, weight_bits, activation_bits, batch)
        full = self.lane_cycles(hw, np.ones_like(work.macs), weight_bits, activation_bits)
        as_windows, one_by_one, of_windows, of_tokens = (
            np.array(np.broadcast_to(each, work.macs.shape), dtype=np.float64) for each in (*closed, full, full)
        )
        for row, found in values.layers.items():
            tile = _tile(lay, row, hw, work, int(weight_bits[row, 0]))
            measured = np.mean(list(self._runs(hw, layers[row], tile, found)), axis=0)
            as_windows[row], of_windows[row], one_by_one[row], of_tokens[row] = measured
        # a mean over runs need not be whole
        as_windows, one_by_one = np.rint(as_windows), np.rint(one_by_one)
        flat = takes_tokens(work, hw, as_windows, one_by_one)
        array = counted(work, hw, lay, weight_bits, batch, as_windows, one_by_one)
        return replace(array, cycles_per_mac=np.where(flat, of_tokens, of_windows))

    def _runs(self, hw: Parameters, layer: LayerShape, tile: Tile, found: LayerValues) -> Iterator[tuple[float, ...]]:
        """For each run: cycles as windows and their mean step, cycles token by token and theirs."""
        fold = _folds(hw, layer)
        signed = int(found.activations.min()) < 0
        filters = self._filters(hw, layer, tile, found, fold)
        for run, values in enumerate(found.activations):
            side_by_side, in_turn = _NONE, _NONE
            for copy, one in enumerate(values):
                words = self.activation_words(hw, tile, _rows(layer, one, fold), signed)
                own = None
                if filters is not None:
                    number = run * len(values) + copy if layer.kind == "matmul" else copy * len(filters) // len(values)
                    own = filters[number % len(filters)]
                if layer.is_spatial:
                    square = hw.compat == "dnnsim"
                    phases = phases_of(layer, len(one), fold=fold, square=square)
                    side_by_side = side_by_side.plus(self._convolution(hw, layer, tile, words, phases, own))
                else:
                    index = np.arange(len(one))[:, None]
                    side_by_side = side_by_side.plus(
                        _in_order(
                            hw, [(self.costs(hw, tile, words, index, own), tile.filter_steps(layer.out_channels))]
                        )
                    )
                    in_turn = in_turn.plus(self._tokens(hw, layer, tile, words, own))
            yield (
                side_by_side.cycles,
                side_by_side.steps / side_by_side.number,
                in_turn.cycles,
                in_turn.steps / max(in_turn.number, 1),
            )

    def _filters(
        self, hw: Parameters, layer: LayerShape, tile: Tile, found: LayerValues, fold: bool
    ) -> list[Words] | None:
        if found.weights is None or not self.wants_weights(hw):
            return None
        signed = int(found.weights.min()) < 0
        matrices = [folded_weights(layer, each) if fold else each for each in found.weights]
        return [self.weight_words(hw, tile, weights_by_tap(layer, each), signed) for each in matrices]

    def _convolution(
        self,
        hw: Parameters,
        layer: LayerShape,
        tile: Tile,
        words: list[Words],
        phases: list[Phase],
        filters: Words | None,
    ) -> _Totals:
        parts = []
        for channels, first, last in _groups(layer, tile, words[0].shape[1]):
            inputs = [np.ascontiguousarray(digit[:, channels]) for digit in words]
            for phase in phases:
                own = None if filters is None else filters[:, first:last][:, :, phase.taps]
                parts.append((self.costs(hw, tile, inputs, phase.index, own), tile.filter_steps(last - first)))
        return _in_order(hw, parts)

    def _tokens(
        self, hw: Parameters, layer: LayerShape, tile: Tile, words: list[Words], filters: Words | None
    ) -> _Totals:
        """Every token by itself, its chunks in the columns in turn; weight planes are words of their own."""
        filter_steps, count = tile.filter_steps(layer.out_channels), len(words[0]) - 1
        # the columns do not wait for each other: neither for the slowest, nor for a register
        single = replace(hw, column_registers=0) if hw.column_registers else hw
        costs = self.costs(single, replace(tile, columns=1), words, np.arange(count + 1)[:, None], filters)
        shape = (count + 1, filter_steps, costs.busy.shape[2])
        busy = np.array(np.broadcast_to(costs.busy[..., 0], shape))
        planes = np.broadcast_to(1 if costs.planes is None else costs.planes, shape[1:])
        if hw.compat == "dnnsim":
            # its input lies in columns from the first one on, but a further filter step goes on where the last ended
            lost = np.arange(filter_steps) * shape[2] % tile.columns > 0
            busy[:, lost] = busy[count, lost]
            busy, planes = busy * planes, np.ones_like(planes)
        cycles = sum(round_robin(np.repeat(token.ravel(), planes.ravel()), tile.columns) for token in busy[:count])
        whole = busy[:count] * planes
        return _Totals(float(cycles), float(whole.mean()) * count, count)


def _in_order(hw: Parameters, parts: list[tuple[Costs, int]]) -> _Totals:
    """Steps of all parts after each other; each part with how many filter steps it takes."""
    cycles = summed = count = 0.0
    columns = max(costs.busy.shape[3] for costs, _ in parts)
    busy, earlier = np.zeros(columns, dtype=np.int64), np.zeros(max(hw.column_registers, 1), dtype=np.int64)
    clock = np.zeros(2, dtype=np.int64)
    for costs, filter_steps in parts:
        steps = costs.steps()
        repeat = filter_steps // steps.shape[1]
        slowest = steps.max(axis=3)
        summed += float(slowest.sum()) * repeat
        count += slowest.size * repeat
        if hw.column_registers:
            run_ahead(np.ascontiguousarray(steps[:, 0]), filter_steps, busy, earlier, clock)
    cycles = float(busy.max()) if hw.column_registers else summed
    return _Totals(cycles, summed, count)


def _folds(hw: Parameters, layer: LayerShape) -> bool:
    plain = layer.kind == "conv" and layer.in_channels == 3 and layer.groups == 1 and set(layer.dilation) == {1}
    return hw.space_to_depth and plain and max(layer.stride) > 1


def _rows(layer: LayerShape, values: npt.NDArray[np.int32], fold: bool) -> npt.NDArray[np.int32]:
    """Places by channels, and a row of zeros behind them."""
    if layer.is_spatial:
        values = np.moveaxis(folded_values(layer, values) if fold else values, 1, -1)
    rows = values.reshape(-1, values.shape[-1])
    return np.concatenate([rows, np.zeros((1, rows.shape[1]), dtype=rows.dtype)])


def _groups(layer: LayerShape, tile: Tile, channels: int) -> Iterator[tuple[Cycles, int, int]]:
    """Channels of each group, and the first filter and the one behind the last."""
    if tile.diagonal:
        for first in range(0, layer.out_channels, tile.rows):
            last = min(first + tile.rows, layer.out_channels)
            yield np.arange(first, last) * layer.groups // layer.out_channels, first, last
        return
    per_group, filters = channels // layer.groups, -(-layer.out_channels // tile.groups)
    for group in range(tile.groups):
        taken = np.arange(group * per_group, (group + 1) * per_group)
        yield taken, group * filters, min((group + 1) * filters, layer.out_channels)


def _tile(lay: Layout, row: int, hw: Parameters, work: Packed, weight_bits: int) -> Tile:
    def of(values: Floats | float) -> int:
        return int(np.broadcast_to(values, work.macs.shape)[row, 0])

    channels = work.in_channels[row, 0] // work.groups[row, 0]
    return Tile(
        lanes=of(lay.lanes),
        columns=of(lay.columns),
        rows=of(lay.rows),
        tiles=of(lay.tiles),
        groups=of(lay.groups),
        width=hw.pe_width_bits,
        activation_digits=of(lay.pes_per_activation),
        weight_digits=of(lay.pes_per_weight),
        weight_bits=weight_bits,
        diagonal=bool(work.spatial[row, 0]) and channels == 1 and work.in_channels[row, 0] != 1,
    )

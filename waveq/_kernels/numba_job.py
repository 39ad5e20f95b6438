"""One call that rounds several layers: its tables, which stay for as long as the weights lie where they are."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from waveq._kernels import numba_rounding as loops
from waveq._kernels.lanes import NEAR, squash_tanh, squash_tanh_near
from waveq._kernels.numba_rounding import CLOSED, DIVISOR_FOLLOWS, GAIN_FOLLOWS, TANH, TIES, WAVE, Columns
from waveq._kernels.recipe import TINY, Coordinate, Plan, number
from waveq._kernels.storage import dense, widened
from waveq._kernels.threads import count_chunks, runs_alone, share_chunks

__all__ = ["RoundingJob", "RoundingTables", "squashed_divisor"]

Table = npt.NDArray[Any]


@dataclass(slots=True)
class RoundingTables:
    """See ``interface.Tables``; as ``numba_rounding`` describes them."""

    edges: Table
    places: Table
    rows: Table

    def some(self, places: Sequence[int]) -> RoundingTables:
        """Copies of some layers' rows."""
        chunks = np.diff(self.edges)[places]
        return RoundingTables(np.concatenate([[0], np.cumsum(chunks)]), self.places[places], self.rows[places])


class RoundingJob:
    """See ``interface.Job``; tables as ``numba_rounding`` describes them."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self._given = list(weights)
        self.weights = [dense(widened(weight.detach())) for weight in weights]  # alive while addresses point at them
        sizes = [weight.numel() for weight in self.weights]
        self._addresses = [weight.data_ptr() for weight in self.weights]
        edges = [0, *itertools.accumulate(map(count_chunks, sizes))]
        self.chunks = edges[-1]
        self.edges = np.array(edges)
        self.places = np.array([(a, 0, 0, size, 0) for a, size in zip(self._addresses, sizes, strict=True)])
        self.rows = np.zeros((len(sizes), len(Columns)), np.float32)
        self._bits, self._sums = np.zeros(self.chunks, np.int32), np.zeros(self.chunks)
        self._means = np.zeros(len(sizes))

    def fits(self, weights: Sequence[Tensor]) -> bool:
        """Whether the tables are those of these weights as they lie now."""
        return len(weights) == len(self._given) and all(
            ours is theirs and address == theirs.data_ptr()
            for ours, theirs, address in zip(self._given, weights, self._addresses, strict=True)
        )

    def set(self, places: Sequence[int], plans: Sequence[Plan], *, follows: bool) -> None:
        """How some layers are rounded; ``follows``: what the recipes take from max|w| is taken from the weights."""
        self.places[places, 4] = [_kind(plan, follows) for plan in plans]
        self.rows[places] = [_row(plan, follows) for plan in plans]

    def settle(self) -> None:
        """Find each layer's largest weight, and what follows from it."""
        share_chunks(loops.largest_chunks, self.chunks, self.edges, self.places, self._bits)
        loops.settle(self.edges, self.places, self.rows, self._bits)

    def run(self) -> tuple[list[Tensor], list[float], list[float]]:
        """The levels of all layers in float32, their mean sin^2, their max|w|."""
        outs = [torch.empty_like(weight) for weight in self.weights]
        self.places[:, 1] = [out.data_ptr() for out in outs]
        tables = self.edges, self.places, self.rows
        if runs_alone(self.chunks):
            loops.round_at_once(self.chunks, *tables, self._bits, self._sums, self._means)
        else:
            self.settle()
            share_chunks(loops.round_chunks, self.chunks, *tables, self._sums)
            loops.mean_by_layer(self.edges, self.places, self._sums, self._means)
        return outs, self._means.tolist(), self.rows[:, Columns.LARGEST].tolist()

    def tables(self, part: slice) -> RoundingTables:
        """See ``interface.Job``."""
        edges = self.edges[part.start : part.stop + 1]
        return RoundingTables(edges - edges[0], self.places[part].copy(), self.rows[part].copy())


def _kind(plan: Plan, follows: bool) -> int:
    kind, rounding = 0 if plan.wave is None else WAVE, plan.rounding
    if rounding.coordinate.squash == "tanh":
        kind += TANH + (TIES if rounding.coordinate.through_largest else 0)
    if follows:
        kind += DIVISOR_FOLLOWS if rounding.divisor_follows else 0
        kind += GAIN_FOLLOWS if rounding.gain_follows else 0
    return kind + (CLOSED if rounding.closed else 0)


def _row(plan: Plan, follows: bool) -> list[float]:
    """A row of the table; the wave's slope is left open, and what follows from the largest weight is found later."""
    r, c, wave = plan.rounding, plan.rounding.coordinate, plan.wave
    divisor = number(c.divisor) if follows and r.divisor_follows else squashed_divisor(c)
    phase = [1.0, 0.0, 0.0, 0.0, 0.0]
    if wave is not None:
        v = wave.coordinate
        within = divisor if v.squash == "tanh" else number(v.divisor)
        phase = [within, number(v.low), number(v.high), wave.periods, wave.grid.shift]
    ends = [number(c.low), number(c.high), number(r.pitch), number(r.gain), number(r.low), number(r.high), r.shift]
    return [divisor, *ends, *phase, 0.0, 0.0, 0.0]


def squashed_divisor(c: Coordinate) -> float:
    """The divisor; max|tanh w| by the kernels' own tanh, so that the largest u is exactly 1."""
    if c.squash == "tanh" and c.largest is not None:
        largest = number(c.largest)
        squashed: float = (squash_tanh_near if largest <= NEAR else squash_tanh)(np.float32(largest))
        if squashed > TINY:
            return squashed
    return number(c.divisor)

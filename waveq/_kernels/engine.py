"""What an engine computes: plain data in, tensors out, no autograd."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import torch
from torch import Tensor

from waveq._kernels.constants import constants
from waveq._kernels.levels import Levels, Number, settled_step
from waveq._kernels.parts import Parts

__all__ = ["SUMS", "Column", "Engine", "Table", "rows_of"]

SUMS = 5  # of the way back, see ``Engine.round_backward``


class Column(IntEnum):
    """Of ``Table.rows``. V is the wave's coordinate, see ``levels.Levels``."""

    DIVISOR = 0
    U_LOW = 1
    U_HIGH = 2
    PITCH = 3
    GAIN = 4
    LOW = 5
    HIGH = 6
    SHIFT = 7
    V_DIVISOR = 8
    V_LOW = 9
    V_HIGH = 10
    PERIODS = 11
    LARGEST = 12
    STEP = 13


@dataclass(slots=True)
class Table:
    """How L layers are rounded, and the wave beside it; a layer has one row, or one for each of its output channels.

    Attributes:
        rows: (R, len(Column)), on the weights' device; float32, float64 for float64 weights.
        tanh: whether weights are squashed by tanh.
        closed: whether an outermost level counts as inside.
        rounds: whether quantised values are wanted.
        wave: whether the wave is.
        parts: whose rows they are; None where each layer has one. Weights then come ``in_parts``.
    """

    rows: Tensor
    tanh: bool
    closed: bool
    rounds: bool
    wave: bool
    parts: Parts | None = None

    def some(self, at: slice | list[int]) -> Table:
        """Some layers' rows."""
        if self.parts is None:
            return Table(self.rows[at], self.tanh, self.closed, self.rounds, self.wave)
        rows = self.rows[self.parts.rows(at)]
        return Table(rows, self.tanh, self.closed, self.rounds, self.wave, self.parts.some(at))


def rows_of(levels: Levels, shift: float, periods: Tensor, largest: Tensor) -> Tensor:
    """``Table.rows`` from the numbers of R rows.

    Args:
        levels: (R,) tensors or numbers.
        shift: the grid's.
        periods: (R,), of the wave per unit of v; their dtype is that of the rows.
        largest: (R,) max|w|. All-zero weights have no wave: their v is 0 and feels no pull, also where that is a crest.
    """
    v = levels.divisor if levels.wave_divisor is None else levels.wave_divisor
    ends = levels.bounds if levels.wave_bounds is None else levels.wave_bounds
    if shift != 0.0:
        v = torch.where(largest == 0.0, torch.inf, v)
    columns: list[Number] = [levels.divisor, *levels.bounds, levels.pitch, levels.gain, levels.low, levels.high, shift]
    columns += [v, *ends, periods, largest]
    gains = isinstance(levels.gain, Tensor) or levels.gain != 1.0
    if not periods.is_cpu:
        made = [_column(value, periods) for value in columns]
        gain, pitch, high = made[Column.GAIN], made[Column.PITCH], made[Column.HIGH]
        return torch.stack([*made, settled_step(gain, pitch, high) if gains else pitch], dim=1)
    rows = torch.empty(len(periods), len(columns) + 1, dtype=periods.dtype)
    table = rows.numpy()  # a third of the time that torch takes
    for place, value in enumerate(columns):
        table[:, place] = value.detach().numpy() if isinstance(value, Tensor) else value
    pitches = table[:, Column.PITCH]
    table[:, Column.STEP] = settled_step(table[:, Column.GAIN], pitches, table[:, Column.HIGH]) if gains else pitches
    return rows


def _column(value: Number, like: Tensor) -> Tensor:
    if not isinstance(value, Tensor):
        return constants((value,), like.dtype, like.device).expand(like.shape)
    column = value.detach()
    if column.dtype != like.dtype:
        column = column.to(like.dtype)
    return column if column.shape == like.shape else column.expand(like.shape)


class Engine(Protocol):
    """One implementation of all kernels.

    Attributes:
        name: what ``waveq.backend()`` shows.
    """

    name: str

    def takes(self, dtype: torch.dtype) -> bool:
        """Whether the kernels exist for this dtype."""

    def joins(self, dtype: torch.dtype) -> bool:
        """Whether layers of this dtype are worth one call together."""

    def largest(self, weights: Sequence[Tensor], parts: Parts | None = None) -> Tensor:
        """max|w| of each row, (R,), float32 at least; NaN where a weight is NaN."""

    def tanh(self, values: Tensor) -> Tensor:
        """The kernels' own tanh, so that the largest weight over max|tanh w| is 1."""

    def round(self, weights: Sequence[Tensor], table: Table) -> tuple[list[Tensor], Tensor]:
        """Weights on their levels, in their dtype and layout, and each layer's mean sin^2, (L,)."""

    def round_backward(
        self, weights: Sequence[Tensor], table: Table, above: Sequence[Tensor | None], slopes: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """What goes back, u being computed again from the weights.

        Args:
            weights: the layers.
            table: as they were rounded.
            above: the gradients of the quantised values.
            slopes: (R,): what sin(2 theta) is multiplied with to be the wave's gradient in v.

        Returns:
            Gradients of the weights with the divisors held, and (R, ``SUMS``): the sums of g (steps - x) or g steps
            (inside and beyond the levels), of g steps, of g u inside, of v sin(2 theta), and the same inside the
            wave's bounds.
        """

    def push_largest(self, weights: Sequence[Tensor], table: Table, push: Tensor, out: Sequence[Tensor]) -> None:
        """Add to ``out`` the gradient of max|f(w)| times ``push`` (R,), split among the largest weights."""

    def lengths(self, weights: Sequence[Tensor], table: Table, tasks: Sequence[Tensor]) -> Tensor:
        """(L, 4): sums of pull^2, of its quarter-period twin^2, of task * pull and of task^2; pulls for slope 1."""

    def clip_round(self, x: Tensor, low: float, steps: float) -> Tensor:
        """round(clip(x, low, 1) steps) / steps."""

    def clip_round_backward(self, x: Tensor, low: float, gradient: Tensor, *, closed: bool = True) -> Tensor:
        """The gradient where low <= x <= 1, or low < x <= 1 unless ``closed``; zero elsewhere."""

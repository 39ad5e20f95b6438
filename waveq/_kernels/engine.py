"""What an engine computes: plain data in, tensors out, no autograd."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import torch
from torch import Tensor

from waveq._kernels.levels import Levels, Number

__all__ = ["SUMS", "Column", "Engine", "Table", "constants", "rows_of"]

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


@dataclass(slots=True)
class Table:
    """How L layers are rounded, and the wave beside it.

    Attributes:
        rows: (L, len(Column)), on the weights' device; float32, float64 for float64 weights.
        tanh: whether weights are squashed by tanh.
        closed: whether an outermost level counts as inside.
        rounds: whether quantised values are wanted.
        wave: whether the wave is.
    """

    rows: Tensor
    tanh: bool
    closed: bool
    rounds: bool
    wave: bool

    def some(self, at: slice | list[int]) -> Table:
        """Some layers' rows."""
        return Table(self.rows[at], self.tanh, self.closed, self.rounds, self.wave)


def rows_of(levels: Levels, shift: float, periods: Tensor, largest: Tensor) -> Tensor:
    """``Table.rows`` from the numbers of L layers.

    Args:
        levels: (L,) tensors or numbers.
        shift: the grid's.
        periods: (L,), of the wave per unit of v; their dtype is that of the rows.
        largest: (L,) max|w|. An all-zero layer has no wave: its v is 0 and feels no pull, also where that is a crest.
    """
    v = levels.divisor if levels.wave_divisor is None else levels.wave_divisor
    ends = levels.bounds if levels.wave_bounds is None else levels.wave_bounds
    if shift != 0.0:
        v = torch.where(largest == 0.0, torch.inf, v)
    columns: list[Number] = [levels.divisor, *levels.bounds, levels.pitch, levels.gain, levels.low, levels.high, shift]
    columns += [v, *ends, periods, largest]
    if not periods.is_cpu:
        return torch.stack([_column(value, periods) for value in columns], dim=1)
    rows = torch.empty(len(periods), len(columns), dtype=periods.dtype)
    table = rows.numpy()  # a third of the time that torch takes
    for place, value in enumerate(columns):
        table[:, place] = value.detach().numpy() if isinstance(value, Tensor) else value
    return rows


def _column(value: Number, like: Tensor) -> Tensor:
    if not isinstance(value, Tensor):
        return constants((value,) * len(like), like.dtype, like.device)
    column = value.detach()
    if column.dtype != like.dtype:
        column = column.to(like.dtype)
    return column if column.shape == like.shape else column.expand(like.shape)


@functools.lru_cache(maxsize=256)
def constants(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A vector that is made once; nobody may write to it.

    Example:
        >>> constants((1.0, 2.0), torch.float32, torch.device("cpu"))
        tensor([1., 2.])
    """
    with torch.inference_mode(False):  # it may be used where gradients are
        return torch.tensor(values, dtype=dtype, device=device)


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

    def largest(self, weights: Sequence[Tensor]) -> Tensor:
        """max|w| of each, (L,), float32 at least; NaN where a weight is NaN."""

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
            slopes: (L,): what sin(2 theta) is multiplied with to be the wave's gradient in v.

        Returns:
            Gradients of the weights with the divisors held, and (L, ``SUMS``): the sums of g (steps - x) or g steps
            (inside and beyond the levels), of g steps, of g u inside, of v sin(2 theta), and the same inside the
            wave's bounds.
        """

    def push_largest(self, weights: Sequence[Tensor], table: Table, push: Tensor, out: Sequence[Tensor]) -> None:
        """Add to ``out`` the gradient of max|f(w)| times ``push`` (L,), split among the largest weights."""

    def lengths(self, weights: Sequence[Tensor], table: Table, tasks: Sequence[Tensor]) -> Tensor:
        """(L, 4): sums of pull^2, of its quarter-period twin^2, of task * pull and of task^2; pulls for slope 1."""

    def clip_round(self, x: Tensor, low: float, steps: float) -> Tensor:
        """round(clip(x, low, 1) steps) / steps."""

    def clip_round_backward(self, x: Tensor, low: float, gradient: Tensor, *, closed: bool = True) -> Tensor:
        """The gradient where low <= x <= 1, or low < x <= 1 unless ``closed``; zero elsewhere."""

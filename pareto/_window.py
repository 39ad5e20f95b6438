"""Few rows, or few efficient ones, in one pass: the efficient rows so far, of which the busiest stand in front.

Börzsönyi, Kossmann and Stocker, "The skyline operator", ICDE 2001 (block nested loops). It needs no sort, and where the
window stays short nothing is faster. Where it gets long, it only discards what its members dominate, or nothing where
few rows are dominated, and others divide and conquer what is left.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pareto._check import Floats
from pareto._jit import compiled

__all__ = ["few_efficient"]

Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]
_ROWS = 32768  # more are filtered by several threads
_LONGEST = (0, 0, 24, 48)  # windows for so many objectives; those of more may have
_LONG = 128
_WORTH = 4  # a full window goes on discarding after so many times as many rows


def few_efficient(points: Floats, signs: Floats) -> tuple[Indices, bool] | None:
    """The rows that may be efficient, rising, and whether they all are; None where they may be all.

    Equal rows share their fate.

    Args:
        points: compared after multiplication by `signs`, smaller is better; not NaN.
        signs: (M,) of +1 and -1.

    >>> few_efficient(np.array([[3.0, 1.0], [2.0, 2.0], [3.0, 2.0], [2.0, 2.0]]), np.ones(2))
    (array([0, 1, 3]), True)
    """
    rows, objectives = points.shape
    if rows > _ROWS:
        return None
    longest = _LONGEST[objectives] if objectives < len(_LONGEST) else _LONG
    window, numbers = np.empty((longest, objectives)), np.empty(longest, dtype=np.int64)
    mask = np.zeros(rows, dtype=np.bool_)
    stopped = _pass(points, signs, window, numbers, mask)
    if stopped < _WORTH * longest and stopped < rows:
        return None
    _discard(points, signs, stopped, window, mask)
    return np.flatnonzero(mask), stopped == rows


@compiled
def _pass(points: Floats, signs: Floats, window: Floats, numbers: npt.NDArray[np.int64], mask: Bools) -> int:
    """The first row for which the window had no room, or the number of rows; the mask says what is in the window."""
    objectives, size, stopped = points.shape[1], 0, len(points)
    row_values = np.empty(objectives)
    for row in range(len(points)):
        for column in range(objectives):
            row_values[column] = points[row, column] * signs[column]
        by = _dominator(window, size, row_values)
        if by >= 0:
            if by > 0:  # what strikes once will strike again: forward, half the way
                _swap(window, numbers, by)
            continue
        size = _without_dominated(window, numbers, size, row_values)
        if size == len(window):
            stopped = row
            break
        for column in range(objectives):
            window[size, column] = row_values[column]
        numbers[size] = row
        size += 1
    for place in range(size):
        mask[numbers[place]] = True
    return stopped


@compiled
def _discard(points: Floats, signs: Floats, start: int, window: Floats, mask: Bools) -> None:
    """Mark the rows from `start` on that no member of the window, which is full, dominates."""
    values = np.empty(points.shape[1])
    for row in range(start, len(points)):
        for column in range(len(values)):
            values[column] = points[row, column] * signs[column]
        mask[row] = _dominator(window, len(window), values) < 0


@compiled
def _dominator(window: Floats, size: int, values: Floats) -> int:
    """The first member of the window that dominates the values, or -1."""
    for member in range(size):
        better, column = False, 0
        while column < len(values) and window[member, column] <= values[column]:
            better = better or window[member, column] < values[column]
            column += 1
        if better and column == len(values):
            return member
    return -1


@compiled
def _without_dominated(window: Floats, numbers: npt.NDArray[np.int64], size: int, values: Floats) -> int:
    """Drop the members that the values, which none of them dominates, dominate; the new size."""
    kept = 0
    for member in range(size):
        better, column = False, 0
        while column < len(values) and values[column] <= window[member, column]:
            better = better or values[column] < window[member, column]
            column += 1
        if better and column == len(values):
            continue
        if kept < member:
            for place in range(len(values)):
                window[kept, place] = window[member, place]
            numbers[kept] = numbers[member]
        kept += 1
    return kept


@compiled
def _swap(window: Floats, numbers: npt.NDArray[np.int64], place: int) -> None:
    ahead = place // 2
    for column in range(window.shape[1]):
        window[ahead, column], window[place, column] = window[place, column], window[ahead, column]
    numbers[ahead], numbers[place] = numbers[place], numbers[ahead]

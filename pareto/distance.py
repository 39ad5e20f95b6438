"""How far points lie from a frontier, one objective at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pareto._check import Floats, nearest, points_array, sense_list, sense_signs
from pareto._jit import compiled, shared

__all__ = ["distance"]

_WORTH_A_THREAD = 100_000  # pairs of a point and a front point


def distance(points: Any, front: Any, *, sense: Sequence[str] | Mapping[str, str]) -> Any:
    """For each point and objective, how much better the frontier is while being no worse in any other
    objective.

    With accuracy and energy: how much more accuracy the frontier has at no more energy, and how much less
    energy at no less accuracy.

    Args:
        points: (N, M) values, or a frame with the objective columns.
        front: (F, M) values or a frame; need not be efficient nor sorted.
        sense: "max" or "min" for each objective; by name, it selects columns of frames.

    Returns:
        (N, M) float64, or a frame with the index of `points` and the objectives as columns, in the
        objectives' units: 0 on the frontier, positive behind it, negative beyond it, NaN where no front point
        is as good in the others.

    Raises:
        ValueError, TypeError: NaN (with its row), an empty front, columns that do not fit.

    >>> front = [[90.0, 2.0], [95.0, 5.0]]
    >>> distance([[91.0, 7.0], [90.0, 2.0], [96.0, 1.0]], front, sense=("max", "min")).tolist()
    [[4.0, 2.0], [0.0, 0.0], [nan, nan]]
    """
    if isinstance(sense, Mapping):
        points, front = _selected(points, sense, "points"), _selected(front, sense, "front")
    array, names = points_array(points, "points")
    other, other_names = points_array(front, "front")
    if len(names) != len(other_names) or not len(other):
        raise ValueError(f"front must have shape (at least 1, {len(names)}), got {other.shape}")
    signs = sense_signs(sense_list(sense, names))
    gaps = np.full(array.shape, np.nan)
    signed = np.ascontiguousarray(array * signs), np.ascontiguousarray(other * signs)
    shared(_gaps, len(array), *signed, gaps, worth=-(-_WORTH_A_THREAD // len(other)))
    return pd.DataFrame(gaps, index=points.index, columns=names) if isinstance(points, pd.DataFrame) else gaps


def _selected(table: Any, sense: Mapping[str, str], argument: str) -> pd.DataFrame:
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"{argument} must be a frame when sense goes by name, got {type(table).__name__}")
    for name in sense:
        if name not in table.columns:
            raise ValueError(f"{argument} lacks the objective {name!r}{nearest(name, table.columns)}")
    return table[list(sense)]


@compiled
def _gaps(first: int, last: int, points: Floats, front: Floats, gaps: Floats) -> None:
    objectives = points.shape[1]
    for row in range(first, last):
        for other in range(len(front)):
            worse, where = 0, 0  # in how many objectives the front point is worse, and in which
            for column in range(objectives):
                if front[other, column] > points[row, column]:
                    worse += 1
                    where = column
            if worse == 1:
                gaps[row, where] = _larger(gaps[row, where], points[row, where] - front[other, where])
            elif worse == 0:
                for column in range(objectives):
                    gaps[row, column] = _larger(gaps[row, column], points[row, column] - front[other, column])


@compiled
def _larger(gap: float, other: float) -> float:
    """The larger one; NaN, which stands for none yet, gives way."""
    return gap if gap >= other else other

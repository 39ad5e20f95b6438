"""How far points lie from a frontier, one objective at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numba
import numpy as np
import pandas as pd

from pareto._check import Floats, nearest, points_array, sense_list, sense_signs
from pareto._jit import jit_parallel

__all__ = ["distance"]


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
    gaps = _gaps(np.ascontiguousarray(array * signs), np.ascontiguousarray(other * signs))
    return pd.DataFrame(gaps, index=points.index, columns=names) if isinstance(points, pd.DataFrame) else gaps


def _selected(table: Any, sense: Mapping[str, str], argument: str) -> pd.DataFrame:
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"{argument} must be a frame when sense goes by name, got {type(table).__name__}")
    for name in sense:
        if name not in table.columns:
            raise ValueError(f"{argument} lacks the objective {name!r}{nearest(name, table.columns)}")
    return table[list(sense)]


@jit_parallel
def _gaps(points: Floats, front: Floats) -> Floats:
    rows, objectives = points.shape
    gaps = np.full((rows, objectives), np.nan)
    for row in numba.prange(rows):
        for other in range(len(front)):
            worse, where = 0, 0  # in how many objectives the front point is worse, and in which
            for column in range(objectives):
                if front[other, column] > points[row, column]:
                    worse += 1
                    where = column
            for column in range(objectives):
                if worse == 0 or (worse == 1 and where == column):
                    gap = points[row, column] - front[other, column]
                    if not gaps[row, column] >= gap:  # the first one replaces NaN
                        gaps[row, column] = gap
    return gaps

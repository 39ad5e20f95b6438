"""Compiled dominance tests. Smaller is better in every column: the public doors turn signs beforehand."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pareto._check import Floats
from pareto._jit import jit

__all__ = ["efficient_2d_sorted", "efficient_sorted"]

Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]


@jit
def efficient_2d_sorted(points: Floats, order: Indices) -> Bools:
    """Two objectives, rows in lexicographic `order`: efficient when below all earlier rows in the second."""
    mask = np.zeros(points.shape[0], dtype=np.bool_)
    lowest, at = np.inf, np.nan
    for row in order:
        x, y = points[row, 0], points[row, 1]
        if y < lowest or (y == lowest and (x == at or at != at)):
            mask[row] = True
            if y < lowest or at != at:
                lowest, at = y, x
    return mask


@jit
def efficient_sorted(points: Floats, order: Indices) -> Bools:
    """Any number of objectives, rows in lexicographic `order`: dominating rows come before their victims."""
    rows, objectives = points.shape
    mask = np.zeros(rows, dtype=np.bool_)
    front = np.empty(rows, dtype=np.int64)
    size = 0
    for row in order:
        efficient = True
        for slot in range(size):
            other = front[slot]
            better, worse = False, False
            for column in range(objectives):
                better = better or points[other, column] < points[row, column]
                if points[other, column] > points[row, column]:
                    worse = True
                    break
            if better and not worse:
                efficient = False
                # The row that struck last is likely to strike again: keep it in front.
                front[slot], front[slot // 2] = front[slot // 2], front[slot]
                break
        if efficient:
            mask[row] = True
            front[size] = row
            size += 1
    return mask

"""Non-dominated sorting: the front is rank 0, the front of what is left rank 1, and so on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pareto._check import Floats, points_array, sense_list, sense_signs
from pareto._jit import compiled

__all__ = ["rank"]

Indices = npt.NDArray[np.int64]


def rank(points: Any, *, sense: Sequence[str] | Mapping[str, str]) -> Indices:
    """The number of the front that each row belongs to, 0 being the efficient rows.

    Two objectives take O(N log N). More take a search over the fronts for every row, O(N^2) comparisons at
    worst (Zhang, Tian, Cheng and Jin, IEEE Trans. Evol. Comput. 19 (2015), "ENS-BS").

    Args:
        points: (N, M) values or a frame; compared as float64, never written to.
        sense: "max" or "min" for each objective, in column order or by name.

    Returns:
        (N,) int64. Equal rows have equal ranks.

    Raises:
        ValueError, TypeError: as for `is_efficient`; NaN is refused with its row.

    >>> rank([[90, 2], [80, 3], [95, 5], [70, 9], [90, 2]], sense=("max", "min")).tolist()
    [0, 1, 0, 2, 0]
    """
    array, names = points_array(points)
    signed = array * sense_signs(sense_list(sense, names))
    order = np.lexsort(signed.T[::-1])
    ranks = np.empty(len(signed), dtype=np.int64)
    records = np.ascontiguousarray(signed[order])
    ranks[order] = _rank_2d(records) if signed.shape[1] == 2 else _rank_nd(records)
    return ranks


@compiled
def _rank_2d(records: Floats) -> Indices:
    """Records in lexicographic order. A front dominates the record when its lowest y so far is no higher."""
    rows = len(records)
    ranks = np.zeros(rows, dtype=np.int64)
    lowest = np.empty(rows)  # of each front; rises from front to front
    fronts = 0
    for row in range(rows):
        if row > 0 and records[row, 0] == records[row - 1, 0] and records[row, 1] == records[row - 1, 1]:
            ranks[row] = ranks[row - 1]
            continue
        low, high = 0, fronts
        while low < high:
            middle = (low + high) // 2
            if lowest[middle] <= records[row, 1]:
                low = middle + 1
            else:
                high = middle
        ranks[row] = low
        lowest[low] = records[row, 1]
        fronts = max(fronts, low + 1)
    return ranks


@compiled
def _rank_nd(records: Floats) -> Indices:
    """Records in lexicographic order; if one of a front dominates the record, one of every lower front does."""
    rows, objectives = records.shape
    ranks = np.zeros(rows, dtype=np.int64)
    newest = np.full(rows, -1, dtype=np.int64)  # the last record of each front
    before = np.full(rows, -1, dtype=np.int64)  # the record of the same front that came before
    fronts = 0
    for row in range(rows):
        if row > 0 and _equal(records, row, row - 1):
            ranks[row] = ranks[row - 1]
            continue
        low, high = 0, fronts
        while low < high:
            middle = (low + high) // 2
            other, dominated = newest[middle], False
            while other >= 0 and not dominated:
                dominated = True
                for column in range(1, objectives):
                    if records[other, column] > records[row, column]:
                        dominated = False
                        break
                other = before[other]
            if dominated:
                low = middle + 1
            else:
                high = middle
        ranks[row] = low
        before[row], newest[low] = newest[low], row
        fronts = max(fronts, low + 1)
    return ranks


@compiled
def _equal(records: Floats, one: int, other: int) -> bool:
    for column in range(records.shape[1]):  # noqa: SIM110 (numba has no all() over a generator)
        if records[one, column] != records[other, column]:
            return False
    return True

"""Non-dominated sorting: the front is rank 0, the front of what is left rank 1, and so on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pareto._check import Floats, points_array, sense_list, sense_signs
from pareto._jit import compiled
from pareto._kernels_nd import Places, any_as_low, as_places, lexicographic

__all__ = ["rank"]

Indices = npt.NDArray[np.int64]


def rank(points: Any, *, sense: Sequence[str] | Mapping[str, str]) -> Indices:
    """The number of the front that each row belongs to, 0 being the efficient rows.

    Rows come by the first objective, and the fronts so far are searched by halving for the first that does not
    dominate the row (Zhang, Tian, Cheng and Jin, IEEE Trans. Evol. Comput. 19 (2015), "ENS-BS"). With two objectives a
    front is known by one number, with three by a staircase; with more its members are compared one by one, O(N^2) at
    worst.

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
    if signed.shape[1] == 1 or not len(signed):
        return np.unique(signed[:, 0], return_inverse=True)[1]
    ranks = np.empty(len(signed), dtype=np.int64)
    if signed.shape[1] > 3:
        places = as_places(signed)
        order = lexicographic(places)
        ranks[order] = _rank_nd(np.ascontiguousarray(places[:, order]))
        return ranks
    order = np.argsort(signed[:, 0])
    first = signed[order, 0]
    if (first[1:] == first[:-1]).any():
        order = np.lexsort(signed.T[::-1])
    kernel = _rank_2d if signed.shape[1] == 2 else _rank_3d
    ranks[order] = kernel(np.ascontiguousarray(np.take(signed, order, axis=0).T))
    return ranks


@compiled
def _rank_2d(values: Floats) -> Indices:
    """Rows in lexicographic order. A front dominates the row when its lowest y so far is no higher."""
    rows = values.shape[1]
    ranks = np.zeros(rows, dtype=np.int64)
    lowest = np.empty(rows)  # of each front; rises from front to front
    fronts = 0
    for row in range(rows):
        if row > 0 and _equal(values, row, row - 1):
            ranks[row] = ranks[row - 1]
            continue
        low, high = 0, fronts
        while low < high:
            middle = (low + high) // 2
            if lowest[middle] <= values[1, row]:
                low = middle + 1
            else:
                high = middle
        ranks[row] = low
        lowest[low] = values[1, row]
        fronts = max(fronts, low + 1)
    return ranks


# The members of each front lie side by side in a pool; one that is full moves to a place twice as large behind all
# others. So a front of s members has had less than 4 s values in all, and the pool never needs more than 4 N.


@compiled
def _rank_3d(values: Floats) -> Indices:
    """The same by the stairs of each front, y rising and z falling: one of them tells whether it dominates the row."""
    rows = values.shape[1]
    ranks = np.zeros(rows, dtype=np.int64)
    pool = np.empty((2, 4 * rows))
    starts, sizes, rooms = np.zeros(rows, np.int64), np.zeros(rows, np.int64), np.zeros(rows, np.int64)
    fronts, used = 0, 0
    for row in range(rows):
        if row > 0 and _equal(values, row, row - 1):
            ranks[row] = ranks[row - 1]
            continue
        y, z = values[1, row], values[2, row]
        low, high = 0, fronts
        while low < high:
            middle = (low + high) // 2
            stair = _stairs_up_to(pool, starts[middle], sizes[middle], y) - 1
            if stair >= starts[middle] and pool[1, stair] <= z:
                low = middle + 1
            else:
                high = middle
        ranks[row] = low
        fronts = max(fronts, low + 1)
        used = _with_room(pool, starts, sizes, rooms, used, low)
        sizes[low] = _put_stair(pool, starts[low], sizes[low], y, z)
    return ranks


@compiled
def _stairs_up_to(pool: Floats, start: int, size: int, y: float) -> int:
    """The place after the last stair whose first value is at most y."""
    low, high = start, start + size
    while low < high:
        middle = (low + high) // 2
        if pool[0, middle] <= y:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _put_stair(pool: Floats, start: int, size: int, y: float, z: float) -> int:
    """Put (y, z), which no stair dominates, among them in the place of those that it dominates; the new size."""
    end, at = start + size, _stairs_up_to(pool, start, size, y)
    if at > start and pool[0, at - 1] == y:
        at -= 1
    stop = at
    while stop < end and pool[1, stop] >= z:
        stop += 1
    if stop == at:
        for place in range(end, at, -1):
            pool[0, place], pool[1, place] = pool[0, place - 1], pool[1, place - 1]
    else:
        for place in range(stop, end):
            pool[0, at + 1 + place - stop], pool[1, at + 1 + place - stop] = pool[0, place], pool[1, place]
    pool[0, at], pool[1, at] = y, z
    return size + 1 - (stop - at)


@compiled
def _with_room(pool: npt.NDArray[Any], starts: Indices, sizes: Indices, rooms: Indices, used: int, front: int) -> int:
    """Have room for one more in a front; how much of the pool is used then."""
    if sizes[front] < rooms[front]:
        return used
    rooms[front] = max(4, 2 * rooms[front])
    for column in range(len(pool)):
        for place in range(sizes[front]):
            pool[column, used + place] = pool[column, starts[front] + place]
    starts[front] = used
    return int(used + rooms[front])


@compiled
def _rank_nd(places: Places) -> Indices:
    """The same for more objectives: if a member of a front dominates the row, one of every lower front does."""
    rows = places.shape[1]
    ranks = np.zeros(rows, dtype=np.int64)
    columns = np.ascontiguousarray(places[1:])
    pool = np.empty((len(columns), 4 * rows), dtype=np.int32)
    starts, sizes, rooms = np.zeros(rows, np.int64), np.zeros(rows, np.int64), np.zeros(rows, np.int64)
    fronts, used = 0, 0
    for row in range(rows):
        if row > 0 and _equal(places, row, row - 1):
            ranks[row] = ranks[row - 1]
            continue
        low, high = 0, fronts
        while low < high:
            middle = (low + high) // 2
            if any_as_low(pool, starts[middle], starts[middle] + sizes[middle], columns, row):
                low = middle + 1
            else:
                high = middle
        ranks[row] = low
        fronts = max(fronts, low + 1)
        used = _with_room(pool, starts, sizes, rooms, used, low)
        for column in range(len(columns)):
            pool[column, starts[low] + sizes[low]] = columns[column, row]
        sizes[low] += 1
    return ranks


@compiled
def _equal(places: npt.NDArray[Any], one: int, other: int) -> bool:
    for column in range(len(places)):  # noqa: SIM110 (numba has no all() over a generator)
        if places[column, one] != places[column, other]:
            return False
    return True

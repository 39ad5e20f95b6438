"""Three objectives, smaller is better: sort by the first, sweep, and keep the staircase of the other two.

Rows come by rising x. One is dominated when an earlier one is as low in y and z, and to know that, the
staircase (y rising, z falling) of all earlier rows is enough: the last stair at or left of y has the lowest z
of those. The staircase lives in leaves of up to 96 stairs under one sorted list of leaves, a tree of two
levels: a balanced binary tree would jump through memory at every level, one flat array would move half of
itself at every insertion.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pareto._check import Floats
from pareto._jit import compiled
from pareto._kernels_nd import filtered, ranked

__all__ = ["efficient_3d"]

Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]

_LEAF = 96


def efficient_3d(points: Floats, signs: Floats) -> Bools:
    """Mask of efficient rows; equal rows share their fate. `points` is (N, 3), multiplied by `signs` on the way."""
    mask = np.zeros(len(points), dtype=np.bool_)
    records, rows = filtered(points, signs)
    order = sorted_order(records)
    mask[rows[order]] = _sweep(records[order])  # a copy in order: the sweep reads it from front to back
    return mask


def sorted_order(records: Floats) -> Indices:
    """Lexicographic order of (M, 3) records: by x with numpy's fast sort, then only runs of equal x further."""
    order = np.argsort(records[:, 0])
    _order_runs(records, order)
    return order


@compiled
def _order_runs(records: Floats, order: Indices) -> None:
    rows, start = len(order), 0
    for stop in range(1, rows + 1):
        if stop < rows and records[order[stop], 0] == records[order[start], 0]:
            continue
        if stop - start > 1:
            _order_ties(records, order, start, stop)
        start = stop


@compiled
def _order_ties(records: Floats, order: Indices, start: int, stop: int) -> None:
    """Order rows of equal x by (y, z)."""
    _put_order(order, start, ranked(records[:, 1], order[start:stop]))
    first = start
    for last in range(start + 1, stop + 1):
        if last < stop and records[order[last], 1] == records[order[first], 1]:
            continue
        if last - first > 1:
            _put_order(order, first, ranked(records[:, 2], order[first:last]))
        first = last


@compiled
def _stair_of(ys: Floats, leaf: int, size: int, limit: float) -> int:
    """How many of the first `size` stairs of a leaf are at most `limit`. (A view would cost a reference.)"""
    base, left = 0, size
    while left > 1:
        half = left >> 1
        base += half * (ys[leaf, base + half - 1] <= limit)
        left -= half
    return base + (left == 1 and ys[leaf, base] <= limit)


@compiled
def _put_order(order: Indices, start: int, part: Indices) -> None:
    for place in range(len(part)):
        order[start + place] = part[place]


@compiled
def _at_most(values: Floats, size: int, limit: float) -> int:
    """How many of the first `size` values (sorted) are at most `limit`."""
    base, left = 0, size
    while left > 1:
        half = left >> 1
        base += half * (values[base + half - 1] <= limit)
        left -= half
    return base + (left == 1 and values[base] <= limit)


# The staircase: ys and zs, (room, 96), hold the stairs of each leaf and `counts` how many; `leaves` lists the
# leaves in use from left to right and `firsts` the first y of each; `free` is a stack of those not in use.


@compiled
def _sweep(records: Floats) -> Bools:
    """Mask of efficient rows of records in lexicographic order."""
    mask = np.zeros(len(records), dtype=np.bool_)
    room = 2
    ys, zs = np.empty((room, _LEAF)), np.empty((room, _LEAF))
    counts, leaves, firsts = np.zeros(room, np.int64), np.zeros(room, np.int64), np.empty(room)
    free = np.arange(room)
    used, spare = 0, room
    for row in range(len(records)):
        y, z = records[row, 1], records[row, 2]
        if row > 0 and _same(records, row, row - 1):
            mask[row] = mask[row - 1]  # equal rows are neighbours and share their fate
            continue
        if used == 0:
            spare -= 1
            leaves[0], firsts[0], counts[free[spare]] = free[spare], y, 0
            used = 1
        at = max(0, _at_most(firsts, used, y) - 1)
        leaf = leaves[at]
        stair = _stair_of(ys, leaf, counts[leaf], y)  # where the new one goes
        if stair > 0:
            if zs[leaf, stair - 1] <= z:
                continue
            if ys[leaf, stair - 1] == y:
                stair -= 1  # the same y, higher z: replaced
        mask[row] = True
        stop = stair  # stairs up to it are no lower than the new one
        while stop < counts[leaf] and zs[leaf, stop] >= z:
            stop += 1
        if stop == counts[leaf] and at + 1 < used:
            used, spare = _drop_after(ys, zs, counts, leaves, firsts, free, used, spare, at, z)
        if stop == stair and counts[leaf] == _LEAF:
            if spare == 0:
                ys, zs, counts = _doubled(ys), _doubled(zs), _doubled_line(counts)
                leaves, firsts, free = _doubled_line(leaves), _doubled_line(firsts), _doubled_line(free)
                for number in range(room):
                    free[number] = room + number
                spare, room = room, 2 * room
            spare -= 1
            _split(ys, zs, counts, leaves, firsts, used, at, free[spare])
            used += 1
            if stair > counts[leaf]:
                at, stair = at + 1, stair - counts[leaf]
                stop, leaf = stair, leaves[at]
        _put(ys, zs, leaf, counts[leaf], stair, stop, y, z)
        counts[leaf] += 1 - (stop - stair)
        firsts[at] = ys[leaf, 0]
    return mask


@compiled
def _same(records: Floats, one: int, other: int) -> bool:
    for column in range(3):  # noqa: SIM110 (numba has no all() over a generator)
        if records[one, column] != records[other, column]:
            return False
    return True


@compiled
def _put(ys: Floats, zs: Floats, leaf: int, count: int, stair: int, stop: int, y: float, z: float) -> None:
    """Replace the stairs from `stair` to `stop` (perhaps none) of one leaf by (y, z)."""
    if stop == stair:
        for number in range(count, stair, -1):
            ys[leaf, number], zs[leaf, number] = ys[leaf, number - 1], zs[leaf, number - 1]
    else:
        shift = stop - stair - 1
        if shift > 0:
            for number in range(stop, count):
                ys[leaf, number - shift], zs[leaf, number - shift] = ys[leaf, number], zs[leaf, number]
    ys[leaf, stair], zs[leaf, stair] = y, z


@compiled
def _drop_after(
    ys: Floats,
    zs: Floats,
    counts: Indices,
    leaves: Indices,
    firsts: Floats,
    free: Indices,
    used: int,
    spare: int,
    at: int,
    z: float,
) -> tuple[int, int]:
    """Drop the stairs at or above z of the leaves right of `at`; the new numbers of leaves used and spare."""
    gone = at + 1
    while gone < used and zs[leaves[gone], counts[leaves[gone]] - 1] >= z:
        free[spare] = leaves[gone]
        spare += 1
        gone += 1
    if gone > at + 1:
        for number in range(gone, used):
            leaves[number - gone + at + 1] = leaves[number]
            firsts[number - gone + at + 1] = firsts[number]
        used -= gone - at - 1
    if at + 1 < used:
        leaf = leaves[at + 1]
        cut = 0
        while zs[leaf, cut] >= z:
            cut += 1
        if cut > 0:
            for number in range(cut, counts[leaf]):
                ys[leaf, number - cut], zs[leaf, number - cut] = ys[leaf, number], zs[leaf, number]
            counts[leaf] -= cut
            firsts[at + 1] = ys[leaf, 0]
    return used, spare


@compiled
def _split(
    ys: Floats,
    zs: Floats,
    counts: Indices,
    leaves: Indices,
    firsts: Floats,
    used: int,
    at: int,
    right: int,
) -> None:
    """Move the upper half of a full leaf to the leaf `right`, which follows it."""
    left, half = leaves[at], _LEAF // 2
    for number in range(half, _LEAF):
        ys[right, number - half], zs[right, number - half] = ys[left, number], zs[left, number]
    counts[left], counts[right] = half, _LEAF - half
    for number in range(used, at + 1, -1):
        leaves[number], firsts[number] = leaves[number - 1], firsts[number - 1]
    leaves[at + 1], firsts[at + 1] = right, ys[right, 0]


@compiled
def _doubled(array: Floats) -> Floats:
    out = np.empty((2 * array.shape[0], array.shape[1]))
    for row in range(array.shape[0]):
        for column in range(array.shape[1]):
            out[row, column] = array[row, column]
    return out


@compiled
def _doubled_line(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    out = np.empty(2 * len(array), array.dtype)
    for row in range(len(array)):
        out[row] = array[row]
    return out

"""Two objectives, smaller is better: filter against a sample's front, then a bucket sort of what is left.

Sorting ten million rows costs seconds, most of them spent on rows that one glance would discard. So:

1. the front of a small sample (a staircase) discards every row that it dominates, one binary search a row;
2. when few rows are left, sort them; when most are left, cut the first objective into buckets: a row is
   dominated when any lower bucket holds a value as low in the second objective, so only rows of one bucket
   need comparing.
"""

from __future__ import annotations

from concurrent import futures

import numpy as np
import numpy.typing as npt

from pareto._check import Floats
from pareto._jit import compiled, shared, thread_count
from pareto._kernels_nd import WORTH_A_THREAD, strongest

__all__ = ["efficient_2d"]

Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]

_SAMPLE = 2048
_DIRECT_ROWS = 3_000_000  # up to here one sort beats partitioning first
_BUCKET_ROWS = 65536  # 24 bytes each: a bucket stays in the second-level cache


def efficient_2d(points: Floats, signs: Floats) -> Bools:
    """Mask of efficient rows; equal rows share their fate. `points` is (N, 2), multiplied by `signs` on the way."""
    mask = np.zeros(len(points), dtype=np.bool_)
    if len(points) <= 2 * _SAMPLE:
        _sort_and_scan(_records(points, signs, slice(None), None), np.inf, mask)
        return mask
    records, worthwhile = _filtered(points, signs, None)
    while worthwhile and len(records) > 2 * _SAMPLE:
        records, worthwhile = _filtered(records, np.ones(2), records[:, 2])
    if len(records) <= _DIRECT_ROWS:
        _sort_and_scan(records, np.inf, mask)
    else:
        _by_buckets(records, mask)
    return mask


def _filtered(points: Floats, signs: Floats, numbers: Floats | None) -> tuple[Floats, bool]:
    """Records (x, y, row number) of the rows that a sample's front leaves, and whether a next round may pay."""
    sample = points[:: max(1, len(points) // _SAMPLE), :2] * signs
    stairs = _front_of(sample)
    # One more random row joins the front of s rows as often as each of those is on it, so this is what is left.
    if len(stairs) > len(sample) // 4:
        return _records(points, signs, slice(None), numbers), False
    keep = np.empty(len(points), dtype=np.bool_)
    given = points, signs, strongest(stairs, sample, 1)[0], stairs[:, 0].copy(), stairs[:, 1].copy()
    shared(_undominated, len(points), *given, keep, worth=WORTH_A_THREAD)
    rows = np.flatnonzero(keep)
    return _records(points, signs, rows, numbers), len(rows) < len(points) // 4


def _records(points: Floats, signs: Floats, rows: slice | Indices, numbers: Floats | None) -> Floats:
    """Signed values and row numbers side by side; row numbers up to 2**53 are exact as float64."""
    values = points[rows, :2]
    records = np.empty((len(values), 3))
    np.multiply(values, signs, out=records[:, :2])
    if numbers is not None:
        records[:, 2] = numbers[rows]
    else:
        records[:, 2] = np.arange(len(points)) if isinstance(rows, slice) else rows
    return records


def _front_of(records: Floats) -> Floats:
    records = np.take(records, np.lexsort((records[:, 1], records[:, 0])), axis=0)
    lowest = np.minimum.accumulate(records[:, 1])
    return records[np.concatenate(([True], records[1:, 1] < lowest[:-1]))]


def _by_buckets(records: Floats, mask: Bools) -> None:
    slices = thread_count()  # one a thread; the answer does not depend on their number
    count = max(2 * slices, len(records) // _BUCKET_ROWS)
    sample = np.sort(records[:: max(1, len(records) // (32 * count)), 0])
    splitters = np.unique(sample[np.linspace(0, len(sample) - 1, count + 1).astype(np.int64)[1:-1]])
    buckets = len(splitters) + 1
    bucket, lows = np.empty(len(records), dtype=np.uint16), np.full((slices, buckets), np.inf)
    shared(_assign, slices, records, splitters, bucket, lows)
    limits = np.minimum.accumulate(np.concatenate(([np.inf], lows.min(axis=0)[:-1])))
    counts = np.zeros((slices, buckets), dtype=np.int64)
    shared(_count, slices, records, bucket, limits, counts)
    ends = np.cumsum(counts.T.ravel()).reshape(buckets, slices)  # slices of one bucket lie side by side
    starts = np.concatenate(([0], ends.ravel()[:-1])).reshape(buckets, slices).T.copy()
    bounds = np.concatenate((starts[0], ends[-1, -1:]))
    parts = np.empty((int(ends[-1, -1]), 3))
    shared(_scatter, slices, records, bucket, limits, starts, parts)

    def finish(number: int) -> None:
        _sort_and_scan(parts[bounds[number] : bounds[number + 1]], limits[number], mask)

    # numpy sorts with vector instructions and without the interpreter lock, better than any loop written
    # here.
    with futures.ThreadPoolExecutor(slices) as pool:
        list(pool.map(finish, range(buckets)))


def _sort_and_scan(records: Floats, limit: float, mask: Bools) -> None:
    _scan(records, np.argsort(records[:, 0]), limit, mask)


@compiled
def _undominated(
    start: int, stop: int, points: Floats, signs: Floats, guard: Floats, xs: Floats, ys: Floats, keep: Bools
) -> None:
    """Rows from `start` to `stop`: False where the staircase (xs rising, ys falling) dominates one.

    The guard is the stair that dominates most: it settles most rows without a search.
    """
    for row in range(start, stop):
        x, y = points[row, 0] * signs[0], points[row, 1] * signs[1]
        if guard[0] < x and guard[1] < y:
            keep[row] = False
            continue
        stair = _bucket_of(xs, x) - 1  # the last at or left of x, which is the lowest of those
        keep[row] = stair < 0 or y < ys[stair] or (y == ys[stair] and x == xs[stair])


@compiled
def _bucket_of(splitters: Floats, x: float) -> int:
    """How many splitters (sorted) are at most x, without a branch that the processor could guess wrong."""
    base, left = 0, len(splitters)
    while left > 1:
        half = left >> 1
        base += half * (splitters[base + half - 1] <= x)
        left -= half
    return base + (left == 1 and splitters[base] <= x)


@compiled
def _assign(
    first: int,
    last: int,
    records: Floats,
    splitters: Floats,
    bucket: npt.NDArray[np.uint16],
    lows: Floats,
) -> None:
    """The bucket of every record, and the lowest second objective of each bucket by slice."""
    rows, slices = len(records), len(lows)
    for part in range(first, last):
        for row in range(rows * part // slices, rows * (part + 1) // slices):
            number = _bucket_of(splitters, records[row, 0])
            bucket[row] = number
            lows[part, number] = min(lows[part, number], records[row, 1])


@compiled
def _count(
    first: int,
    last: int,
    records: Floats,
    bucket: npt.NDArray[np.uint16],
    limits: Floats,
    counts: Indices,
) -> None:
    """How many records of each bucket no lower bucket dominates, by slice."""
    rows, slices = len(records), len(counts)
    for part in range(first, last):
        for row in range(rows * part // slices, rows * (part + 1) // slices):
            number = bucket[row]
            if records[row, 1] < limits[number] or number == 0:
                counts[part, number] += 1


@compiled
def _scatter(
    first: int,
    last: int,
    records: Floats,
    bucket: npt.NDArray[np.uint16],
    limits: Floats,
    starts: Indices,
    out: Floats,
) -> None:
    """Copy what `_count` counted to its bucket; `starts` moves on."""
    rows, slices = len(records), len(starts)
    for part in range(first, last):
        for row in range(rows * part // slices, rows * (part + 1) // slices):
            number = bucket[row]
            if records[row, 1] < limits[number] or number == 0:
                place = starts[part, number]
                starts[part, number] = place + 1
                out[place, 0] = records[row, 0]
                out[place, 1] = records[row, 1]
                out[place, 2] = records[row, 2]


@compiled
def _scan(records: Floats, order: Indices, limit: float, mask: Bools) -> None:
    """Mark records, visited by rising x, that lie below `limit` and below all that have a smaller x.

    Of records with equal x only the lowest y counts, so their order among themselves does not matter.
    """
    lowest = limit
    start, rows = 0, len(order)
    while start < rows:
        x, y = records[order[start], 0], records[order[start], 1]
        stop = start + 1
        while stop < rows and records[order[stop], 0] == x:
            y = min(y, records[order[stop], 1])
            stop += 1
        # An infinite y is efficient when nothing at all has a smaller x, in this bucket or below it.
        if y < lowest or (start == 0 and y == np.inf and limit == np.inf):
            lowest = y
            for place in range(start, stop):
                if records[order[place], 1] == y:
                    mask[int(records[order[place], 2])] = True
        start = stop

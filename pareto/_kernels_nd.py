"""Any number of objectives, smaller is better: a filter against a sample's front, then divide and conquer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from pareto._check import Floats
from pareto._jit import compiled, shared

__all__ = [
    "WORTH_A_THREAD",
    "Places",
    "any_as_low",
    "as_places",
    "efficient_nd",
    "filtered",
    "front_of",
    "lexicographic",
    "ranked",
    "strongest",
]

Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]
Places = npt.NDArray[np.int32]
Line = npt.NDArray[np.int32]

WORTH_A_THREAD = 250_000  # rows of a filter: waiting for a thread on a busy machine costs more than fewer bring
_SAMPLE = 2048
_GUARDS = 64  # strong rows that every row is compared with first
_SMALL = 16384  # so few rows need no filter
_BLOCK = 1024  # so many rows are compared one by one
_PAIRS = 1 << 21  # so many pairs of rows too: vector instructions take sixteen at a time
_AT_ONCE = 256


def efficient_nd(points: Floats, signs: Floats) -> Bools:
    """Mask of efficient rows; equal rows share their fate. `points` is (N, M), multiplied by `signs` on the way."""
    mask = np.zeros(len(points), dtype=np.bool_)
    records, rows = filtered(points, signs)
    mask[rows] = front_of(records)
    return mask


def filtered(points: Floats, signs: Floats) -> tuple[Floats, Indices]:
    """The rows that strong rows of a sample do not dominate, signs applied, and their row numbers."""
    records, rows = points * signs if len(points) <= _SMALL else points, np.arange(len(points))
    first = True
    while len(records) > _SMALL:
        sample = records[:: len(records) // _SAMPLE] * (signs if first else 1.0)
        front = sample[front_of(sample)]
        if len(front) > len(sample) // 4:  # the front of all will hold about that share too: nothing to gain
            return (records * signs if first else records), rows
        keep = np.empty(len(records), dtype=np.bool_)
        given = records, signs if first else np.ones_like(signs), strongest(front, sample, _GUARDS)
        shared(_undominated, len(records), *given, keep, worth=WORTH_A_THREAD)
        left = np.flatnonzero(keep)
        shrunk = len(left) < len(records) // 4
        records, rows = records[left] * (signs if first else 1.0), rows[left]
        first = False
        if not shrunk:
            break
    return records, rows


def strongest(front: Floats, sample: Floats, count: int) -> Floats:
    """Up to `count` rows of the front, those first that many rows of the sample are worse than everywhere."""
    ranks = np.stack(
        [np.searchsorted(np.sort(column), values) for column, values in zip(sample.T, front.T, strict=True)]
    )
    share = np.log1p(-ranks / (len(sample) + 1)).sum(axis=0)  # the logarithm of the dominated share, were they free
    return np.ascontiguousarray(front[np.argsort(-share)[:count]])


@compiled
def _undominated(start: int, stop: int, points: Floats, signs: Floats, guards: Floats, keep: Bools) -> None:
    """Rows from `start` to `stop`: False where a guard dominates one."""
    for row in range(start, stop):
        keep[row] = True
        for guard in range(len(guards)):
            better, worse = False, False
            for column in range(points.shape[1]):
                value = points[row, column] * signs[column]
                better = better or guards[guard, column] < value
                if guards[guard, column] > value:
                    worse = True
                    break
            if better and not worse:
                keep[row] = False
                break


def as_places(records: Floats) -> Places:
    """Each column's values as their places in rising order, equal ones alike, (M, N): all that dominance depends on.

    >>> as_places(np.array([[0.5, -np.inf], [0.1, 2.0], [0.5, 3.0]])).tolist()
    [[1, 0, 1], [0, 1, 2]]
    """
    places = np.empty(records.shape[::-1], dtype=np.int32)
    for column, values in enumerate(records.T):
        order = np.argsort(values)
        rising = values[order]
        places[column, order] = np.concatenate(([0], np.cumsum(rising[1:] != rising[:-1])))
    return places


def lexicographic(places: Places) -> Indices:
    """The order of rows by column 0, then 1, and so on."""
    rows = places.shape[1]
    if rows and places[0].max() == rows - 1:  # no two alike
        order = np.empty(rows, dtype=np.int64)
        order[places[0]] = np.arange(rows)
        return order
    counts = [int(column.max(initial=0)) + 1 for column in places]
    if math.prod(counts) > np.iinfo(np.int64).max:
        return np.lexsort(places[::-1])
    key = np.zeros(rows, dtype=np.int64)  # one number a row, so that numpy's fastest sort will do
    for column, count in zip(places, counts, strict=True):
        key = key * count + column
    return np.argsort(key)


def front_of(records: Floats) -> Bools:
    """Mask of efficient rows, by divide and conquer.

    Kung, Luccio and Preparata, "On finding the maxima of a set of vectors", J. ACM 22 (1975): halve by the
    first objective, find both fronts, and let the lower one strike rows from the upper one, with one
    objective fewer. Parts of a few thousand rows are compared pair by pair, sixteen at a time.
    """
    mask = np.zeros(len(records), dtype=np.bool_)
    if len(records):
        places = as_places(records)
        order = lexicographic(places)
        mask[order] = _front_of_sorted(np.ascontiguousarray(places[:, order]))
    return mask


@compiled
def _front_of_sorted(places: Places) -> Bools:
    """Mask of efficient rows in lexicographic order, in which equal rows are neighbours."""
    rows = places.shape[1]
    alive = np.ones(rows, dtype=np.bool_)
    twin = np.zeros(rows, dtype=np.bool_)  # equal to the row before it: shares its fate, takes no part
    for row in range(1, rows):
        twin[row] = _as_low(places, row, row - 1, 0)  # sorted, so that at most as high means equal
    _find_front(places, _living(np.arange(rows), ~twin), alive)
    for row in range(1, rows):
        if twin[row]:
            alive[row] = alive[row - 1]
    return alive


# Both halvings run without recursion: compiled functions that call themselves crash when numba loads them from its
# cache (0.68), and compiling them anew in every process takes seconds.


@compiled
def _find_front(places: Places, rows: Indices, alive: Bools) -> None:
    """From fronts of a block of rows to fronts of twice as many, and so on."""
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        columns = _gathered(places, block, 1)
        for place in range(1, len(block)):
            if any_as_low(columns, 0, place, columns, place):
                alive[block[place]] = False
    width = _BLOCK
    while width < len(rows):
        for start in range(0, len(rows) - width, 2 * width):
            lower, upper = rows[start : start + width], rows[start + width : start + 2 * width]
            _strike(places, _living(lower, alive), _living(upper, alive), alive)
        width *= 2


@compiled
def any_as_low(columns: Places, begin: int, end: int, others: Places, row: int) -> bool:
    """Whether one of the rows from `begin` to `end` of `columns` (K, n) is at most row `row` of `others`; K >= 2.

    The loops below compile to vector instructions; this one stops at the first part with a hit.
    """
    for start in range(begin, end, _AT_ONCE):
        stop = min(start + _AT_ONCE, end)
        first, second = columns[0, start:stop], columns[1, start:stop]
        if len(columns) == 2:
            hits = _both(first, second, others[0, row], others[1, row])
        elif len(columns) == 3:
            hits = _three(first, second, columns[2, start:stop], others[0, row], others[1, row], others[2, row])
        else:
            third, fourth = columns[2, start:stop], columns[3, start:stop]
            hits = _four(first, second, third, fourth, others[:, row])
            if hits > 0 and len(columns) > 4:
                hits = _all(columns, start, stop, others, row)
        if hits > 0:
            return True
    return False


@compiled
def _both(first: Line, second: Line, x: int, y: int) -> np.int32:
    hits = np.int32(0)
    for place in range(len(first)):
        hits += np.int32((first[place] <= x) & (second[place] <= y))
    return hits


@compiled
def _three(first: Line, second: Line, third: Line, x: int, y: int, z: int) -> np.int32:
    hits = np.int32(0)
    for place in range(len(first)):
        hits += np.int32((first[place] <= x) & (second[place] <= y) & (third[place] <= z))
    return hits


@compiled
def _four(first: Line, second: Line, third: Line, fourth: Line, limits: Line) -> np.int32:
    hits, x, y, z, w = np.int32(0), limits[0], limits[1], limits[2], limits[3]
    for place in range(len(first)):
        hits += np.int32((first[place] <= x) & (second[place] <= y) & (third[place] <= z) & (fourth[place] <= w))
    return hits


@compiled
def _all(columns: Places, start: int, stop: int, others: Places, row: int) -> np.int32:
    for place in range(start, stop):
        column = 0
        while column < len(columns) and columns[column, place] <= others[column, row]:
            column += 1
        if column == len(columns):
            return np.int32(1)
    return np.int32(0)


@compiled
def _gathered(places: Places, rows: Indices, column: int) -> Places:
    """The columns from `column` on of these rows, side by side."""
    out = np.empty((places.shape[0] - column, len(rows)), dtype=np.int32)
    for number in range(len(out)):
        for place in range(len(rows)):
            out[number, place] = places[column + number, rows[place]]
    return out


# Loops instead of fancy indexing: it would be compiled anew wherever it stands, seconds in all.


@compiled
def _living(rows: Indices, alive: Bools) -> Indices:
    out = np.empty(len(rows), dtype=np.int64)
    size = 0
    for row in rows:
        if alive[row]:
            out[size] = row
            size += 1
    return out[:size]


@compiled
def _part(places: Places, rows: Indices, column: int, side: int, limit: int) -> Indices:
    """The rows whose value in `column` is at most (side -1), at least (0) or above (1) `limit`."""
    out = np.empty(len(rows), dtype=np.int64)
    size = 0
    for row in rows:
        value = places[column, row]
        if (value > limit and side >= 0) or (value < limit and side < 0) or (value == limit and side <= 0):
            out[size] = row
            size += 1
    return out[:size]


@compiled
def ranked(values: npt.NDArray[Any], rows: Indices) -> Indices:
    """The rows in the order of their values."""
    picked = np.empty(len(rows), values.dtype)
    for place in range(len(rows)):
        picked[place] = values[rows[place]]
    order = np.argsort(picked)
    for place in range(len(rows)):
        order[place] = rows[order[place]]
    return order


@compiled
def _as_low(places: Places, one: int, other: int, column: int) -> bool:
    """Whether row `one` is at most row `other` from `column` on; rows differ, so that is dominance."""
    for number in range(column, places.shape[0]):  # noqa: SIM110 (numba has no all())
        if places[number, one] > places[number, other]:
            return False
    return True


@compiled
def _strike(places: Places, lower: Indices, upper: Indices, alive: Bools) -> None:
    """Strike every row of `upper` that a row of `lower`, no higher in column 0, is as low as in the others.

    A task (lower, upper, column) means that lower rows are no higher before `column`. Cutting at a value of
    that column leaves the parts below and the parts above it as smaller tasks, and the lower part against the upper
    rows above it as a task with one column fewer.
    """
    lowers, uppers, columns = [lower], [upper], [1]
    while len(columns) > 0:
        lower, upper, column = lowers.pop(), _living(uppers.pop(), alive), columns.pop()
        if len(lower) == 0 or len(upper) == 0:
            continue
        if len(lower) * len(upper) <= _PAIRS:
            _strike_one_by_one(places, lower, upper, column, alive)
            continue
        if column == places.shape[0] - 2:
            _strike_by_sweep(places, lower, upper, column, alive)
            continue
        rising = ranked(places[column], lower)
        lowest, highest = places[column, rising[0]], places[column, rising[-1]]
        if lowest == highest:
            lowers.append(lower)
            uppers.append(_part(places, upper, column, 0, lowest))
            columns.append(column + 1)
            continue
        place = len(rising) // 2
        while places[column, rising[place]] == highest:  # cut below it, so that both parts get smaller
            place -= 1
        middle = places[column, rising[place]]
        low, above = _part(places, lower, column, -1, middle), _part(places, upper, column, 1, middle)
        lowers.append(_part(places, lower, column, 1, middle))
        uppers.append(above)
        columns.append(column)
        lowers.append(low)
        uppers.append(above)
        columns.append(column + 1)
        lowers.append(low)
        uppers.append(_part(places, upper, column, -1, middle))
        columns.append(column)


@compiled
def _strike_one_by_one(places: Places, lower: Indices, upper: Indices, column: int, alive: Bools) -> None:
    strikers, victims = _gathered(places, lower, column), _gathered(places, upper, column)
    for number in range(len(upper)):
        if any_as_low(strikers, 0, len(lower), victims, number):
            alive[upper[number]] = False


@compiled
def _strike_by_sweep(places: Places, lower: Indices, upper: Indices, column: int, alive: Bools) -> None:
    """Two columns left: walk both sets by the first of them and remember the lowest of the second."""
    lower, upper = ranked(places[column], lower), ranked(places[column], upper)
    lowest, place = places.shape[1], 0
    for victim in upper:
        while place < len(lower) and places[column, lower[place]] <= places[column, victim]:
            lowest = min(lowest, places[column + 1, lower[place]])
            place += 1
        if lowest <= places[column + 1, victim]:
            alive[victim] = False

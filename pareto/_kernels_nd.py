"""Any number of objectives, smaller is better: a filter against a sample's front, then divide and conquer."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pareto._check import Floats
from pareto._jit import compiled, shared

__all__ = ["WORTH_A_THREAD", "efficient_nd", "filtered", "front_of_sorted", "ranked", "strongest"]

Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]

WORTH_A_THREAD = 250_000  # rows of a filter: waiting for a thread on a busy machine costs more than fewer bring
_SAMPLE = 2048
_GUARDS = 64  # strong rows that every row is compared with first
_SMALL = 16384  # so few rows need no filter
_FEW = 16  # so few rows are compared one by one


def efficient_nd(points: Floats, signs: Floats) -> Bools:
    """Mask of efficient rows; equal rows share their fate. `points` is (N, M), multiplied by `signs` on the way."""
    mask = np.zeros(len(points), dtype=np.bool_)
    records, rows = filtered(points, signs)
    order = np.lexsort(records.T[::-1])
    mask[rows[order]] = front_of_sorted(records[order])
    return mask


def filtered(points: Floats, signs: Floats) -> tuple[Floats, Indices]:
    """The rows that strong rows of a sample do not dominate, signs applied, and their row numbers."""
    records, rows = points * signs if len(points) <= _SMALL else points, np.arange(len(points))
    first = True
    while len(records) > _SMALL:
        sample = records[:: len(records) // _SAMPLE] * (signs if first else 1.0)
        sample = sample[np.lexsort(sample.T[::-1])]
        front = sample[front_of_sorted(sample)]
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


@compiled
def front_of_sorted(records: Floats) -> Bools:
    """Mask of efficient rows of records in lexicographic order, in which equal rows are neighbours.

    Kung, Luccio and Preparata, "On finding the maxima of a set of vectors", J. ACM 22 (1975): halve by the
    first objective, find both fronts, and let the lower one strike rows from the upper one, with one
    objective fewer.
    """
    rows = len(records)
    alive = np.ones(rows, dtype=np.bool_)
    twin = np.zeros(rows, dtype=np.bool_)  # equal to the row before it: shares its fate, takes no part
    for row in range(1, rows):
        twin[row] = _as_low(records, row, row - 1, 0)  # sorted, so that at most as high means equal
    _find_front(records, _living(np.arange(rows), ~twin), alive)
    for row in range(1, rows):
        if twin[row]:
            alive[row] = alive[row - 1]
    return alive


# Both halvings run without recursion: compiled functions that call themselves crash when numba loads them from its
# cache (0.68), and compiling them anew in every process takes seconds.


@compiled
def _find_front(records: Floats, rows: Indices, alive: Bools) -> None:
    """From fronts of a few rows to fronts of twice as many, and so on."""
    for start in range(0, len(rows), _FEW):
        for place in range(start + 1, min(start + _FEW, len(rows))):
            for before in range(start, place):
                if alive[rows[before]] and _as_low(records, rows[before], rows[place], 1):
                    alive[rows[place]] = False
                    break
    width = _FEW
    while width < len(rows):
        for start in range(0, len(rows) - width, 2 * width):
            lower, upper = rows[start : start + width], rows[start + width : start + 2 * width]
            _strike(records, _living(lower, alive), _living(upper, alive), alive)
        width *= 2


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
def _part(records: Floats, rows: Indices, column: int, side: int, limit: float) -> Indices:
    """The rows whose value in `column` is at most (side -1), at least (0) or above (1) `limit`."""
    out = np.empty(len(rows), dtype=np.int64)
    size = 0
    for row in rows:
        value = records[row, column]
        if (value > limit and side >= 0) or (value < limit and side < 0) or (value == limit and side <= 0):
            out[size] = row
            size += 1
    return out[:size]


@compiled
def ranked(records: Floats, rows: Indices, column: int) -> Indices:
    """The rows in the order of their values in `column`."""
    values = np.empty(len(rows))
    for place in range(len(rows)):
        values[place] = records[rows[place], column]
    order = np.argsort(values)
    for place in range(len(rows)):
        order[place] = rows[order[place]]
    return order


@compiled
def _as_low(records: Floats, one: int, other: int, column: int) -> bool:
    """Whether row `one` is at most row `other` from `column` on; rows differ, so that is dominance."""
    for number in range(column, records.shape[1]):  # noqa: SIM110 (numba has no all())
        if records[one, number] > records[other, number]:
            return False
    return True


@compiled
def _strike(records: Floats, lower: Indices, upper: Indices, alive: Bools) -> None:
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
        if len(lower) <= _FEW or len(upper) <= _FEW:
            _strike_one_by_one(records, lower, upper, column, alive)
            continue
        if column == records.shape[1] - 2:
            _strike_by_sweep(records, lower, upper, column, alive)
            continue
        rising = ranked(records, lower, column)
        lowest, highest = records[rising[0], column], records[rising[-1], column]
        if lowest == highest:
            lowers.append(lower)
            uppers.append(_part(records, upper, column, 0, lowest))
            columns.append(column + 1)
            continue
        place = len(rising) // 2
        while records[rising[place], column] == highest:  # cut below it, so that both parts get smaller
            place -= 1
        middle = records[rising[place], column]
        low, above = _part(records, lower, column, -1, middle), _part(records, upper, column, 1, middle)
        lowers.append(_part(records, lower, column, 1, middle))
        uppers.append(above)
        columns.append(column)
        lowers.append(low)
        uppers.append(above)
        columns.append(column + 1)
        lowers.append(low)
        uppers.append(_part(records, upper, column, -1, middle))
        columns.append(column)


@compiled
def _strike_one_by_one(records: Floats, lower: Indices, upper: Indices, column: int, alive: Bools) -> None:
    for victim in upper:
        for row in lower:
            if _as_low(records, row, victim, column):
                alive[victim] = False
                break


@compiled
def _strike_by_sweep(records: Floats, lower: Indices, upper: Indices, column: int, alive: Bools) -> None:
    """Two columns left: walk both sets by the first of them and remember the lowest of the second."""
    lower, upper = ranked(records, lower, column), ranked(records, upper, column)
    lowest, place = np.inf, 0
    for victim in upper:
        while place < len(lower) and records[lower[place], column] <= records[victim, column]:
            lowest = min(lowest, records[lower[place], column + 1])
            place += 1
        if place > 0 and lowest <= records[victim, column + 1]:
            alive[victim] = False

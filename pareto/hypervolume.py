"""Hypervolume: how much of objective space, up to a reference point, a set of points dominates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pareto._check import Floats, points_array, sense_list, sense_signs
from pareto._jit import compiled

__all__ = ["hypervolume"]


def hypervolume(
    points: Any,
    *,
    reference: Sequence[float] | Mapping[str, float],
    sense: Sequence[str] | Mapping[str, str],
) -> float:
    """The measure of all values that some point dominates and that themselves dominate `reference`.

    Exact. Two and three objectives take a sweep over the sorted points. With more, points come by the last objective,
    and each adds its height times what it alone covers in the others: with four a walk over the efficient points of
    these three (in the manner of Guerreiro and Fonseca, IEEE Trans. Evol. Comput. 22 (2018), "HV4D+"), with more its
    own box less what the boxes before it leave there (While, Bradstreet and Barone, IEEE Trans. Evol. Comput. 16
    (2012), "WFG"). M objectives take about O(F^(M-2)) for F efficient points: fronts of ten
    thousand in 4, of thousands in 5.

    Args:
        points: (N, M) values or a frame, finite; never written to.
        reference: the worst values that count, in the units of the objectives. Points that are not better in
            every objective add nothing.
        sense: "max" or "min" for each objective, in column order or by name.

    Returns:
        The volume, in the product of the objectives' units.

    Raises:
        ValueError: NaN or infinite points (with the row), a reference of another length, not finite, or
            without one of the names.

    >>> hypervolume([[90, 2], [95, 5]], reference=(80, 10), sense=("max", "min"))  # 10 x 8 + 5 x 5
    105.0
    """
    array, names = points_array(points)
    signs = sense_signs(sense_list(sense, names))
    limit = _reference(reference, names) * signs
    if not np.isfinite(array).all():
        wrong = np.argwhere(~np.isfinite(array))
        raise ValueError(f"points: row {wrong[0][0]} is infinite in column {names[wrong[0][1]]!r}")
    edges = limit - array * signs
    return _volume(edges)


def _reference(reference: Sequence[float] | Mapping[str, float], names: Sequence[str]) -> Floats:
    if isinstance(reference, Mapping):
        missing = [name for name in names if name not in reference]
        if missing:
            raise ValueError(f"reference has no value for {missing[0]!r}")
        reference = [reference[name] for name in names]
    values = np.asarray(reference, dtype=np.float64)
    if values.shape != (len(names),):
        raise ValueError(f"reference must have {len(names)} values, one an objective; got shape {values.shape}")
    if not all(map(math.isfinite, values.tolist())):
        raise ValueError(f"reference must be finite, got {values.tolist()}")
    return values


def _volume(edges: Floats) -> float:
    """The union of boxes from the origin to each row of `edges`; those with an edge below 0 are empty."""
    objectives = edges.shape[1]
    if objectives == 1:
        return float(edges.max(initial=0.0))
    if objectives == 2:
        return float(_area(_falling(edges, 0)))
    kernel = _volume_nd if objectives > 4 else _volume_4d if objectives == 4 else _volume_3d
    return float(kernel(_falling(edges, -1)))


def _falling(edges: Floats, column: int) -> Floats:
    return np.take(edges, np.argsort(-edges[:, column]), axis=0)  # an index in brackets takes as long as the sweep


@compiled
def _area(edges: Floats) -> float:
    """Boxes of falling width: each adds what stands above the highest so far."""
    total, height = 0.0, 0.0
    for row in range(len(edges)):
        if edges[row, 0] > 0.0 and edges[row, 1] > height:
            total += edges[row, 0] * (edges[row, 1] - height)
            height = edges[row, 1]
    return total


@compiled
def _volume_3d(edges: Floats) -> float:
    """Boxes of falling third edge: keep the staircase of the other two and its area, and add up slabs."""
    rows = len(edges)
    xs, ys = np.zeros(rows + 1), np.zeros(rows + 1)  # stairs: x falling, y rising
    size, area, total = 0, 0.0, 0.0
    for row in range(rows):
        x, y = edges[row, 0], edges[row, 1]
        if x <= 0.0 or y <= 0.0:  # empty: a stair of no area
            x, y = 0.0, 0.0
        low, high = 0, size  # stairs before `low` are wider or as wide
        while low < high:
            middle = (low + high) // 2
            if xs[middle] >= x:
                low = middle + 1
            else:
                high = middle
        if low == 0 or ys[low - 1] < y:
            start = low - 1 if low > 0 and xs[low - 1] == x else low
            stop, floor = start, ys[start - 1] if start > 0 else 0.0
            while stop < size and ys[stop] <= y:  # stairs that the new one swallows
                area += (x - xs[stop]) * (ys[stop] - floor)
                floor = ys[stop]
                stop += 1
            area += (x - xs[stop] if stop < size else x) * (y - floor)
            if stop == start:
                for place in range(size, start, -1):
                    xs[place], ys[place] = xs[place - 1], ys[place - 1]
                size += 1
            else:
                for place in range(stop, size):
                    xs[start + 1 + place - stop], ys[start + 1 + place - stop] = xs[place], ys[place]
                size -= stop - start - 1
            xs[start], ys[start] = x, y
        total += area * (max(edges[row, 2], 0.0) - max(edges[row + 1, 2] if row + 1 < rows else 0.0, 0.0))
    return total


@compiled
def _volume_4d(edges: Floats) -> float:
    """Boxes of falling fourth edge: each adds that times what the ones before leave of it in the other three.

    Of those `floor` keeps what no later one covers in these three, by falling third edge: one pass over the longer
    ones finds what they cover of a new box at its own third edge, and a walk down the shorter ones ends at the first
    that covers the rest.
    """
    rows, count, total = len(edges), 0, 0.0
    floor, stairs = np.empty((3, rows + 1)), np.empty((2, rows + 2))
    for row in range(rows):
        x, y, z, own = edges[row, 0], edges[row, 1], edges[row, 2], 0
        if min(x, y, z, edges[row, 3]) <= 0.0:
            continue
        for other in range(count):
            own += floor[2, other] >= z
        high, wide = _reach(floor, own, x, y)
        if high < y:  # otherwise one covers it
            total += edges[row, 3] * _alone(floor, own, count, (x, y, z), (high, wide), stairs)
            count = _settle(floor, own, count, x, y, z)
    return total


def _reach(floor: Floats, count: int, x: float, y: float) -> tuple[float, float]:
    """How high the first boxes are that are as wide as `x`, and how wide those that are as high as `y`."""
    high, wide = 0.0, 0.0
    for other in range(count):
        high = max(high, floor[1, other] if floor[0, other] >= x else 0.0)
        wide = max(wide, floor[0, other] if floor[1, other] >= y else 0.0)
    return high, wide


_reach = compiled(_reach, fastmath={"nnan", "nsz"})  # several at a time


@compiled
def _alone(
    floor: Floats,
    own: int,
    count: int,
    box: tuple[float, float, float],
    reach: tuple[float, float],
    stairs: Floats,
) -> float:
    """The volume of a box that none on the floor covers; those before `own` are as long as it, those after it shorter.

    `stairs` has their outline at the third edge that the walk is at, x falling and y rising, cut to the box.
    """
    (x, y, level), (high, wide), xs, ys = box, reach, stairs[0], stairs[1]
    size, area = 1, x * high
    xs[0], ys[0] = x, high
    if wide > 0.0:
        area += wide * (y - high)
        xs[1], ys[1] = wide, y
        size = 2
    for other in range(own):
        if wide < floor[0, other] < x and high < floor[1, other] < y:
            size, area = _stair(xs, ys, size, area, floor[0, other], floor[1, other])
    volume = 0.0
    for other in range(own, count):
        right, top = min(floor[0, other], x), min(floor[1, other], y)
        if right > wide and top > high:
            volume += (x * y - area) * (level - floor[2, other])
            level = floor[2, other]
            if right == x and top == y:
                return float(volume)
            size, area = _stair(xs, ys, size, area, right, top)
            high = max(high, top if right == x else 0.0)
            wide = max(wide, right if top == y else 0.0)
    return float(volume + (x * y - area) * level)


@compiled
def _settle(floor: Floats, own: int, count: int, x: float, y: float, z: float) -> int:
    """Put a box in its place on the floor, take out those that it covers, and say how many there are."""
    kept = own
    for other in range(own, count):
        right, top, length = floor[0, other], floor[1, other], floor[2, other]
        floor[0, kept], floor[1, kept], floor[2, kept] = right, top, length
        kept += right > x or top > y
    for row, edge in ((0, x), (1, y), (2, z)):
        for other in range(kept, own, -1):
            floor[row, other] = floor[row, other - 1]
        floor[row, own] = edge
    return kept + 1


@compiled
def _stair(xs: Floats, ys: Floats, size: int, area: float, x: float, y: float) -> tuple[int, float]:
    """Take a stair in among those of falling x and rising y, and drop what it swallows: their number and area."""
    start = size  # stairs from there on are narrower
    while start > 0 and xs[start - 1] < x:
        start -= 1
    if start > 0 and ys[start - 1] >= y:
        return size, area
    if start > 0 and xs[start - 1] == x:
        start -= 1
    stop, floor = start, ys[start - 1] if start > 0 else 0.0
    while stop < size and ys[stop] <= y:
        area += (x - xs[stop]) * (ys[stop] - floor)
        floor = ys[stop]
        stop += 1
    area += (x - (xs[stop] if stop < size else 0.0)) * (y - floor)
    if stop == start:
        for place in range(size, start, -1):
            xs[place], ys[place] = xs[place - 1], ys[place - 1]
    else:
        for place in range(stop, size):
            xs[start + 1 + place - stop], ys[start + 1 + place - stop] = xs[place], ys[place]
    xs[start], ys[start] = x, y
    return size + 1 + start - stop, area


@compiled
def _volume_nd(edges: Floats) -> float:
    """Boxes of falling last edge, five or more: each adds that times its own box less what is left there of others.

    Kept are boxes that no later one covers in all edges but the last, by falling edge before the last: what is left of
    them is in order for one objective less.
    """
    rows, last, count, total = len(edges), edges.shape[1] - 1, 0, 0.0
    kept, left = np.empty((rows + 1, last)), np.empty((rows + 1, last))
    for row in range(rows):
        box, own = edges[row], edges[row, 0]
        for column in range(1, last):
            own *= max(box[column], 0.0)
        if min(own, box[last]) <= 0.0 or _covered(kept[:count], box):
            continue
        for other in range(count):
            for column in range(last):
                left[other, column] = min(kept[other, column], box[column])
        rest = _volume_4d(left[:count]) if last == 4 else _volume_nd(left[:count])
        total += box[last] * (own - rest)
        count = _keep(kept, count, box)
    return total


@compiled
def _covered(boxes: Floats, box: Floats) -> bool:
    for other in range(len(boxes)):  # noqa: SIM110 (numba has no any() over a generator)
        if _covers(boxes[other], box):
            return True
    return False


@compiled
def _keep(kept: Floats, count: int, box: Floats) -> int:
    """Put a box in its place, take out those that it covers, and say how many there are."""
    last, place, size = kept.shape[1], 0, 0
    for other in range(count):
        if not _covers(box, kept[other]):
            kept[size] = kept[other]
            place += kept[size, last - 1] >= box[last - 1]
            size += 1
    for other in range(size, place, -1):
        kept[other] = kept[other - 1]
    kept[place] = box[:last]
    return size + 1


@compiled
def _covers(one: Floats, other: Floats) -> bool:
    """In as many edges as the shorter of the two has."""
    for column in range(min(len(one), len(other))):  # noqa: SIM110 (numba has no all() over a generator)
        if one[column] < other[column]:
            return False
    return True

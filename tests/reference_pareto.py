"""Slow twins of what pareto computes fast: definitions written down, nothing else."""

from __future__ import annotations

import itertools

import numpy as np


def dominates(a, b, sense):
    """At least as good everywhere, better somewhere."""
    pairs = [(x, y) if way == "max" else (-x, -y) for x, y, way in zip(a, b, sense, strict=True)]
    return all(x >= y for x, y in pairs) and any(x > y for x, y in pairs)


def is_efficient(points, sense):
    """Every row against every other row."""
    return np.array([not any(dominates(other, row, sense) for other in points) for row in points], dtype=bool)


def brute_force_frame(tables, choices):
    """Objective sums of every policy of `choices`: [(policy, (sum per table, ...)), ...]."""
    out = []
    for policy in itertools.product(*choices.values()):
        names = list(choices)
        sums = tuple(sum(table[name][bits] for name, bits in zip(names, policy, strict=True)) for table in tables)
        out.append((policy, sums))
    return out


def rank(points, sense):
    """Peel fronts off one after the other."""
    ranks, left, number = np.full(len(points), -1), np.arange(len(points)), 0
    while left.size:
        mask = is_efficient(points[left], sense)
        ranks[left[mask]] = number
        left, number = left[~mask], number + 1
    return ranks


def hypervolume(points, reference, sense):
    """Count the cells of the grid that all coordinates span."""
    signs = np.array([1.0 if way == "min" else -1.0 for way in sense])
    points, reference = np.asarray(points) * signs, np.asarray(reference) * signs
    axes = [np.unique(np.append(points[:, axis], reference[axis])) for axis in range(len(sense))]
    axes = [axis[axis <= limit] for axis, limit in zip(axes, reference, strict=True)]
    total = 0.0
    for cell in itertools.product(*[range(len(axis) - 1) for axis in axes]):
        corner = np.array([axis[place] for axis, place in zip(axes, cell, strict=True)])
        if (points <= corner).all(axis=1).any():
            total += np.prod([axis[place + 1] - axis[place] for axis, place in zip(axes, cell, strict=True)])
    return total


def distance(points, front, sense):
    """Best gain in one objective among front points that are no worse in all others."""
    signs = np.array([1.0 if way == "min" else -1.0 for way in sense])
    points, front = np.asarray(points) * signs, np.asarray(front) * signs
    gaps = np.full(points.shape, np.nan)
    for row, point in enumerate(points):
        for column in range(points.shape[1]):
            others = np.arange(points.shape[1]) != column
            able = front[(front[:, others] <= point[others]).all(axis=1)]
            if len(able):
                gaps[row, column] = point[column] - able[:, column].min()
    return gaps

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
        sums = tuple(
            sum(table[name][bits] for name, bits in zip(names, policy, strict=True)) for table in tables
        )
        out.append((policy, sums))
    return out

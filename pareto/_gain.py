"""How much a policy that is not measured yet would add to what the frontier dominates, on average.

The cost of a policy is known before it is measured, its metric is guessed: a normal distribution. The area that it adds
is then a sum over the steps of the frontier of width times the mean of what lies above the step, E max(Y - h, 0): the
expected improvement of Jones, Schonlau and Welch, "Efficient global optimization of expensive black-box functions"
(1998), equation 15, step by step.
"""

from __future__ import annotations

import math

import numpy as np

from pareto._check import Floats
from pareto._jit import compiled

__all__ = ["expected_gain"]


@compiled
def expected_gain(
    costs: Floats,
    means: Floats,
    deviations: Floats,
    front_costs: Floats,
    front_values: Floats,
    floor: float,
    ceiling: float,
) -> Floats:
    """Area that each of n candidates adds, in units of metric times cost.

    Args:
        costs, means, deviations: (n,) cost, guessed metric and its standard deviation (positive).
        front_costs, front_values: (F,) the frontier so far, both rising.
        floor: metric below which nothing counts.
        ceiling: cost above which nothing counts.

    >>> one, front_costs, front_values = np.ones(1), np.array([1.0, 3.0]), np.array([4.0, 9.0])
    >>> expected_gain(2 * one, 5 * one, 1e-9 * one, front_costs, front_values, 0.0, 10.0).round(6).tolist()
    [1.0]
    """
    out = np.zeros(len(costs))
    for number in range(len(costs)):
        level, total = floor, 0.0
        for step in range(len(front_costs) + 1):
            start = costs[number] if step == 0 else max(costs[number], front_costs[step - 1])
            end = front_costs[step] if step < len(front_costs) else ceiling
            if step > 0:
                level = max(front_values[step - 1], floor)
            if end > start:
                total += (end - start) * _above(means[number], deviations[number], level)
        out[number] = total
    return out


@compiled
def _above(mean: float, deviation: float, level: float) -> float:
    """E max(Y - level, 0) of a normal Y."""
    score = (mean - level) / deviation
    density = math.exp(-0.5 * score * score) / math.sqrt(2.0 * math.pi)
    return (mean - level) * 0.5 * math.erfc(-score / math.sqrt(2.0)) + deviation * density

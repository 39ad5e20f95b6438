"""Comparisons at equal cost: with uniform policies by interpolation, seed by seed, and whether they mean anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from pareto import is_efficient

__all__ = ["FALLEN", "TELLING", "above_ladder", "collapsed", "saved_at_equal_accuracy", "spread_and_noise", "verdict"]

FALLEN = 5.0
"""Points below the best run of the same policy from which on a run has collapsed."""
TELLING = 3.0
"""Spread over noise below which methods cannot be told apart."""


def collapsed(rows: pd.DataFrame, by: Sequence[str]) -> pd.Series[bool]:
    """Whether each run lies more than ``FALLEN`` points below the best one of its kind.

    Args:
        rows: a column ``test`` and those of ``by``.
        by: what makes runs of one kind: all but the seed.

    Example:
        >>> runs = pd.DataFrame({"policy": ["2", "2", "3"], "test": [10.0, 64.0, 73.0]})
        >>> collapsed(runs, ["policy"]).tolist()
        [True, False, False]
    """
    best = rows.groupby(list(by), dropna=False).test.transform("max")
    return rows.test < best - FALLEN


def above_ladder(rows: pd.DataFrame, ladder: pd.DataFrame, cost: str = "cost") -> pd.Series[float]:
    """Accuracy of each row less that of uniform bits of the same cost, in points.

    Uniform bits of a cost between two are taken on the line between them. Of the ladder only those steps count that no
    cheaper one beats in the mean over seeds; their accuracies are those of the row's own seed.

    Args:
        rows: columns ``seed``, ``test`` and the cost's.
        ladder: the same and ``policy``, one row a policy and seed.
        cost: the column that is compared at.

    Returns:
        Differences on the index of ``rows``: to the last step above the ladder's cost; NaN below it, or for a seed that
        has none.

    Example:
        >>> ladder = pd.DataFrame({"seed": 0, "policy": ["2", "4"], "cost": [2.0, 4.0], "test": [80.0, 84.0]})
        >>> rows = pd.DataFrame({"seed": 0, "cost": [3.0, 5.0, 1.0], "test": [83.0, 85.0, 70.0]})
        >>> above_ladder(rows, ladder).tolist()
        [1.0, 1.0, nan]
    """
    found = pd.Series(np.nan, index=rows.index, dtype=float)
    for group, own in _by_seed(rows, ladder, cost):
        found.loc[group.index] = group.test - np.interp(group[cost], own[cost], own.test, left=np.nan)
    return found


def saved_at_equal_accuracy(rows: pd.DataFrame, ladder: pd.DataFrame, cost: str) -> pd.Series[float]:
    """By how much each row is cheaper than uniform bits of the same accuracy, in percent of what they cost.

    Returns:
        On the index of ``rows``; NaN for an accuracy that the ladder of its seed does not span.

    Example:
        >>> ladder = pd.DataFrame({"seed": 0, "policy": ["2", "4"], "cost": [2.0, 4.0], "test": [80.0, 84.0]})
        >>> rows = pd.DataFrame({"seed": 0, "cost": [2.4, 5.0], "test": [82.0, 90.0]})
        >>> saved_at_equal_accuracy(rows, ladder, "cost").round(1).tolist()
        [20.0, nan]
    """
    found = pd.Series(np.nan, index=rows.index, dtype=float)
    for group, own in _by_seed(rows, ladder, cost):
        rising = own[own.test > own.test.cummax().shift(fill_value=-np.inf)]
        uniform = np.interp(group.test, rising.test, rising[cost], left=np.nan, right=np.nan)
        found.loc[group.index] = 100 * (1 - group[cost] / uniform)
    return found


def _by_seed(rows: pd.DataFrame, ladder: pd.DataFrame, cost: str) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """The rows of each seed with its ladder: the steps that no cheaper one beats in the mean, by rising cost.

    Where a seed's run of a step has collapsed, the mean of the others stands for it: nobody is above uniform bits for
    their having failed.
    """
    alive = ladder[~collapsed(ladder, ["policy"])]
    steps = alive.groupby("policy")[[cost, "test"]].mean()
    kept = steps[is_efficient(steps, sense=("min", "max"))].sort_values(cost)
    for seed, group in rows.groupby("seed"):
        of_seed = alive[alive.seed == seed].set_index("policy").reindex(kept.index)[[cost, "test"]]
        if of_seed.test.notna().any():
            yield group, of_seed.fillna(kept)


def spread_and_noise(rows: pd.DataFrame) -> tuple[float, float]:
    """How far policies of one cost differ, and how far runs of one policy do: two standard deviations, in points.

    Args:
        rows: the same policies for several seeds: columns ``policy``, ``seed`` and ``test``.

    Returns:
        Standard deviation of the policies' means over seeds; that of a single run once its policy's and its seed's
        means are taken off. NaN where there are fewer than two policies or seeds.

    Example:
        >>> rows = pd.DataFrame({"policy": list("aabb"), "seed": [0, 1, 0, 1], "test": [80.0, 81.0, 84.0, 85.0]})
        >>> spread, noise = spread_and_noise(rows)
        >>> round(spread, 2), noise
        (2.83, 0.0)
    """
    table = rows.pivot_table(index="policy", columns="seed", values="test").dropna()
    policies, seeds = table.shape
    if policies < 2 or seeds < 2:
        return float("nan"), float("nan")
    values = table.to_numpy()
    rest = values - values.mean(1, keepdims=True) - values.mean(0, keepdims=True) + values.mean()
    freedom = (policies - 1) * (seeds - 1)
    return float(values.mean(1).std(ddof=1)), float((np.square(rest).sum() / freedom) ** 0.5)


def verdict(found: Mapping[str, float]) -> str:
    """One sentence on a table's power, from ``spread`` and ``noise``.

    Example:
        >>> verdict({"spread": 0.23, "noise": 0.2})
        'policies differ by 0.23 points and runs by 0.20: ratio 1.1, methods cannot be told apart'
    """
    spread, noise = found["spread"], found["noise"]
    if np.isnan(spread) or np.isnan(noise):
        return "too few policies or seeds to say how far they differ"
    ratio = spread / noise if noise > 0 else float("inf")
    says = "methods can be told apart" if ratio >= TELLING else "methods cannot be told apart"
    return f"policies differ by {spread:.2f} points and runs by {noise:.2f}: ratio {ratio:.1f}, {says}"

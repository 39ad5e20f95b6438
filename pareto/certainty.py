"""How much of a frontier is the choice of test samples: the bootstrap over samples, and paired standard errors.

All policies are measured on the same samples, so that what two of them differ by is known better than either accuracy:
samples that both get right, or both wrong, say nothing about it. B. Efron, "Bootstrap methods: another look at the
jackknife", Ann. Statist. 7 (1979); the paired error is that of Q. McNemar, Psychometrika 12 (1947).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pareto._check import Floats

__all__ = ["FrontierCertainty", "alike_steps", "frontier_certainty", "paired_difference"]

Bools = npt.NDArray[np.bool_]
_BLOCK = 4096  # policies at once: accuracies of all draws of so many are a few MB


@dataclass(frozen=True, kw_only=True)
class FrontierCertainty:
    """What other draws of the same number of samples would have made of a frontier."""

    membership: Floats
    """(N,) share of the draws in which each policy is efficient."""
    costs: Floats
    """(K,) costs of the frontier's steps, rising."""
    low: Floats
    high: Floats
    """(K,) in percent: between them lies, nearly as often as asked, the best accuracy to be had at each of `costs`."""
    draws: int


def frontier_certainty(
    correct: Bools, cost: npt.ArrayLike, *, draws: int = 1000, level: float = 0.9, seed: int = 0
) -> FrontierCertainty:
    """Draw the samples again, with replacement, and find the frontier of accuracy and cost of every draw.

    Membership and band are about the frontier of very many samples, of which these are some; measured, that is nearly
    what they are (docs/pareto.md). They are not about another set as small as this one, whose frontier is partly luck
    too. The band is turned about the measured frontier (the "basic" interval), because a best of many is too good in
    the draws as it is in the measurement.

    Args:
        correct: (N, S) which of S samples each of N policies gets right.
        cost: (N,) finite; less is better, and it is known exactly.
        draws: how many sets of S samples.
        level: of the band.
        seed: of the draws.

    Raises:
        ValueError: shapes that do not fit, a cost that is not finite, no draw, a level outside 0 to 1.

    >>> correct = np.array([[True, True, False, True], [False, False, False, True], [True, True, True, True]])
    >>> found = frontier_certainty(correct, [1.0, 2.0, 3.0], draws=100)
    >>> found.membership.round(1).tolist(), found.costs.tolist()
    ([1.0, 0.0, 0.7], [1.0, 3.0])
    """
    costs = np.asarray(cost, dtype=np.float64)
    if correct.dtype != np.bool_ or correct.ndim != 2 or costs.shape != correct.shape[:1] or not correct.size:
        raise ValueError(
            f"correct must be (policies, samples) booleans and cost one number a policy; got {correct.dtype} "
            f"{correct.shape} and {costs.shape}"
        )
    if not np.isfinite(costs).all():
        raise ValueError(f"cost: row {int(np.argmin(np.isfinite(costs)))} is not finite")
    if draws < 1 or not 0 < level < 1:
        raise ValueError(f"draws must be at least 1 and level between 0 and 1, got {draws} and {level}")
    samples = correct.shape[1]
    order = np.argsort(costs, kind="stable")
    # The measured samples are draw 0: counts below 2**24 are exact in float32, and ties stay ties.
    weights = np.vstack([np.ones((1, samples), np.float32), _draw(samples, draws, seed)])
    best = np.full(len(weights), -1.0, dtype=np.float32)
    membership, steps, heights = np.empty(len(costs)), [], []
    for start, stop in _blocks(costs[order]):
        rows = order[start:stop]
        efficient, after = _members(weights @ correct[rows].T.astype(np.float32), costs[rows], best)
        membership[rows] = efficient[1:].mean(axis=0)
        on_front = np.flatnonzero(efficient[0])
        steps.append(costs[rows[on_front]])
        heights.append(after[:, on_front])
        best = after[:, -1]
    at, first = np.unique(np.concatenate(steps), return_index=True)
    reached = 100.0 / samples * np.concatenate(heights, axis=1)[:, first].astype(np.float64)
    low, high = np.quantile(reached[1:], [(1 - level) / 2, (1 + level) / 2], axis=0)
    bounds = np.clip([2 * reached[0] - high, 2 * reached[0] - low], 0.0, 100.0)
    return FrontierCertainty(membership=membership, costs=at, low=bounds[0], high=bounds[1], draws=draws)


def _draw(samples: int, draws: int, seed: int) -> npt.NDArray[np.float32]:
    """(draws, S) how often each sample is drawn."""
    picked = np.random.default_rng(seed).integers(samples, size=(draws, samples))
    picked += samples * np.arange(draws)[:, None]
    return np.bincount(picked.ravel(), minlength=draws * samples).reshape(draws, samples).astype(np.float32)


def _blocks(costs: Floats) -> Iterator[tuple[int, int]]:
    """Parts of the sorted costs that no run of equal costs crosses."""
    start = 0
    while start < len(costs):
        last = costs[min(start + _BLOCK, len(costs)) - 1]
        stop = int(np.searchsorted(costs, last, side="right"))
        yield start, stop
        start = stop


def _members(
    accuracies: npt.NDArray[np.float32], costs: Floats, best: npt.NDArray[np.float32]
) -> tuple[Bools, npt.NDArray[np.float32]]:
    """Who is efficient in each draw (D, n), and the best accuracy up to each cost.

    Args:
        accuracies: (D, n) of policies by rising cost.
        costs: (n,).
        best: (D,) the best accuracy of all that cost less.
    """
    reached = np.maximum(np.maximum.accumulate(accuracies, axis=1), best[:, None])
    first = np.searchsorted(costs, costs, side="left")  # of the policies with the same cost
    last = np.searchsorted(costs, costs, side="right") - 1
    reached = reached[:, last]
    cheaper = np.concatenate([best[:, None], reached], axis=1)[:, first]
    return (accuracies == reached) & (accuracies > cheaper), reached


def paired_difference(correct: Bools, other: Bools) -> tuple[Floats, Floats]:
    """By how many points the first is more often right than the other, and the standard error of that.

    Args:
        correct: (..., S) booleans.
        other: (..., S) of the same samples; shapes broadcast.

    >>> difference, error = paired_difference(np.array([True] * 6 + [False] * 4), np.array([True] * 4 + [False] * 6))
    >>> float(difference), round(float(error), 3)
    (20.0, 12.649)
    """
    samples = correct.shape[-1]
    more = (correct & ~other).sum(axis=-1) / samples
    less = (~correct & other).sum(axis=-1) / samples
    return 100.0 * (more - less), 100.0 * np.sqrt(np.maximum(more + less - (more - less) ** 2, 0.0) / samples)


def alike_steps(correct: Bools, *, errors: float = 2.0) -> npt.NDArray[np.int64]:
    """Number the policies of a frontier, cheapest first, so that those with one number cannot be told apart.

    A number begins with a policy that is better than the first of the number before by more than so many standard
    errors of the paired difference. The first of each is then the one to take: the others cost more, and their accuracy
    is not known to be higher.

    Args:
        correct: (K, S) of the frontier's policies, by rising cost.
        errors: how many standard errors are a difference.

    >>> alike_steps(np.arange(100) < np.array([[50], [51], [52], [60], [90]])).tolist()
    [0, 0, 0, 1, 2]
    """
    numbers = np.zeros(len(correct), dtype=np.int64)
    first = 0
    for row in range(1, len(correct)):
        difference, error = paired_difference(correct[row], correct[first])
        if difference > errors * error:
            first = row
        numbers[row] = numbers[row - 1] + (first == row)
    return numbers

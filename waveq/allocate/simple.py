"""Allocations that any learned policy must beat: the same bits everywhere, random bits, greedy descent."""

from __future__ import annotations

import math

import numpy as np

from waveq.allocate.problem import Problem, Table, make_problem

__all__ = ["greedy_sensitivity", "random_at_cost", "uniform"]


def uniform(losses: Table, costs: Table, budget: float) -> dict[str, int]:
    """The most bits that all layers can have alike within the budget; the losses have no say.

    Args:
        losses: loss by layer and total bits (unused; the same signature as its siblings).
        costs: cost by layer and total bits.
        budget: the most that the costs may add up to.

    Raises:
        ValueError: tables that do not fit together, no bits that all layers share, or a budget that cannot be met.

    Example:
        >>> costs = {"a": {2: 2.0, 3: 3.0, 4: 4.0}, "b": {2: 20.0, 3: 30.0, 4: 40.0}}
        >>> uniform(costs, costs, 36.0)
        {'a': 3, 'b': 3}
    """
    problem = make_problem(losses, costs, budget)
    shared = sorted(set.intersection(*map(set, problem.bits)), reverse=True)
    for bits in shared:
        chosen = [choices.index(bits) for choices in problem.bits]
        if problem.fits(problem.total_cost(chosen)):
            return problem.as_policy(chosen)
    raise ValueError(f"no number of bits that all layers share costs at most {budget!r} (shared: {shared or 'none'})")


def random_at_cost(losses: Table, costs: Table, budget: float, *, seed: int = 0) -> dict[str, int]:
    """Random bits that use the budget up: no layer could have more without exceeding it. The losses have no say.

    Each layer draws its bits evenly; while that costs too much, random layers come down by one choice; then, while any
    step fits, random layers go up by one.

    Args:
        losses: loss by layer and total bits (unused; the same signature as its siblings).
        costs: cost by layer and total bits.
        budget: the most that the costs may add up to.
        seed: of NumPy's generator; each seed is another policy.

    Raises:
        ValueError: tables that do not fit together, or a budget that cannot be met.

    Example:
        >>> costs = {"a": {2: 2.0, 3: 3.0}, "b": {2: 2.0, 3: 3.0}}
        >>> sorted(random_at_cost(costs, costs, 5.0, seed=1).values())
        [2, 3]
    """
    problem = make_problem(losses, costs, budget)
    generator = np.random.default_rng(seed)
    chosen = [int(generator.integers(len(choices))) for choices in problem.bits]
    while not problem.fits(problem.total_cost(chosen)):
        chosen[int(generator.choice([i for i, index in enumerate(chosen) if index > 0]))] -= 1
    while able := raisable(problem, chosen):
        chosen[int(generator.choice(able))] += 1
    return problem.as_policy(chosen)


def greedy_sensitivity(losses: Table, costs: Table, budget: float) -> dict[str, int]:
    """From the most bits everywhere, step by step down where a unit of cost loses least; then up where there is room.

    Each step takes one layer to its next lower choice: the one with the least rise of the loss for each unit of cost
    saved, the earlier layer on a tie. Within the budget, layers go up again as long as one fits that lowers the
    loss, the steepest first: the last step down often frees more than was asked for.

    Args:
        losses: loss by layer and total bits, any unit (accuracy lost by this layer alone, task loss, ...).
        costs: cost by layer and total bits.
        budget: the most that the costs may add up to.

    Raises:
        ValueError: tables that do not fit together, or a budget that cannot be met.

    Example:
        >>> costs = {"a": {2: 2.0, 4: 4.0}, "b": {2: 2.0, 4: 4.0}}
        >>> greedy_sensitivity({"a": {2: 0.9, 4: 0.0}, "b": {2: 0.1, 4: 0.0}}, costs, 6.0)
        {'a': 4, 'b': 2}
    """
    problem = make_problem(losses, costs, budget)
    chosen = [len(choices) - 1 for choices in problem.bits]
    while not problem.fits(problem.total_cost(chosen)):
        lowerable = [i for i, index in enumerate(chosen) if index > 0]
        chosen[min(lowerable, key=lambda i: _price(problem, i, chosen[i] - 1))] -= 1
    while able := [i for i in raisable(problem, chosen) if _gain(problem, i, chosen[i]) > 0]:
        chosen[max(able, key=lambda i: _price(problem, i, chosen[i]))] += 1
    return problem.as_policy(chosen)


def raisable(problem: Problem, chosen: list[int]) -> list[int]:
    """The layers whose next choice still fits."""
    total = problem.total_cost(chosen)
    return [
        i
        for i, index in enumerate(chosen)
        if index + 1 < len(problem.bits[i])
        and problem.fits(total + float(problem.cost[i][index + 1] - problem.cost[i][index]))
    ]


def _gain(problem: Problem, layer: int, index: int) -> float:
    """How much less a layer loses at the choice after ``index``."""
    return float(problem.loss[layer][index] - problem.loss[layer][index + 1])


def _price(problem: Problem, layer: int, index: int) -> float:
    """That, for each unit of cost between the two choices."""
    saved = float(problem.cost[layer][index + 1] - problem.cost[layer][index])
    gain = _gain(problem, layer, index)
    return gain / saved if saved > 0 else math.copysign(math.inf, gain)

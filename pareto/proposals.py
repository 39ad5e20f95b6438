"""Which policies a search measures next."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from pareto._check import Floats
from pareto._gain import expected_gain
from pareto._surrogate import Surrogate
from pareto.additive import additive_frontier
from pareto.space import DesignSpace, Policies
from pareto.tables import LayerTable, score_policies

__all__ = ["CostFunction", "first_policies", "next_policies"]

CostFunction = Callable[[Policies], Floats]

_MODEL_ROWS = 800  # measured policies that the guess is made from; its time grows with their cube
_CROSSINGS = 1000  # candidates beside the neighbours of the frontier
_MUTATIONS = 1.5  # layers of a crossing that are drawn anew, on average
_NEIGHBOURHOOD = 40  # members of the frontier whose neighbours are candidates, evenly over it
_NEIGHBOURS = 4000  # of them all, drawn at random where there are more


def first_policies(
    space: DesignSpace, losses: LayerTable | None, cost: LayerTable | None, count: int, rng: np.random.Generator
) -> Policies:
    """What is measured before anything is known.

    Equal bits; then, where there are losses and the cost is a table, their frontier, evenly over its points; elsewhere
    the narrowest policy with one layer at its widest, and the widest with one layer at its narrowest, which tell the
    layers apart.

    Args:
        space: of the policies.
        losses, cost: tables by layer and width.
        count: how many at most, equal bits aside.
        rng: draws which layers, where there are more.

    Returns:
        (n, L), no policy twice.
    """
    widths = list(space.choices.values())
    steps = max(len(each) for each in widths)
    ladder = [[each[min(step, len(each) - 1)] for each in map(sorted, widths)] for step in range(steps)]
    if losses is not None and cost is not None:
        front = additive_frontier(cost, losses)[list(space.names)].to_numpy(dtype=np.uint8)
        rows = front[np.unique(np.linspace(0, len(front) - 1, min(count, len(front))).round().astype(int))]
    else:
        rows = _one_layer_apart(np.array(ladder[0], dtype=np.uint8), np.array(ladder[-1], dtype=np.uint8))
        rows = rows[np.sort(rng.permutation(len(rows))[:count])]
    together = np.vstack([np.array(ladder, dtype=np.uint8), rows])
    _, first = np.unique(together, axis=0, return_index=True)
    return together[np.sort(first)]


def _one_layer_apart(narrowest: Policies, widest: Policies) -> Policies:
    layers = len(narrowest)
    mine = np.eye(layers, dtype=np.bool_)
    return np.vstack([np.where(mine, narrowest, widest), np.where(mine, widest, narrowest)])


def next_policies(
    space: DesignSpace,
    known: Policies,
    values: Floats,
    cost: CostFunction,
    losses: LayerTable | None,
    pending: Policies,
    avoid: Policies,
    *,
    count: int,
    floor: float | None,
    rng: np.random.Generator,
) -> Policies:
    """The policies whose measurement is expected to add most to the dominated area.

    They are chosen one after the other; each counts as measured, with the guessed value, when the next is chosen.

    Args:
        space: of the policies.
        known: (n, L) measured policies, n >= 2, and their metric.
        values: (n,), more is better.
        cost: of policies.
        losses: summed, they are one more input of the guess.
        pending: (p, L) policies under way, which count with their guesses.
        avoid: (a, L) policies that are not proposed and count for nothing: those that failed.
        count: how many are wanted.
        floor: metric below which nothing counts; None stands for the worst value.
        rng: of the crossings.

    Returns:
        (m, L) with m <= count; fewer, or none, where everything near the frontier is measured.
    """
    costs = cost(known)
    rows = _for_model(values, costs, rng)
    guess = Surrogate(_inputs(known[rows], losses), values[rows])
    if len(pending):
        costs = np.concatenate([costs, cost(pending)])
        values = np.concatenate([values, guess.predict(_inputs(pending, losses))[0]])
        known = np.vstack([known, pending])
    front = _front(costs, values)
    candidates = _candidates(space, np.vstack([known, avoid]), known[front], rng)
    if not len(candidates):
        return candidates
    means, deviations = guess.predict(_inputs(candidates, losses))
    return candidates[
        _choose(
            cost(candidates),
            means,
            deviations,
            (costs[front], values[front]),
            count,
            floor=float(values.min()) if floor is None else floor,
            ceiling=float(costs.max()),
        )
    ]


def _choose(
    costs: Floats,
    means: Floats,
    deviations: Floats,
    front: tuple[Floats, Floats],
    count: int,
    *,
    floor: float,
    ceiling: float,
) -> npt.NDArray[np.int64]:
    front_costs, front_values = front
    chosen: list[int] = []
    ceiling *= 1.001 if ceiling > 0 else 1.0  # so that the most expensive policy of all may count for something
    for _ in range(min(count, len(costs))):
        gains = expected_gain(costs, means, deviations, front_costs, front_values, floor, ceiling)
        gains[chosen] = -1.0
        best = int(gains.argmax())
        chosen.append(best)
        front_costs, front_values = np.append(front_costs, costs[best]), np.append(front_values, means[best])
        kept = _front(front_costs, front_values)
        front_costs, front_values = front_costs[kept], front_values[kept]
    return np.array(chosen)


def _front(costs: Floats, values: Floats) -> npt.NDArray[np.int64]:
    """Rows of the frontier, cost and value rising; of equal rows the first."""
    order = np.lexsort((-values, costs))
    highest = np.maximum.accumulate(np.concatenate(([-np.inf], values[order][:-1])))
    return np.asarray(order[values[order] > highest])


def _for_model(values: Floats, costs: Floats, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """All rows, or the frontier and as many others as the guess can use."""
    if len(values) <= _MODEL_ROWS:
        return np.arange(len(values))
    front = _front(costs, values)[:_MODEL_ROWS]
    others = np.setdiff1d(np.arange(len(values)), front)
    return np.sort(np.concatenate([front, rng.permutation(others)[: _MODEL_ROWS - len(front)]]))


def _inputs(policies: Policies, losses: LayerTable | None) -> Floats:
    """What the guess sees of a policy: the step of each layer's grid, halved by every bit, and the losses' sum."""
    steps = np.exp2(3.0 - policies.astype(np.float64))
    if losses is None:
        return steps
    span = float(sum(np.ptp(entries) for entries in losses.entries.values())) or 1.0
    least = float(sum(entries.min() for entries in losses.entries.values()))
    share = np.maximum(score_policies(policies, losses) - least, 0.0) / span
    return np.column_stack([steps, np.log10(share + 1e-4)])


def _candidates(space: DesignSpace, known: Policies, front: Policies, rng: np.random.Generator) -> Policies:
    """Policies not measured yet: neighbours of the frontier, and crossings of its members with some bits drawn anew."""
    centres = front[np.unique(np.linspace(0, len(front) - 1, min(_NEIGHBOURHOOD, len(front))).round().astype(int))]
    found = np.unique(np.vstack([*_neighbours(space, centres, rng), _crossings(space, front, rng)]), axis=0)
    whole = np.dtype((np.void, found.shape[1]))
    fresh = ~np.isin(found.view(whole).ravel(), np.ascontiguousarray(known).view(whole).ravel())
    return found[fresh]


def _neighbours(space: DesignSpace, centres: Policies, rng: np.random.Generator) -> Iterator[Policies]:
    """One layer one width up or down; and one up while another goes down."""
    widths = [np.array(sorted(each), dtype=np.uint8) for each in space.choices.values()]
    places = np.column_stack([np.searchsorted(each, centres[:, layer]) for layer, each in enumerate(widths)])
    last = np.array([len(each) - 1 for each in widths])
    unit = np.eye(len(widths), dtype=np.int64)
    swaps = (unit[:, None, :] - unit[None, :, :]).reshape(-1, len(widths))
    for moves in (np.vstack([unit, -unit]), swaps[(swaps != 0).any(axis=1)]):
        moved = (places[:, None, :] + moves[None, :, :]).reshape(-1, len(widths))
        moved = moved[((moved >= 0) & (moved <= last)).all(axis=1)]
        if len(moved) > _NEIGHBOURS:
            moved = moved[np.sort(rng.permutation(len(moved))[:_NEIGHBOURS])]
        yield np.column_stack([each[moved[:, layer]] for layer, each in enumerate(widths)])


def _crossings(space: DesignSpace, front: Policies, rng: np.random.Generator) -> Policies:
    layers = front.shape[1]
    parents = front[rng.integers(len(front), size=(2, _CROSSINGS))]
    children = np.where(rng.random((_CROSSINGS, layers)) < 0.5, parents[0], parents[1])
    drawn = np.column_stack([rng.choice(np.array(each, dtype=np.uint8), _CROSSINGS) for each in space.choices.values()])
    return np.where(rng.random((_CROSSINGS, layers)) < _MUTATIONS / layers, drawn, children).astype(np.uint8)

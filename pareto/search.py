"""The frontier of a space that is too large to enumerate, from a few hundred measured policies.

What a policy costs is known beforehand, what it reaches must be measured. So the next policies to measure are those
that are expected to add most to the dominated area: a Gaussian process guesses the metric from the bits, and the guess
is renewed after every batch. Candidates are the neighbours of the measured frontier and crossings of its members.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pareto._check import Floats, check_choice, nearest
from pareto._policies import policy_rows
from pareto._tolerant import Tolerant, keep, warn_of_failures
from pareto.engines import ENGINES, Evaluate
from pareto.enumerate import progress_bar
from pareto.frontier import frontier
from pareto.proposals import CostFunction, first_policies, next_policies
from pareto.space import DesignSpace, Policies
from pareto.store import Store
from pareto.tables import LayerTable, as_table, matched, score_policies

__all__ = ["SearchResult", "search"]

_FIRST_SHARE = 4  # one in so many evaluations, at most, tells layers apart before anything is guessed
_LOSSES_SHARE = 10  # or lies on the frontier of the given losses


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a search has measured.

    Attributes:
        frame: one row a measured policy: a uint8 column a layer, the metrics of the store, the cost.
        front: its efficient rows, metric rising.
        evaluations: how many policies of the space the store holds.
        reason: why it ended: "evaluations" or "whole space measured".
    """

    frame: pd.DataFrame
    front: pd.DataFrame
    evaluations: int
    reason: str


def search(
    space: DesignSpace,
    evaluate: Evaluate,
    *,
    cost: Any = None,
    cost_name: str | None = None,
    losses: Any = None,
    include: npt.ArrayLike | None = None,
    evaluations: int = 300,
    store: Store | None = None,
    metric: str = "accuracy",
    floor: float | None = None,
    batch: int = 8,
    seed: int = 0,
    retry_failed: bool = False,
    engine: str = "serial",
    progress: bool = True,
    **engine_options: Any,
) -> SearchResult:
    """Measure the policies that are most likely to lie on the frontier of metric and cost.

    Calling it again with the same store resumes; with one worker a search that was cut off measures the same policies
    as one that was not (between two batches).

    Args:
        space: which widths each layer may take.
        evaluate: (n, L) uint8 -> (n,) or (n, M) floats, the metrics of the store, or (n, S) booleans, as for
            `run_campaign`; more of `metric` is better.
        cost: what a policy costs: a table per layer and width in any form of `as_table`, or a function of (n, L)
            policies that returns (n,) finite numbers. Default: mean bits.
        cost_name: the column of the cost; default "cost", or "mean_bits".
        losses: what one layer loses at each width while others stay wide (`measured_losses`), in any unit: the
            first policies are then on the frontier of these losses and the cost, and the guess knows their sums. Losses
            that see weights alone mislead it: rather none than those.
        include: (n, L) policies that are measured before all others, a learned one, say.
        evaluations: how many policies of the space the store holds at the end; what it holds at the start counts, and
            what has failed counts too.
        store: where results go (a file survives a kill); default: memory.
        metric: which metric of the store.
        floor: metric below which nothing counts; default: the worst measured.
        batch: policies measured between two guesses.
        seed: of the candidates.
        retry_failed: forget which policies have failed, so that they may be tried again.
        engine, engine_options, progress: as for `run_campaign`. With several workers guesses count what is under way as
            if it had come out as guessed.

    Raises:
        ValueError: layers that are not the store's, an unknown metric or engine, a cost that is not finite, and what
            the store and the engine raise.

    >>> space = DesignSpace({"conv": (2, 3, 4, 8), "fc": (2, 3, 4, 8)})
    >>> def evaluate(rows):
    ...     return 99.0 - np.exp2(4.0 - rows) @ [1.0, 3.0]
    >>> found = search(space, evaluate, evaluations=12, progress=False)
    >>> found.evaluations, found.front.iloc[-1].to_dict()
    (12, {'conv': 8.0, 'fc': 8.0, 'accuracy': 98.75, 'mean_bits': 8.0})
    """
    check_choice("engine", engine, list(ENGINES))
    for argument, value in (("evaluations", evaluations), ("batch", batch)):
        if value < 1:
            raise ValueError(f"{argument} must be at least 1, got {value}")
    name = cost_name or ("mean_bits" if cost is None else "cost")
    with _in_memory(space, metric) if store is None else nullcontext(store) as results:
        _check_store(space, results, metric, name)
        table = None if callable(cost) else _cost_table(space, cost)
        plan = _Plan(
            space=space,
            store=results,
            cost=_checked(cost) if table is None else _summed(table),
            cost_table=table,
            losses=None if losses is None else matched(as_table(losses, argument="losses"), space, "losses"),
            metric=metric,
            floor=floor,
            include=_included(space, include),
            evaluations=min(evaluations, space.size),
            batch=batch,
            seed=seed,
        )
        if retry_failed:
            results.forget_failures()
        done = min(plan.attempted(), plan.evaluations)
        tolerant = Tolerant(evaluate, results.metrics, results.policies()[:1])
        with (
            progress_bar(plan.evaluations, done, enabled=progress) as counter,
            closing(ENGINES[engine](tolerant, plan.units(), **engine_options)) as finished,
        ):
            for unit, answer in finished:
                keep(results, unit, answer)
                plan.done(unit)
                counter.advance(len(unit))
        warn_of_failures(results)
        return _result(results, plan, name)


def _in_memory(space: DesignSpace, metric: str) -> Store:
    return Store(":memory:", layers=space.names, fingerprint={}, metrics=(metric,))


def _check_store(space: DesignSpace, store: Store, metric: str, cost_name: str) -> None:
    if space.names != store.layers:
        raise ValueError(f"the design space has layers {space.names}, the store {store.layers}")
    if metric not in store.metrics:
        raise ValueError(f"metric {metric!r} is not one of the store's{nearest(metric, store.metrics)}")
    if cost_name in (*store.metrics, *store.layers):
        raise ValueError(f"cost_name {cost_name!r} is already a column; give it another name")


def _cost_table(space: DesignSpace, cost: Any) -> LayerTable:
    if cost is None:
        layers = len(space.names)
        return as_table({name: {w: w / layers for w in widths} for name, widths in space.choices.items()})
    return matched(as_table(cost, argument="cost"), space, "cost")


def _summed(table: LayerTable) -> CostFunction:
    return lambda policies: score_policies(policies, table)


def _checked(function: Any) -> CostFunction:
    def cost(policies: Policies) -> Floats:
        values = np.asarray(function(policies), dtype=np.float64)
        if values.shape != (len(policies),) or not np.isfinite(values).all():
            raise ValueError(f"cost must return {len(policies)} finite numbers, one a policy; got shape {values.shape}")
        return values

    return cost


@dataclass(kw_only=True)
class _Plan:
    """Hands out units, one at a time and as late as possible: what is stored by then decides about the next."""

    space: DesignSpace
    store: Store
    cost: CostFunction
    cost_table: LayerTable | None
    losses: LayerTable | None
    include: Policies
    metric: str
    floor: float | None
    evaluations: int
    batch: int
    seed: int

    def __post_init__(self) -> None:
        self._pending: dict[bytes, Policies] = {}

    def units(self) -> Iterator[Policies]:
        """Policies to measure, until the store holds enough or nothing is left."""
        while (room := self.evaluations - self.attempted() - len(self._pending)) > 0:
            unit = self._next(min(self.batch, room))
            if not len(unit):
                return
            self._pending.update({row.tobytes(): row for row in unit})
            yield unit

    def attempted(self) -> int:
        """How many policies of the space were measured, or have failed."""
        return len(self.inside()) + len(self.failed())

    def failed(self) -> Policies:
        """Policies of the space that have failed."""
        policies = self.store.failures()[list(self.space.names)].to_numpy(dtype=np.uint8)
        return policies[self._of_the_space(policies)]

    def inside(self) -> npt.NDArray[np.int64]:
        """Rows of the store that belong to the space: an enumeration in the same store may have tried other widths."""
        return self._of_the_space(self.store.policies())

    def _of_the_space(self, policies: Policies) -> npt.NDArray[np.int64]:
        allowed = [np.isin(policies[:, layer], each) for layer, each in enumerate(self.space.choices.values())]
        return np.flatnonzero(np.all(allowed, axis=0))

    def done(self, unit: Policies) -> None:
        """These are stored now."""
        for row in unit:
            self._pending.pop(row.tobytes(), None)

    def _next(self, count: int) -> Policies:
        # A generator of its own for every state of the store: a search that goes on draws what it would have drawn.
        rng = np.random.default_rng([self.seed, self.attempted(), len(self._pending)])
        opening = first_policies(
            self.space,
            self.losses,
            self.cost_table,
            self.evaluations // (_FIRST_SHARE if self.losses is None else _LOSSES_SHARE),
            np.random.default_rng(self.seed),
        )
        left = self._unknown(np.vstack([self.include, opening]))
        if len(left):
            return left[:count]
        frame = self.store.frame()
        frame = frame.iloc[self.inside()]
        known = frame[list(self.space.names)].to_numpy(dtype=np.uint8)
        pending = np.array(list(self._pending.values()), dtype=np.uint8).reshape(-1, len(self.space.names))
        if len(known) > 1:
            near = next_policies(
                self.space,
                known,
                frame[self.metric].to_numpy(dtype=np.float64),
                self.cost,
                self.losses,
                pending,
                self.failed(),
                count=count,
                floor=self.floor,
                rng=rng,
            )
            if len(near):
                return near
        return self._unknown(self._anywhere(rng))[:count]

    def _unknown(self, policies: Policies) -> Policies:
        pending = np.array([row.tobytes() in self._pending for row in policies], dtype=np.bool_)
        return policies[~(self.store.known(policies) | self.store.failed(policies) | pending)]

    def _anywhere(self, rng: np.random.Generator) -> Policies:
        """Where everything near the frontier is measured: the whole space if it is small, else random policies."""
        if self.space.size <= 100_000:
            return self.space.policies()[rng.permutation(self.space.size)]
        return self.space.sample(1000, seed=int(rng.integers(2**31)))


def _included(space: DesignSpace, policies: npt.ArrayLike | None) -> Policies:
    if policies is None:
        return np.empty((0, len(space.names)), dtype=np.uint8)
    rows = policy_rows(policies, space.names, "include")
    for row in rows:
        space.row(row)
    return rows


def _result(store: Store, plan: _Plan, cost_name: str) -> SearchResult:
    frame = store.frame().iloc[plan.inside()].reset_index(drop=True)
    frame[cost_name] = plan.cost(frame[list(plan.space.names)].to_numpy(dtype=np.uint8))
    frame.attrs["layers"] = list(plan.space.names)
    front = frontier(frame, sense={plan.metric: "max", cost_name: "min"})
    reason = "whole space measured" if plan.attempted() >= plan.space.size else "evaluations"
    return SearchResult(frame=frame, front=front, evaluations=len(frame), reason=reason)

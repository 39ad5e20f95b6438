"""Evaluate every policy that a store lacks: units, engine, store and progress bar put together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from pareto._check import check_choice
from pareto._policies import policy_rows
from pareto._tolerant import Tolerant, keep, warn_of_failures
from pareto.engines import ENGINES, Evaluate
from pareto.space import DesignSpace, Policies
from pareto.store import Store

__all__ = ["progress_bar", "run_campaign"]


class _Counter(Protocol):
    def advance(self, rows: int) -> None: ...


def run_campaign(
    policies: DesignSpace | npt.ArrayLike,
    evaluate: Evaluate,
    store: Store,
    *,
    engine: str = "processes",
    unit_rows: int = 64,
    retry_failed: bool = False,
    progress: bool = True,
    unit_name: str = "policies",
    **engine_options: Any,
) -> pd.DataFrame:
    """Evaluate the policies that `store` lacks and return all of its results.

    Calling it again resumes: what is stored is never computed twice. A kill or Ctrl-C loses the units in flight and
    nothing else. A policy for which `evaluate` raises, or gives NaN, is recorded with the reason, and a warning says so
    at the end; the others of its unit are measured. Where it fails for every policy its own error ends the run.

    Args:
        policies: a DesignSpace, or an (N, L) array in the layer order of the store.
        evaluate: (n, L) uint8 -> (n,) or (n, M) floats, M being the metrics of the store; or (n, S) booleans, which of
            S samples are right: the metric is the percentage of these, and the store keeps them too (`Store.correct`).
            It must not depend on which policies come together in one call. Every worker gets one copy and keeps it.
        store: where results go. Only this process writes to it; other processes may do so at the same time,
            and then the work is shared: units are taken in random order and skipped when somebody else has
            done them.
        engine: "processes" (default), "ray" or "serial".
        unit_rows: policies handed out at once, neighbours in the order of the design space. A unit is what a
            kill can lose, and what an evaluator that reuses common prefixes can use.
        retry_failed: evaluate those that are recorded as failed once more.
        progress: show a bar with rate and time left (on standard error).
        unit_name: what the bar counts.
        engine_options: of the engine, such as workers=4, address="auto", resources={"num_gpus": 1}.

    Raises:
        ValueError: layers that are not the store's, an unknown engine, an `evaluate` whose answer has a wrong
            shape; and what the engine raises, or `evaluate` where it fails for every policy.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> space = DesignSpace({"conv": (2, 3), "fc": (2, 4)})
    >>> def evaluate(rows):
    ...     return rows @ [1.0, 10.0]
    >>> with Store(folder.name + "/run.sqlite", layers=space.names, fingerprint={"seed": 0}) as store:
    ...     frame = run_campaign(space, evaluate, store, engine="serial", progress=False)
    >>> frame["accuracy"].tolist()
    [22.0, 42.0, 23.0, 43.0]
    >>> folder.cleanup()
    """
    check_choice("engine", engine, list(ENGINES))
    if unit_rows < 1:
        raise ValueError(f"unit_rows must be at least 1, got {unit_rows}")
    rows, total = _missing(policies, store, retry_failed=retry_failed)
    tolerant = Tolerant(evaluate, store.metrics, store.policies()[:1])
    with progress_bar(total, total - len(rows), enabled=progress, of=unit_name) as counter:
        units = _units(rows, unit_rows, store, counter)
        # closing: on Ctrl-C between two units the engine ends its workers now, not when it is garbage
        with closing(ENGINES[engine](tolerant, units, **engine_options)) as finished:
            for unit, answer in finished:
                keep(store, unit, answer)
                counter.advance(len(unit))
    warn_of_failures(store)
    return store.frame()


def _missing(policies: DesignSpace | npt.ArrayLike, store: Store, *, retry_failed: bool) -> tuple[Policies, int]:
    """The policies that are to be measured, in order, and how many policies there are in all."""
    if isinstance(policies, DesignSpace):
        if policies.names != store.layers:
            raise ValueError(f"the design space has layers {policies.names}, the store {store.layers}")
        rows = policies.policies()
    else:
        rows = policy_rows(policies, store.layers)
        _, first = np.unique(rows, axis=0, return_index=True)
        rows = rows[np.sort(first)]
    whole = np.dtype((np.void, rows.shape[1]))  # a policy as one value, so that sets of them can be compared
    done = np.isin(rows.view(whole).ravel(), np.ascontiguousarray(store.policies()).view(whole).ravel())
    if not retry_failed:
        done |= store.failed(rows)
    return rows[~done], len(rows)


def _units(rows: Policies, unit_rows: int, store: Store, counter: _Counter) -> Iterator[Policies]:
    """Runs of neighbouring policies, in random order, less what other writers have stored in the meantime."""
    starts = np.arange(0, len(rows), unit_rows)
    np.random.default_rng().shuffle(starts)  # two writers seldom meet; partial results cover the whole space
    for start in starts:
        unit = rows[start : start + unit_rows]
        known = store.known(unit)
        if known.any():
            counter.advance(int(known.sum()))
            unit = unit[~known]
        if len(unit):
            yield unit


class _Silent:
    def advance(self, rows: int) -> None:
        """Count nothing."""


class _Bar:
    def __init__(self, progress: Any, task: Any) -> None:
        self._progress = progress
        self._task = task

    def advance(self, rows: int) -> None:
        """Move the bar by that many policies."""
        self._progress.advance(self._task, rows)


@contextmanager
def progress_bar(total: int, done: int, *, enabled: bool, of: str = "policies") -> Iterator[_Counter]:
    """A bar with rate and time left on standard error, or nothing where it is not enabled."""
    if not enabled:
        yield _Silent()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class RateColumn(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text("" if task.speed is None else f"{task.speed:.3g} {of}/s")

    columns = (TextColumn(of), BarColumn(), MofNCompleteColumn(), RateColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield _Bar(progress, progress.add_task(of, total=total, completed=done))

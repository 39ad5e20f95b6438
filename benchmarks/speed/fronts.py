"""Small tables: efficient rows, ranks and hypervolumes beside moocore and paretoset, in one process, answers compared.

    python -m benchmarks fronts [--json OUT] [--repeats 9] [--quick]

Processor time, the best of the repeats. moocore is C (LGPL-2.1): pareto does not ask it, but has kernels of its own.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks._report import write_json
from benchmarks.speed.frontier import KINDS, LIBRARIES, with_pareto
from pareto import hypervolume, rank

__all__ = ["main"]

_FRONTS = tuple((rows, objectives) for objectives in (2, 3, 4, 5) for rows in (1_000, 10_000))
_RANKS = ((1_000, 2), (10_000, 2), (1_000, 3), (10_000, 3), (1_000, 4), (10_000, 4), (10_000, 5))
_VOLUMES = ((1_000, 2), (10_000, 2), (1_000, 3), (10_000, 3), (100, 4), (1_000, 4), (3_000, 4), (50, 5), (150, 5))
_VOLUMES += ((500, 5), (30, 6), (100, 6))


def main(argv: list[str]) -> int:
    """Time every cell; 1 where two answers differ."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks fronts", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="few rows, one repeat")
    parser.add_argument("--json", help="file to write")
    options = parser.parse_args(argv)
    rows = []
    for cell, ours, theirs, agree in _cells(quick=options.quick):
        own, other = _in_turns(ours, theirs, 1 if options.quick else options.repeats)
        rows.append({**cell, "pareto_ms": own, "library_ms": other, "ratio": other / own, "agree": agree})
        print(
            f"{cell['what']:<12} {cell['objectives']} objectives {cell['rows']:>6,} rows {cell['kind']:<14} "
            f"{own:9.3f} ms, {cell['library']} {other / own:7.2f} times {'' if agree else 'DIFFERENT ANSWER'}",
            flush=True,
        )
    if options.json:
        write_json(options.json, {"repeats": options.repeats, "cells": rows}, "moocore", "paretoset")
    return int(not all(row["agree"] for row in rows))


Cell = tuple[dict[str, Any], Callable[[], Any], Callable[[], Any], bool]


def _cells(*, quick: bool) -> Iterator[Cell]:
    """What is timed: both ways, and whether their answers agree."""
    import moocore

    libraries = {name: LIBRARIES[name] for name in ("moocore", "paretoset")}
    for rows, objectives in _FRONTS[:1] if quick else _FRONTS:
        for kind, make in KINDS.items():
            points = make(rows, objectives)
            for name, (package, library) in libraries.items():
                if importlib.util.find_spec(package) is not None:
                    cell = {"what": "is_efficient", "rows": rows, "objectives": objectives, "kind": kind}
                    calls = functools.partial(with_pareto, points), functools.partial(library, points)
                    yield {**cell, "library": name}, *calls, bool((calls[0]() == calls[1]()).all())
    for rows, objectives in _RANKS[:1] if quick else _RANKS:
        for kind, make in KINDS.items():
            points = make(rows, objectives)
            calls = (
                functools.partial(rank, points, sense=["min"] * objectives),
                functools.partial(moocore.pareto_rank, points),
            )
            cell = {"what": "rank", "rows": rows, "objectives": objectives, "kind": kind, "library": "moocore"}
            yield cell, *calls, bool((calls[0]() == calls[1]()).all())
    for rows, objectives in _VOLUMES[:1] if quick else _VOLUMES:
        for kind in ("few efficient", "all efficient"):
            points, reference = KINDS[kind](rows, objectives) + (kind == "all efficient"), [1.1] * objectives
            calls = (
                functools.partial(hypervolume, points, reference=reference, sense=["min"] * objectives),
                functools.partial(moocore.hypervolume, points, ref=reference),
            )
            cell = {"what": "hypervolume", "rows": rows, "objectives": objectives, "kind": kind, "library": "moocore"}
            yield cell, *calls, bool(np.isclose(calls[0](), calls[1](), rtol=1e-10, atol=0))


def _in_turns(ours: Callable[[], Any], theirs: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Milliseconds of processor time, the best of each."""
    times: list[list[float]] = [[], []]
    theirs()  # what compiles has compiled
    for _ in range(repeats):
        for call, kept in zip((ours, theirs), times, strict=True):
            start = time.process_time()
            call()
            kept.append(1e3 * (time.process_time() - start))
    return min(times[0]), min(times[1])

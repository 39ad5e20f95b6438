"""Finding the efficient rows of a large table: pareto against other libraries, answers compared.

    python -m benchmarks frontier [--json OUT] [--rows 100000 1000000 10000000] [--timeout SECONDS]
                                  [--libraries NAME ...] [--objectives 2 3]
                                  [--tables FOLDER [--pictures FOLDER]]

Every cell runs in a process of its own that times the library and pareto in turns (best of three, compilation and
caches warmed up before), so a busy machine slows both. A library that needs more than the time limit is stopped; one
that took over a tenth of it is not asked for ten times the rows. Answers must agree up to the library's rule for equal
rows. With --tables, the frontiers of measured design spaces (CSV, one column a layer, last column "accuracy", cost =
mean bits) are printed and drawn.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks._report import write_json

__all__ = ["main"]

_SEED = 0
_REPEATS = 3
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def few_efficient(rows: int, objectives: int) -> Floats:
    """Uniform in the cube: some tens of rows are efficient."""
    return np.random.default_rng(_SEED).random((rows, objectives))


def all_efficient(rows: int, objectives: int) -> Floats:
    """On the sphere, pointing down: every row is efficient."""
    points = np.abs(np.random.default_rng(_SEED).standard_normal((rows, objectives)))
    return -points / np.linalg.norm(points, axis=1, keepdims=True)


def correlated(rows: int, objectives: int) -> Floats:
    """About a diagonal: even fewer rows are efficient."""
    rng = np.random.default_rng(_SEED)
    return rng.random((rows, 1)) + 0.1 * rng.random((rows, objectives))


KINDS = {"few efficient": few_efficient, "correlated": correlated, "all efficient": all_efficient}


def with_pareto(points: Floats) -> Bools:
    """This project."""
    from pareto import is_efficient

    return is_efficient(points, sense=["min"] * points.shape[1])


def with_sort(points: Floats) -> Bools:
    """Two objectives only: numpy's lexicographic sort and a running minimum (no equal rows in these data)."""
    order = np.lexsort((points[:, 1], points[:, 0]))
    lowest = np.minimum.accumulate(np.concatenate(([np.inf], points[order[:-1], 1])))
    mask = np.zeros(len(points), dtype=np.bool_)
    mask[order] = points[order, 1] < lowest
    return mask


def with_moocore(points: Floats) -> Bools:
    """C, one thread."""
    import moocore

    return np.asarray(moocore.is_nondominated(points, keep_weakly=True))


def with_paretoset(points: Floats) -> Bools:
    """Numba."""
    from paretoset import paretoset

    return np.asarray(paretoset(points, sense=["min"] * points.shape[1], distinct=False))


def with_pymoo(points: Floats) -> Bools:
    """numpy, all pairs."""
    from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

    mask = np.zeros(len(points), dtype=np.bool_)
    mask[NonDominatedSorting().do(points, only_non_dominated_front=True)] = True
    return mask


def with_optuna(points: Floats) -> Bools:
    """numpy."""
    from optuna.study._multi_objective import _is_pareto_front

    return np.asarray(_is_pareto_front(points, assume_unique_lexsorted=False))


def with_botorch(points: Floats) -> Bools:
    """torch; maximises."""
    import torch
    from botorch.utils.multi_objective.pareto import is_non_dominated

    return is_non_dominated(torch.from_numpy(-points), deduplicate=False).numpy()


LIBRARIES: dict[str, tuple[str, Callable[[Floats], Bools]]] = {
    "moocore": ("moocore", with_moocore),
    "numpy sort": ("numpy", with_sort),
    "paretoset": ("paretoset", with_paretoset),
    "pymoo": ("pymoo", with_pymoo),
    "optuna": ("optuna", with_optuna),
    "botorch": ("botorch", with_botorch),
}


def main(argv: list[str]) -> int:
    """Run every cell, print the table, write the JSON file; 1 where two answers differ."""
    options = _arguments().parse_args(argv)
    if options.tables is not None:
        published = [_table(path, options.pictures) for path in sorted(options.tables.glob("*.csv"))]
    else:
        published = []
    cells = []
    print(f"{'objectives':>10} {'rows':>10} {'kind':<14} {'library':<11} {'seconds':>9} {'pareto':>9} {'ratio':>7}")
    for objectives in options.objectives:
        for kind in KINDS:
            slow: set[str] = set()
            for rows in sorted(options.rows):
                for name in options.libraries:
                    cell = _cell(name, kind, rows, objectives, options.timeout, slow)
                    if cell is not None:
                        cells.append(cell)
                        _print(cell)
    if options.json:
        results = {"seed": _SEED, "repeats": _REPEATS, "cells": cells, "tables": published}
        write_json(options.json, results, *sorted({module for module, _ in LIBRARIES.values()}))
    return int(any(cell.get("agree") is False for cell in cells))


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks frontier", description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="write the results to this file")
    parser.add_argument("--rows", type=int, nargs="+", default=[10**5, 10**6, 10**7])
    parser.add_argument("--objectives", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--libraries", nargs="+", default=list(LIBRARIES), choices=list(LIBRARIES))
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for one cell of one library")
    parser.add_argument("--tables", type=Path, help="folder of measured design spaces as CSV")
    parser.add_argument("--pictures", type=Path, help="folder for a picture of each of them")
    return parser


def _cell(name: str, kind: str, rows: int, objectives: int, timeout: float, slow: set[str]) -> dict[str, Any] | None:
    """One library on one set; None where it cannot take part."""
    module, _ = LIBRARIES[name]
    if importlib.util.find_spec(module) is None or (name == "numpy sort" and objectives != 2):
        return None
    cell: dict[str, Any] = {"objectives": objectives, "rows": rows, "kind": kind, "library": name}
    if name in slow:
        return cell | {"status": "not asked: too slow on fewer rows"}
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=_measure, args=(name, kind, rows, objectives, queue), daemon=True)
    child.start()
    try:
        cell |= queue.get(timeout=timeout)
    except Empty:
        cell |= {"status": f"stopped after {timeout:g} s"}
        child.kill()
    child.join()
    if cell.get("seconds", timeout) > timeout / 10:
        slow.add(name)
    return cell


def _measure(name: str, kind: str, rows: int, objectives: int, queue: Any) -> None:
    points = KINDS[kind](rows, objectives)
    library = LIBRARIES[name][1]
    library(points[:2000].copy())
    ours, theirs = with_pareto(points), np.zeros(0, dtype=np.bool_)
    times: dict[str, list[float]] = {"library": [], "pareto": []}
    for _ in range(_REPEATS):
        start = time.perf_counter()
        theirs = library(points)
        middle = time.perf_counter()
        ours = with_pareto(points)
        times["library"].append(middle - start)
        times["pareto"].append(time.perf_counter() - middle)
        if sum(times["library"]) > 15.0:
            break
    seconds, own = min(times["library"]), min(times["pareto"])
    queue.put(
        {
            "seconds": seconds,
            "pareto_seconds": own,
            "ratio": seconds / own,
            "efficient": int(ours.sum()),
            "agree": bool((theirs == ours).all()),
        }
    )


def _print(cell: dict[str, Any]) -> None:
    start = f"{cell['objectives']:>10} {cell['rows']:>10,} {cell['kind']:<14} {cell['library']:<11}"
    if "seconds" not in cell:
        print(f"{start} {cell['status']}", flush=True)
        return
    differs = "" if cell["agree"] else "  DIFFERENT ANSWER"
    print(f"{start} {cell['seconds']:9.4f} {cell['pareto_seconds']:9.4f} {cell['ratio']:7.1f}{differs}", flush=True)


def _table(path: Path, pictures: Path | None) -> dict[str, Any]:
    """The frontier of one measured design space, printed, and drawn where asked."""
    import pandas as pd

    from pareto import frontier, hypervolume, plot, rank

    frame = pd.read_csv(path)
    layers = [column for column in frame.columns if column != "accuracy"]
    frame["mean_bits"] = frame[layers].mean(axis=1)
    sense = {"accuracy": "max", "mean_bits": "min"}
    front = frontier(frame, sense=sense, keep="first")
    fronts = int(rank(frame[list(sense)], sense=sense).max()) + 1
    volume = hypervolume(frame[list(sense)], reference={"accuracy": 0.0, "mean_bits": 8.0}, sense=sense)
    print(f"{path.stem}: {len(frame)} policies, {len(front)} on the frontier, {fronts} fronts, volume {volume:.1f}")
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
        figure = plot(frame, front, layers=layers, title=f"{path.stem}: measured accuracy")
        figure.savefig(pictures / f"{path.stem}.png")
        print(f"written: {pictures / path.stem}.png")
    points = front[list(sense)].to_numpy().tolist()
    return {"table": path.stem, "policies": len(frame), "fronts": fronts, "hypervolume": volume, "frontier": points}

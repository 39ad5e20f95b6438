"""Many training runs as one campaign: `waveq train` for every point of a grid, in processes or on a Ray cluster.

    SWEEP/grid-DIGEST.json    what was asked for; asking for more adds a file
    SWEEP/sweep.sqlite        results and failures, a row a point (see `pareto.Store`)
    SWEEP/runs/NAME-DIGEST/   the run folders

A point that is stored is never trained again. One that was cut off goes on from its checkpoint, for its run folder is
the one that `waveq train` would go on in; and a run folder that somebody else is in is waited for, then read.
"""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from waveq._files import write_json
from waveq._reading import read_object
from waveq.codesign.campaign import versions
from waveq.codesign.sweep_grid import Point, SweepGrid
from waveq.train.config import parse_config
from waveq.train.saying import say_nothing

__all__ = ["METRICS", "SweepStatus", "run_sweep", "sweep_status", "sweep_table"]

METRICS = (
    "accuracy",
    "test_accuracy",
    "float_accuracy",
    "mean_bits",
    "energy_pj",
    "cycles",
    "weight_bytes",
    "area_mm2",
)
"""Columns of results: accuracies in percent, "accuracy" and "float_accuracy" on the validation images."""
STORE = "sweep.sqlite"
_DIGITS = 16  # bytes of the digest that name a point in the store
_POLL_SECONDS = 1.0
Rows = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class SweepStatus:
    """How far a sweep has come.

    Attributes:
        points: all that was asked for.
        done: whether each has results.
        reasons: why points failed, by their place among all.
        begun: runs that have a folder and no result: under way, or cut off.
        seconds_left: at the pace of the results so far; None where fewer than two are there, or none is missing.
    """

    points: Sequence[Point]
    done: npt.NDArray[np.bool_]
    reasons: dict[int, str]
    begun: int
    seconds_left: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        failed = [{"settings": dict(self.points[place].settings), "reason": why} for place, why in self.reasons.items()]
        counts = {"points": len(self.points), "done": int(self.done.sum()), "begun": self.begun}
        return {**counts, "failed": failed, "seconds_left": self.seconds_left}


def run_sweep(
    grid: SweepGrid,
    folder: Path,
    *,
    engine: str = "serial",
    retry_failed: bool = False,
    progress: bool = True,
    **engine_options: Any,
) -> SweepStatus:
    """Train and price what the folder has no results of; calling it again resumes, twice at once shares the work.

    Args:
        grid: what to train.
        folder: of the sweep, made when missing; other grids may be in it already. With Ray on several machines it must
            lie on a disk that all of them see.
        engine, engine_options: see `pareto.run_campaign`.
        retry_failed: train points that failed once more.
        progress: whether a bar with the time left is drawn on standard error.

    Returns:
        How far all that was ever asked for in this folder has come.

    Raises:
        ValueError: settings that no run can have; a store that is none.
        waveq.train.TrainingInterrupted: Ctrl-C; the same call goes on.
    """
    from pareto import run_campaign
    from waveq.train.given import require_named

    points = grid.points()
    for point in points:
        require_named(point.config)
    if (folder / "config.json").exists():
        raise ValueError(f"{folder} is the folder of one run; take another one for a sweep")
    folder.mkdir(parents=True, exist_ok=True)
    _note(grid, folder, points)
    trials = Trials(points, folder)
    with _open_store(folder) as store, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".* failed and no\s+result")  # the status lists them by settings
        run_campaign(
            _keys(points),
            trials,
            store,
            engine=engine,
            unit_rows=1,
            retry_failed=retry_failed,
            progress=progress,
            unit_name="runs",
            **engine_options,
        )
    return sweep_status(folder)


class Trials:
    """Rows of the store -> their METRICS: trains and prices in the process that it is called in."""

    def __init__(self, points: Sequence[Point], folder: Path) -> None:
        self._points = {row.tobytes(): point for row, point in zip(_keys(points), points, strict=True)}
        self._folder = folder.absolute()
        self._started_in = os.getcwd()
        self._owner = os.getpid()

    def __call__(self, rows: Rows) -> npt.NDArray[np.float64]:
        """(n, digits) uint8 -> (n, M)."""
        if os.getpid() != self._owner:
            os.chdir(self._started_in)  # paths of settings are relative to it
        return np.array([self._measured(self._points[row.tobytes()]) for row in rows])

    def _measured(self, point: Point) -> list[float]:
        from waveq.codesign.pipeline import weigh_by_cost
        from waveq.codesign.score import score_run
        from waveq.train.trained_run import TrainedRun

        path = self._folder / "runs" / point.run_name
        told = point.config.model_dump(exclude_none=True) | {"run_dir": path, "progress": False}
        self._train(weigh_by_cost(parse_config(told), point.machine, point.objective))
        run = TrainedRun(path)
        cost = score_run(run, point.machine).score
        found = {
            "accuracy": 100 * run.result["validation_accuracy"],
            "test_accuracy": 100 * run.result["test_accuracy"],
            "float_accuracy": 100 * run.result["float_validation_accuracy"],
            "mean_bits": run.result["mean_bits"],
            **{name: cost[name] for name in ("energy_pj", "cycles", "weight_bytes")},
            "area_mm2": _area_mm2(point),
        }
        return [float(found[name]) for name in METRICS]

    def _train(self, config: Any) -> None:
        """The run, which somebody else may be training: then it is waited for."""
        from waveq.train.lock import FolderInUseError
        from waveq.train.run import TrainingInterrupted, train

        while True:
            try:
                train(config, say=say_nothing)
                return
            except FolderInUseError:
                time.sleep(_POLL_SECONDS)
            except TrainingInterrupted:
                if os.getpid() == self._owner:
                    raise
                os._exit(1)  # a worker that was told to end: its checkpoint is written, the engine does the rest


def _area_mm2(point: Point) -> float:
    from stripes_sim.energy import area_mm2

    return float(area_mm2(point.machine)["total"])


def _keys(points: Sequence[Point]) -> Rows:
    """The store keeps rows of 1..32: so many digits of the points' digests."""
    digests = [bytes.fromhex(point.digest)[:_DIGITS] for point in points]
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(len(points), _DIGITS) % 32 + 1


def _open_store(folder: Path) -> Any:
    from pareto import Store

    columns = [f"digit {place}" for place in range(_DIGITS)]
    asked = {"results of": "training runs", "known by": "a digest of their settings and machine"}
    return Store(folder / STORE, layers=columns, fingerprint=asked, metrics=METRICS, versions=versions())


def _note(grid: SweepGrid, folder: Path, points: Sequence[Point]) -> None:
    """Keep what was asked for; a file for each grid, so that two who ask at once do not wait for each other."""
    name = hashlib.sha256("".join(point.digest for point in points).encode()).hexdigest()[:12]
    write_json(folder / f"grid-{name}.json", grid.to_dict(), default=str)


def _noted_points(folder: Path) -> list[Point]:
    found: dict[str, Point] = {}
    for path in sorted(folder.glob("grid-*.json"), key=lambda path: (path.stat().st_mtime, path.name)):
        told = read_object(path)
        grid = SweepGrid(
            base=told["base"],
            axes=told["axes"],
            hardware=told["hardware"],
            sources=dict.fromkeys(told["base"], str(path)),
        )
        for point in grid.points():
            found.setdefault(point.digest, point)
    if not found:
        raise ValueError(f"{folder} holds no sweep; make one with waveq sweep")
    return list(found.values())


def sweep_status(folder: Path) -> SweepStatus:
    """How far everything has come that was asked for in this folder; reads only.

    Raises:
        ValueError: no sweep is in the folder.
    """
    from pareto import Store

    points = _noted_points(folder)
    rows = _keys(points)
    if not (folder / STORE).exists():  # stopped before the first point
        return SweepStatus(
            points=points, done=np.zeros(len(points), dtype=bool), reasons={}, begun=0, seconds_left=None
        )
    with Store.read(folder / STORE) as store:
        done, failures = store.known(rows), store.failures()
    reasons = {tuple(row[:-1]): row[-1] for row in failures.itertuples(index=False, name=None)}
    failed = {n: reasons[tuple(row)] for n, row in enumerate(rows.tolist()) if tuple(row) in reasons}
    runs = {point.run_name for n, point in enumerate(points) if n not in failed}
    begun = [name for name in runs if (folder / "runs" / name / "config.json").exists()]
    ended = [path for name in begun if (path := folder / "runs" / name / "result.json").exists()]
    waiting = len(points) - int(done.sum()) - len(failed)
    return SweepStatus(
        points=points,
        done=done,
        reasons=failed,
        begun=len(begun) - len(ended),
        seconds_left=_seconds_left([path.stat().st_mtime for path in ended], waiting),
    )


def _seconds_left(ends: Sequence[float], waiting: int) -> float | None:
    if len(ends) < 2 or not waiting:
        return None
    return waiting * (max(ends) - min(ends)) / (len(ends) - 1)


def sweep_table(folder: Path) -> pd.DataFrame:
    """A row for each point with results: its settings, METRICS, and its run folder.

    Raises:
        ValueError: no sweep is in the folder.
    """
    from pareto import Store

    points = _noted_points(folder)
    axes = list(dict.fromkeys(axis for point in points for axis in point.settings))
    with Store.read(folder / STORE) as store:
        frame = store.frame()
        values = {
            tuple(row): measured
            for row, measured in zip(
                frame[list(store.layers)].to_numpy().tolist(), frame[list(METRICS)].to_numpy().tolist(), strict=True
            )
        }
    rows = [
        [*(point.settings.get(axis) for axis in axes), *values[key], str(folder / "runs" / point.run_name)]
        for point, key in zip(points, map(tuple, _keys(points).tolist()), strict=True)
        if key in values
    ]
    return pd.DataFrame(rows, columns=[*axes, *METRICS, "run"])

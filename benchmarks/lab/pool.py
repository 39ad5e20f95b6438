"""Jobs done by several processes, each result written as it comes: an interrupted experiment goes on."""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.lab.job import Job, Where
from benchmarks.lab.options import device, whole
from benchmarks.lab.search import needs_losses
from benchmarks.lab.settings import BUDGETS
from benchmarks.lab.training import float_network, losses_of, run_job
from benchmarks.lab.watch import Watch
from waveq.train.lifeline import end_with_spawner

__all__ = ["add_options", "run_jobs", "run_within", "where_of"]


def add_options(parser: argparse.ArgumentParser, *, seeds: Sequence[int] = (0, 1, 2)) -> None:
    """The options that every experiment has."""
    parser.add_argument("--seeds", type=whole(0), nargs="+", default=list(seeds))
    parser.add_argument("--budget", choices=BUDGETS, default="quick", help="see benchmarks/lab/settings.py")
    parser.add_argument("--dataset", default="fashion-mnist", help="any of `waveq data`")
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--device", type=device, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--bf16", action="store_true", help="train under autocast in bfloat16")
    parser.add_argument(
        "--processes", type=whole(0), default=os.cpu_count(), help="jobs at a time, one thread each; 0: here"
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/lab"), help="results by job; finished ones are read")
    parser.add_argument("--out", type=Path, default=Path("runs/experiments"), help="tables, pictures, CSV, JSON")


def where_of(args: argparse.Namespace) -> Where:
    """Device and folders from the options."""
    folder = args.folder / (f"{args.device}-bf16" if args.bf16 else args.device)
    return Where(folder=folder, device=args.device, bf16=args.bf16, data_dir=args.data_dir)


def run_jobs(
    jobs: Sequence[Job], where: Where, *, processes: int = 1, watch: Watch | None = None
) -> list[dict[str, Any]]:
    """The results of all jobs, in their order; those that the folder holds are not done again.

    What starts from a float network waits for it. One job that fails stops the experiment with its error, after the
    results of all finished ones have been written.

    Args:
        jobs: what to do; a job that is given twice is done once.
        where: device and folder.
        processes: jobs at a time; 0 does them in this process, for tests and debuggers.
        watch: sees every training step by step, a copy for each job; what it has ``seen`` is in the result.
    """
    in_order = sorted(jobs, key=lambda job: job.setting.network)  # a process keeps the images of two settings
    results = run_within(in_order, where, processes=processes, watch=watch)
    return [results[job.key()] for job in jobs]


def run_within(
    jobs: Sequence[Job],
    where: Where,
    *,
    processes: int = 1,
    minutes: float | None = None,
    watch: Watch | None = None,
) -> dict[str, dict[str, Any]]:
    """Results by the job's key, the first jobs first; after ``minutes`` no further one is begun.

    With a limit of time a job that fails is told on standard error and the others go on, as do those that waited for
    it: what is finished by then is all that there will be. Without one its error ends the experiment.
    """
    end = None if minutes is None else time.monotonic() + 60 * minutes
    distinct = {job.key(): job for job in jobs}
    tasks = _tasks([job for job in distinct.values() if not _path(where, job, watch).exists()])
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress,
        _executor(processes) as pool,
    ):
        bar = progress.add_task("trainings", total=len(tasks))
        running: dict[Future[Any], str] = {}
        try:
            while tasks or running:
                late = end is not None and time.monotonic() > end
                while not late and len(running) < max(1, processes) and (name := _ready(tasks, running)):
                    running[pool.submit(_do, tasks.pop(name), where, watch)] = name
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    name = running.pop(future)
                    if end is None or future.exception() is None:
                        future.result()
                    else:
                        progress.console.print(f"{name}: {future.exception()!r}", markup=False)
                    progress.advance(bar)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    paths = {key: _path(where, job, watch) for key, job in distinct.items()}
    return {key: json.loads(path.read_text())["result"] for key, path in paths.items() if path.exists()}


class _Task(NamedTuple):
    """Something to do for a job, and the names of what must be done before."""

    what: Literal["float", "losses", "train"]
    job: Job
    needs: tuple[str, ...] = ()


def _tasks(missing: Sequence[Job]) -> dict[str, _Task]:
    """Trainings in their order, each after what it shares with others: the float network, the measured losses."""
    tasks: dict[str, _Task] = {}
    for job in missing:
        needs: tuple[str, ...] = ()
        if not job.scratch:
            start = Job(setting=job.setting, seed=job.seed).key()
            needs = (f"float {start}",)
            tasks.setdefault(needs[0], _Task("float", job))
            if needs_losses(job.allocation):
                tasks.setdefault(f"losses {start}", _Task("losses", job, needs))
                needs = (f"losses {start}",)
        tasks[job.key()] = _Task("train", job, needs)
    return tasks


def _ready(tasks: Mapping[str, _Task], running: Mapping[Future[Any], str]) -> str | None:
    """The first task that waits for nothing."""
    open_ones = {*tasks, *running.values()}
    return next((name for name, task in tasks.items() if open_ones.isdisjoint(task.needs)), None)


def _do(task: _Task, where: Where, watch: Watch | None) -> None:
    """In a process of the pool."""
    if task.what == "float":
        float_network(task.job.setting, task.job.seed, where)
    elif task.what == "losses":
        losses_of(task.job.setting, task.job.seed, where)
    else:
        _finish(task.job, where, watch)


class _Here(Executor):
    """Does each task as it is handed in."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """A future that is done."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def _executor(processes: int) -> Executor:
    if processes == 0:
        return _Here()
    context = multiprocessing.get_context("spawn")  # CUDA and OpenMP do not survive a fork
    return ProcessPoolExecutor(processes, context, initializer=_begin)


def _begin() -> None:
    end_with_spawner()
    torch.set_num_threads(1)


def _path(where: Where, job: Job, watch: Watch | None) -> Path:
    return where.folder / (f"{job.key()}.json" if watch is None else f"{job.key()}-{watch.name}.json")


def _finish(job: Job, where: Where, watch: Watch | None) -> None:
    own = copy.deepcopy(watch)  # in this process the next job must find it unused
    result = run_job(job, where, own)
    if own is not None:
        result["seen"] = own.seen()
    path = _path(where, job, watch)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.{time.time_ns()}")
    partial.write_text(json.dumps({"job": asdict(replace(job, attach=dict(job.attach))), "result": result}, indent=1))
    partial.rename(path)

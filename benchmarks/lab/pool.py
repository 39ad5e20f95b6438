"""Jobs done by several processes, each result written as it comes: an interrupted experiment goes on."""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.lab.job import Job, Where
from benchmarks.lab.settings import BUDGETS
from benchmarks.lab.training import float_network, run_job
from benchmarks.lab.watch import Watch

__all__ = ["add_options", "run_jobs", "where_of"]


def add_options(parser: argparse.ArgumentParser, *, seeds: Sequence[int] = (0, 1, 2)) -> None:
    """The options that every experiment has."""
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    parser.add_argument("--budget", choices=BUDGETS, default="quick", help="see benchmarks/lab/settings.py")
    parser.add_argument("--dataset", default="fashion-mnist", help="any of `waveq data`")
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--bf16", action="store_true", help="train under autocast in bfloat16")
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count(), help="jobs at a time, one thread each; 0: here"
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

    First the float networks, then what starts from them. One job that fails stops the experiment with its error, after
    the results of all finished ones have been written.

    Args:
        jobs: what to do; a job that is given twice is done once.
        where: device and folder.
        processes: jobs at a time; 0 does them in this process, for tests and debuggers.
        watch: sees every training step by step, a copy for each job; what it has ``seen`` is in the result.
    """
    distinct = {job.key(): job for job in jobs}
    missing = [job for job in distinct.values() if not _path(where, job, watch).exists()]
    starts = {(job.setting, job.seed): job for job in missing if not job.scratch}
    missing.sort(key=lambda job: job.setting.network)  # a process keeps the images of two settings
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress,
        _executor(processes) as pool,
    ):
        for title, futures in (
            ("float networks", [pool.submit(_start, job, where) for job in starts.values()]),
            ("trainings", [pool.submit(_finish, job, where, watch) for job in missing]),
        ):
            bar = progress.add_task(title, total=len(futures))
            try:
                for future in as_completed(futures):
                    future.result()
                    progress.advance(bar)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return [json.loads(_path(where, job, watch).read_text())["result"] for job in jobs]


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
    return ProcessPoolExecutor(processes, context, initializer=torch.set_num_threads, initargs=(1,))


def _path(where: Where, job: Job, watch: Watch | None) -> Path:
    return where.folder / (f"{job.key()}.json" if watch is None else f"{job.key()}-{watch.name}.json")


def _start(job: Job, where: Where) -> None:
    float_network(job.setting, job.seed, where)


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

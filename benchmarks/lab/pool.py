"""Jobs done by several processes, each result written as it comes: an interrupted experiment goes on."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.lab.job import Job, Where, float_network, run_job

__all__ = ["add_options", "run_jobs", "where_of"]


def add_options(parser: argparse.ArgumentParser, *, seeds: Sequence[int] = (0, 1, 2)) -> None:
    """The options that every experiment has."""
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    parser.add_argument("--budget", choices=("quick", "full"), default="quick", help="see benchmarks/lab/settings.py")
    parser.add_argument("--dataset", default="fashion-mnist", help="any of `waveq data`")
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--bf16", action="store_true", help="train under autocast in bfloat16")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="jobs at a time, one thread each")
    parser.add_argument("--folder", type=Path, default=Path("runs/lab"), help="results by job; finished ones are read")
    parser.add_argument("--out", type=Path, default=Path("runs/experiments"), help="tables, pictures, CSV, JSON")


def where_of(args: argparse.Namespace) -> Where:
    """Device and folders from the options."""
    folder = args.folder / (f"{args.device}-bf16" if args.bf16 else args.device)
    return Where(folder=folder, device=args.device, bf16=args.bf16, data_dir=args.data_dir)


def run_jobs(jobs: Sequence[Job], where: Where, *, processes: int = 1) -> list[dict[str, Any]]:
    """The results of all jobs, in their order; those that the folder holds are not done again.

    First the float networks, then what starts from them. One job that fails stops the experiment with its error, after
    the results of all finished ones have been written.
    """
    distinct = {job.key(): job for job in jobs}
    missing = [job for key, job in distinct.items() if not _path(where, key).exists()]
    starts = {(job.setting, job.seed): job for job in missing if not job.scratch}
    missing.sort(key=lambda job: job.setting.network)  # a process keeps the images of two settings
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    context = multiprocessing.get_context("spawn")  # CUDA and OpenMP do not survive a fork
    with (
        Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress,
        ProcessPoolExecutor(max(1, processes), context, initializer=torch.set_num_threads, initargs=(1,)) as pool,
    ):
        for title, futures in (
            ("float networks", [pool.submit(_start, job, where) for job in starts.values()]),
            ("trainings", [pool.submit(_finish, job, where) for job in missing]),
        ):
            bar = progress.add_task(title, total=len(futures))
            try:
                for future in as_completed(futures):
                    future.result()
                    progress.advance(bar)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return [json.loads(_path(where, job.key()).read_text())["result"] for job in jobs]


def _path(where: Where, key: str) -> Path:
    return where.folder / f"{key}.json"


def _start(job: Job, where: Where) -> None:
    float_network(job.setting, job.seed, where)


def _finish(job: Job, where: Where) -> None:
    result = run_job(job, where)
    path = _path(where, job.key())
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.{time.time_ns()}")
    partial.write_text(json.dumps({"job": asdict(replace(job, attach=dict(job.attach))), "result": result}, indent=1))
    partial.rename(path)

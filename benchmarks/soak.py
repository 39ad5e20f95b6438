"""Whether anything grows: thousands of training steps and hundreds of calls of the command line in one process.

    python -m benchmarks soak [--steps 3000] [--calls 400] [--minutes M] [--model resnet18] [--json OUT]

Steps are those of `waveq train` (Lightning, metrics, checkpoints, validation) on digits brought to 32 x 32 pixels, a
few images each: the weights of ResNet-18 are what costs. Each row is a tenth of the work: memory that the process
holds, open files, threads, Python's objects, and the median processor time. What the look at every loss costs is
measured beside a step. It ends with 1 where memory or open files grow from the second row to the last.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

import waveq
from benchmarks._report import write_json
from waveq.cli.app import main as command_line
from waveq.train.config import TrainConfig, parse_config
from waveq.train.divergence import StopsWhenDiverged, require_numbers
from waveq.train.materials import make_dataset, make_network
from waveq.train.run_folder import StageFolder
from waveq.train.stage import Stage, make_loader
from waveq.train.stopping import StopRequested

_GROWTH = 1.05  # of memory: the allocator's rounding stays below
_FILES = 2  # one that is open as the row is taken, one that a library opens once; a leak would leave one a row at least
_ROWS = 10


@dataclass(frozen=True)
class Row:
    """A tenth of the work, and how the process stands at its end."""

    done: int
    median_ms: float
    memory_mib: float
    files: int
    threads: int
    objects: int

    @classmethod
    def now(cls, done: int, milliseconds: Sequence[float]) -> Row:
        """As it stands; Linux only."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return cls(
            done=done,
            median_ms=statistics.median(milliseconds),
            memory_mib=pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
            files=len(os.listdir("/proc/self/fd")),
            threads=len(os.listdir("/proc/self/task")),
            objects=len(gc.get_objects()),
        )


@dataclass
class Sampler:
    """Called after each piece of work; true once the time is over."""

    pieces: int
    until: float
    rows: list[Row] = field(default_factory=list)
    done: int = 0
    _spent: list[float] = field(default_factory=list)
    _last: float = field(default_factory=time.process_time)

    def __call__(self) -> bool:
        """One piece is done."""
        self.done += 1
        now = time.process_time()
        self._spent.append(1e3 * (now - self._last))
        if self.done % max(1, self.pieces // _ROWS) == 0:
            self.rows.append(Row.now(self.done, self._spent))
            self._spent = []
        self._last = time.process_time()
        return time.monotonic() > self.until


def steps_soak(config: TrainConfig, steps: int, minutes: float) -> tuple[list[Row], dict[str, float]]:
    """Rows of the training, and what looking for NaN costs beside a step."""
    dataset = make_dataset(config)
    network = make_network(config, dataset)
    wq = waveq.attach(network, bits="learn", total_steps=steps)
    sampler = Sampler(steps, time.monotonic() + 60 * minutes)
    with tempfile.TemporaryDirectory() as name:
        stage = Stage(
            name="wave",
            folder=StageFolder(Path(name)),
            config=config,
            dataset=dataset,
            loader=make_loader(config, dataset, "wave"),
            total_steps=steps,
            rate=config.lr,
            stop=sampler,
        )
        with contextlib.suppress(StopRequested):
            stage.run(network, wq)
    return sampler.rows, looks(network, statistics.median(row.median_ms for row in sampler.rows))


def looks(network: nn.Module, step_ms: float) -> dict[str, float]:
    """The cost of one loss looked at, and of all weights, which is done before a checkpoint is written."""
    watch, trainer, loss = StopsWhenDiverged("wave", every=20), SimpleNamespace(global_step=0), torch.tensor(1.0)
    module: Any = network

    def look() -> None:
        watch.on_before_backward(trainer, module, loss)  # type: ignore[arg-type]

    return {
        "step_ms": step_ms,
        "loss_us": 1e6 * _fastest(look, 2000),
        "weights_ms": 1e3 * _fastest(lambda: require_numbers(network, stage="wave", step=1), 5),
    }


def _fastest(work: Callable[[], object], times: int) -> float:
    """Processor seconds a call, the best of five rounds."""
    rounds = []
    for _ in range(5):
        begun = time.process_time()
        for _ in range(times):
            work()
        rounds.append((time.process_time() - begun) / times)
    return min(rounds)


def calls_soak(calls: int, minutes: float) -> list[Row]:
    """Rows of the command line: verbs in turn, wrong words among them."""
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        short = ["--recipe", "digits", "--set", "pretrain_epochs=1", "--set", "epochs=2", "--set", "threads=1"]
        _call(["train", *short, "--run", "run", "--quiet"], 0)
        _call(["enumerate", "run", "--bits", "2,4", "--quiet"], 0)
        sampler = Sampler(calls, time.monotonic() + 60 * minutes)
        for number in range(calls):
            words, status = _words(number, short)
            _call(words, status)
            if sampler():
                break
    return sampler.rows


def _words(number: int, short: list[str]) -> tuple[list[str], int]:
    """The words of a call, and the exit status that it must have."""
    if number % 40 == 39:
        return ["train", *short, "--run", f"run{number}", "--quiet"], 0
    turns: list[tuple[list[str], int]] = [
        (["hardware"], 0),
        (["score", "run"], 0),
        (["score", "4", "--model", "resnet18"], 0),
        (["train", *short, "--run", "run", "--quiet"], 0),
        (["frontier", "run"], 0),
        (["enumerate", "run", "--bits", "2,4", "--quiet"], 0),
        (["data"], 0),
        (["score", "nowhere"], 2),
        (["export", "run", "--to", "npz"], 0),
        (["report", "run"], 0),
    ]
    return turns[number % len(turns)]


def _call(words: list[str], status: int) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as told:
        found = command_line(words)
    if found != status:
        raise ValueError(f"waveq {' '.join(words)} ended with {found}, not {status}: {told.getvalue()[-500:]}")


def grows(rows: Sequence[Row]) -> list[str]:
    """What is larger in the last row than in the second: the first one still makes room for what stays."""
    if len(rows) < 3:
        return []
    first, last = rows[1], rows[-1]
    found = [] if last.memory_mib <= _GROWTH * first.memory_mib else ["memory"]
    return found + (["open files"] if last.files > first.files + _FILES else [])


def _print(what: str, rows: Sequence[Row]) -> None:
    print(f"| {what} | median ms | memory MiB | open files | threads | objects |\n|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        print(
            f"| {row.done:,} | {row.median_ms:.1f} | {row.memory_mib:,.0f} | {row.files} | {row.threads} "
            f"| {row.objects:,} |"
        )
    print(f"\ngrows: {', '.join(grows(rows)) or 'nothing'}\n", flush=True)


def main(argv: list[str]) -> int:
    """Print both tables; 1 where something grows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks soak", description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3000, help="optimizer steps; 0: none")
    parser.add_argument("--calls", type=int, default=400, help="calls of the command line; 0: none")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="for each of the two at most")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    if not sys.platform.startswith("linux"):
        raise ValueError("memory and open files are read in /proc, which Linux alone has")
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    growing: list[str] = []
    if options.calls:
        rows = calls_soak(options.calls, options.minutes)
        _print("calls", rows)
        found["calls"], growing = [asdict(row) for row in rows], growing + grows(rows)
    if options.steps:
        data = {"model": options.model, "dataset": "digits", "input_size": 32, "batch_size": 4, "epochs": 1}
        config = parse_config({**data, "lr": 0.001, "threads": 1, "accelerator": "cpu", "progress": False})
        rows, cost = steps_soak(config, options.steps, options.minutes)
        _print("steps", rows)
        print(
            f"looking at a loss {cost['loss_us']:.2f} us, at all weights (before a checkpoint) "
            f"{cost['weights_ms']:.1f} ms, beside a step of {cost['step_ms']:.0f} ms"
        )
        found |= {"steps": [asdict(row) for row in rows], "looks": cost}
        growing += grows(rows)
    if options.json:
        write_json(options.json, found, "lightning")
    return int(bool(growing))

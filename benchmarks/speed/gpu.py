"""Everything that wants a GPU, in one call that ends in time: the same again goes on with what is not done.

    python -m benchmarks gpu --minutes 10 --out runs/gpu --data-dir data --init simplenet5.pth.tar
    python -m benchmarks gpu --minutes 4                       # what comes first, and what is left by then
    python -m benchmarks gpu --device cpu --rehearse           # the same script in tiny sizes, a minute or two

``--minutes`` is the whole run's. Parts come by priority, each in a process of its own with a limit, so that one that
fails or takes too long takes nothing from the others:

- alike: do the Triton kernels train like the plain form, method by method.
- step_NETWORK: an optimizer step in bfloat16, batch 256, beside plain float, Brevitas and torchao (a row says so where
  they are not installed); compiled_NETWORK: beside torch.compile of the plain form, which takes long to be ready.
- penalty, penalty_large: bytes per second of the penalty, from 10^5 to 10^8 weights, torch.compile beside.
- claim_..., default_grid_..., table2_simplenet5: ``full`` budgets that docs/experiments.md lacks, in pieces until the
  time is over. They want CIFAR10, Fashion-MNIST or ``--init``; what is not there is named and left out.

``OUT/gpu.json`` holds all parts with versions, machine, figures, what was not reached and why; ``OUT/*.txt`` what each
of them printed. At the end stand the tables, and the sentence that says which of Triton and torch.compile to keep.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks._names import unknown
from benchmarks._report import processor
from benchmarks.lab.options import whole
from benchmarks.speed._gpu_parts import FULL, REHEARSAL, Part
from benchmarks.speed._gpu_record import Record
from benchmarks.speed._gpu_report import report
from benchmarks.speed._mps import side_by_side
from waveq.train.lifeline import end_with_spawner
from waveq.train.lock import alone_in
from waveq.zoo.datasets.data import data_status

__all__ = ["main", "run_part", "run_parts", "run_words"]

_UNDER_WAY = 60.0  # seconds in which an experiment ends what it has begun and writes its table
_SHOWN = 6000  # characters of what a part printed


@dataclass(frozen=True)
class Outcome:
    """How a part's process ended.

    Attributes:
        code: its exit code; None where the time was over.
        seconds: wall time.
    """

    code: int | None
    seconds: float


def run_words(words: Sequence[str], log: Path, seconds: float) -> Outcome:
    """``python -m benchmarks WORDS`` in a process of its own, its output in a file, ended when the time is over."""
    began = time.monotonic()
    process = multiprocessing.get_context("spawn").Process(target=_child, args=(list(words), str(log)))
    process.start()
    process.join(seconds)
    late = process.is_alive()
    if late:
        process.terminate()
        process.join(5)
        process.kill()  # nothing where it has ended
        process.join()
    return Outcome(None if late else process.exitcode, time.monotonic() - began)


def _child(words: list[str], log: str) -> None:
    end_with_spawner()
    with open(log, "w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, encoding="utf-8")  # type: ignore[union-attr]
    sys.argv = ["benchmarks", *words]  # what is written says by which command
    from benchmarks.__main__ import main as call

    sys.exit(call(words))


def run_part(part: Part, record: Record, options: argparse.Namespace, left: float) -> None:
    """Do one part within the seconds that are left; how it ended, and what it found, is in the record."""
    out, before = options.out, record.entries.get(part.name, {})
    words = [*part.words, "--device", options.device]
    if part.experiment:
        target = out / "tables" / f"{part.name}.json"
        limit, own = left, max(part.least, part.share * left)
        slack = 0.0 if options.rehearse else _UNDER_WAY
        words += ["--budget", "tiny" if options.rehearse else "full", "--processes", str(options.processes)]
        words += ["--folder", str(out / "lab"), "--out", str(out / "tables")]
        words += ["--minutes", f"{max(1.0, min(own, left) - slack) / 60:.3f}"]
        words += ["--data-dir", str(options.data_dir)] if options.data_dir else []
        words += ["--init", str(options.init)] if part.starts else []
    else:
        target, limit = out / f"{part.name}.json", min(part.limit or left, left)
        words += ["--json", str(target)]
    record.put(part.name, **{**before, "state": "begun", "why": ""})
    written = target.stat().st_mtime_ns if target.exists() else 0
    ended = run_words(words, out / f"{part.name}.txt", limit)
    fresh = target.exists() and target.stat().st_mtime_ns != written
    result = json.loads(target.read_text()) if fresh else before.get("result")
    state, why = _ending(part, ended, result if fresh else None, out / f"{part.name}.txt", limit)
    made = {"command": "python -m benchmarks " + " ".join(words), "machine": _machine(options.device)}
    made |= {} if result is None else {"result": result}
    record.put(part.name, state=state, why=why, seconds=ended.seconds, device=options.device, **made)


def _ending(part: Part, ended: Outcome, result: Any, log: Path, limit: float) -> tuple[str, str]:
    """The state of a part, and why it is not "done"."""
    if ended.code is None:
        return "stopped", f"after its {limit:.0f} s"
    if ended.code != 0:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        return "failed", f"exit code {ended.code}: {lines[-1][:200] if lines else 'it printed nothing'}"
    if result is None:
        return "failed", "it wrote no figures"
    if part.experiment:
        done, planned = len(result["rows"]["lines"]), result["planned"]
        return ("done", "") if done == planned else ("stopped", f"{done} of {planned} trainings are done")
    return "done", ""


def _missing(part: Part, options: argparse.Namespace) -> str:
    """What is not there that the part needs; empty where all is."""
    if part.starts and options.init is None:
        return "--init was not given: a file of float weights of SimpleNet-5 for CIFAR10"
    if not part.dataset:
        return ""
    (status,) = [each for each in data_status(options.data_dir) if each.name == part.dataset]
    looked = ", ".join(map(str, status.looked))
    return "" if status.available else f"{part.dataset} is not in {looked}"


def _machine(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else processor()


def run_parts(parts: Sequence[Part], record: Record, options: argparse.Namespace) -> None:
    """All that is not done, one after the other, until the time is over."""
    end = time.monotonic() + 60 * options.minutes
    with ExitStack() as shared:
        sharing = ""
        for part in parts:
            left = end - time.monotonic()
            if record.state(part.name) == "done":
                print(f"{part.name}: done before")
                continue
            if why := _missing(part, options):
                record.keep(part.name, "missing", why)
            elif left < part.least:
                record.keep(part.name, "not reached", f"{max(0.0, left):.0f} s left, {part.least:.0f} are the least")
            else:
                if part.experiment and options.device == "cuda" and options.processes > 1 and not sharing:
                    sharing = shared.enter_context(side_by_side())
                    print(sharing)
                run_part(part, record, options, end - time.monotonic())
                text = (options.out / f"{part.name}.txt").read_text(errors="replace")
                print(f"\n{part.name}\n{'-' * len(part.name)}\n{_without_bars(text)[-_SHOWN:]}")
            entry = record.entries[part.name]
            print(" ".join([f"{part.name}:", entry["state"], entry["why"]]).strip(), flush=True)


def _without_bars(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if "━" not in line)


def main(argv: list[str]) -> int:
    """Run the parts, print the tables; 1 if a part failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--minutes", type=float, default=10.0, help="of the whole run, all parts together")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder of the record, old or new")
    parser.add_argument("--only", nargs="+", metavar="PART", help="these alone: " + ", ".join(p.name for p in FULL))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes: does the script itself work")
    parser.add_argument("--data-dir", type=Path, default=None, help="where `waveq data` is to look")
    parser.add_argument("--init", type=Path, default=None, help="float weights of SimpleNet-5 for CIFAR10")
    parser.add_argument(
        "--processes", type=whole(0), default=None, help="trainings at a time; default: all cores but two; 0: no pool"
    )
    options = parser.parse_args(argv)
    parts = _chosen(options)
    with alone_in(options.out):
        record = Record(options.out / "gpu.json", device=options.device, rehearsed=options.rehearse)
        try:
            run_parts(parts, record, options)
        finally:
            print("\n" + report(record.entries), flush=True)
    return int(any(record.entries[part.name]["state"] == "failed" for part in parts))


def _chosen(options: argparse.Namespace) -> list[Part]:
    """The parts that are asked for; options that contradict each other are refused."""
    if not (math.isfinite(options.minutes) and options.minutes > 0):
        raise ValueError(f"--minutes {options.minutes:g}: give a number above 0")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch sees no CUDA device; --device cpu --rehearse tries the script itself")
    if options.device == "cpu" and not options.rehearse:
        raise ValueError("--device cpu: the sizes are made for a GPU; add --rehearse for tiny ones")
    if options.init is not None and not options.init.is_file():
        raise ValueError(f"--init {options.init}: there is no such file of weights")
    if options.processes is None:
        options.processes = 0 if options.rehearse else max(1, (os.cpu_count() or 1) - 2)
    known = {part.name: part for part in (REHEARSAL if options.rehearse else FULL)}
    for name in options.only or ():
        if name not in known:
            raise ValueError(f"--only {name!r}: no such part{unknown(name, known)}")
    return [part for name, part in known.items() if not options.only or name in options.only]

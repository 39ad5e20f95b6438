"""Runs that are killed at random moments and called again: ``python -m tests.kills --attempts 20 --seed 0``.

Each attempt starts work in a process of its own, kills it (SIGKILL) at a moment drawn from the time that it takes, up
to three times, lets it end, and compares all files that it leaves with those of a run that nobody touched. What
differs is a loss.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from waveq._archive import load_archive
from waveq.codesign.frames import read_frame
from waveq.codesign.protocol import Protocol, evaluation
from waveq.codesign.space import enumerate_run
from waveq.train.config import TrainConfig, load_recipe
from waveq.train.lock import LOCK_FILE, alone_in
from waveq.train.run import train
from waveq.train.run_folder import RunFolder
from waveq.train.trained_run import TrainedRun

COLUMNS = ("attempts", "kills", "same to the bit", "other numbers", "failed", "left behind")
_LONGEST = 300.0  # seconds for one start
_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Work:
    """Something that goes on where it stopped."""

    name: str
    prepare: Callable[[Path], object]
    """Makes the folder that the work begins with."""
    do: Callable[[Path], object]
    """The work, in the folder, from wherever it stands."""
    left: Callable[[Path], dict[str, str]]
    """What is compared."""


def works(finished: Path) -> list[Work]:
    """All that are killed.

    Args:
        finished: a finished run, for enumeration and search.
    """

    def begin(folder: Path) -> None:
        _copy(finished, folder)

    enumeration, search = ("enumerate", "--bits", "2,3,4,8"), ("search", "--bits", "2,3,4,8", "--evaluations", "60")
    two = ("--engine", "processes", "--workers", "2")
    return [
        Work("training", lambda _folder: None, lambda folder: _train(folder), contents),
        Work("training, two ranks", lambda _folder: None, lambda folder: _train(folder, devices=2), contents),
        Work("enumeration", begin, _enumerate, contents),
        Work("waveq enumerate", begin, _command(*enumeration), contents),
        Work("waveq search", begin, _command(*search), contents),
        Work("waveq enumerate, two processes", begin, _command(*enumeration, *two), contents),
        Work("waveq search, two processes", begin, _command(*search, *two), found_by_search),
    ]


def _config(folder: Path, **changes: object) -> TrainConfig:
    short = {"pretrain_epochs": 2, "epochs": 3, "batch_size": 64, "threads": 1, "accelerator": "cpu"}
    fast = {"checkpoint_seconds": 0.2, "log_every": 5, "progress": False}
    return load_recipe("digits", run_dir=folder, **{**short, **fast, **changes})


def _train(folder: Path, **changes: object) -> None:
    train(_config(folder, **changes), say=lambda _line: None)


def _enumerate(folder: Path) -> None:
    from stripes_sim import load_hardware

    with alone_in(folder):
        enumerate_run(TrainedRun(folder), load_hardware("stripes"), choices=(2, 3, 4, 5, 8), progress=False)


def _command(verb: str, *words: str) -> Callable[[Path], None]:
    """A verb on a run folder, as the command line has it, and what follows it."""

    def do(folder: Path) -> None:
        from waveq.cli.app import main

        if main([verb, str(folder), *words, "--quiet"]) != 0:
            raise RuntimeError(f"waveq {verb} failed")

    return do


def _copy(finished: Path, folder: Path) -> None:
    shutil.copytree(finished, folder)


@contextmanager
def _begun(work: Work, folder: Path, *, quiet: bool = False) -> Iterator[int]:
    """The work in a process of its own, which is forked: torch is imported once."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
            os.setsid()
            silence = os.open(os.devnull, os.O_WRONLY)
            for stream in (1, 2) if quiet else (1,):  # the ranks' words too
                os.dup2(silence, stream)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            work.do(folder)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    try:
        yield child
    finally:
        if _status(child, seconds=0.0) is None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _end_with(parent: int) -> None:
    """A kill suite that is killed itself leaves nothing running."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _status(child: int, *, seconds: float) -> int | None:
    """How it ended, or None where it is still there after so long."""
    end = time.monotonic() + seconds
    while True:
        try:
            found, status = os.waitpid(child, os.WNOHANG)
        except ChildProcessError:
            return 0  # it was waited for before
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= end:
            return None
        time.sleep(0.01)


def contents(folder: Path) -> dict[str, str]:
    """What a run's files say, by name: tensors and rows, without times of the clock and names of folders."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name in (LOCK_FILE, "config.json", "report.md") or "tfevents" in path.name or path.is_dir():
            continue
        if path.suffix == ".sqlite":
            continue  # holds the time of each result; policies.csv is what comes of it
        if path.suffix in (".pt", ".ckpt"):
            tensors = load_archive(path)
            text = "".join(f"{key} {tensors[key].dtype} {tensors[key].numpy().tobytes().hex()}\n" for key in tensors)
            found[name] = hashlib.sha256(text.encode()).hexdigest()
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def found_by_search(folder: Path) -> dict[str, str]:
    """How many policies a search has, and how many of their accuracies are not those of an evaluation here and now.

    With two workers the order in which they end decides which policies are measured.
    """
    run = TrainedRun(folder)
    evaluate = evaluation(run, Protocol())
    frame = read_frame(folder / "search.csv")
    right = 100.0 * evaluate.correct(frame[list(evaluate.names)].to_numpy("uint8")).mean(axis=1)
    drafts = {path.name: "draft" for path in folder.rglob(".*") if path.name != LOCK_FILE}
    return {"policies": str(len(frame)), "wrong": str(int((frame["accuracy"] != right).sum())), **drafts}


def _attempt(work: Work, folder: Path, expected: dict[str, str], seconds: float, draw: random.Random) -> Counter[str]:
    """Up to three kills, and what came of them."""
    counts = Counter(attempts=1)
    work.prepare(folder)
    for _ in range(draw.randint(1, 3)):
        with _begun(work, folder, quiet=True) as child:
            if _status(child, seconds=draw.uniform(0.0, seconds)) is None:
                os.kill(_victim(child, draw), signal.SIGKILL)
                counts["kills"] += 1
                _status(child, seconds=30)
            else:
                break  # it had ended
    _wait_until_free(folder)
    with _begun(work, folder) as child:
        status = _status(child, seconds=_LONGEST)
    found = work.left(folder) if status == 0 else {}
    drafts = [name for name in found if Path(name).name.startswith(".") or "draft" in name]
    counts["left behind"] += bool(drafts)
    kept = {name: digest for name, digest in found.items() if name not in drafts}
    counts["failed" if status != 0 else "same to the bit" if kept == expected else "other numbers"] += 1
    if status != 0 or kept != expected:
        told = {name for name in kept.keys() | expected.keys() if kept.get(name) != expected.get(name)}
        sys.stderr.write(f"{work.name}: exit status {status}; other files: {', '.join(sorted(told)) or 'none'}\n")
    return counts


def _victim(child: int, draw: random.Random) -> int:
    """The process, or one of those that it has started."""
    listed = Path(f"/proc/{child}/task/{child}/children")
    others = [int(pid) for pid in listed.read_text().split()] if listed.exists() else []
    return draw.choice([child, *others])


def _wait_until_free(folder: Path) -> None:
    """The ranks of a launcher that was killed end within moments."""
    end = time.monotonic() + 20
    while folder.exists():
        try:
            with alone_in(folder):
                return
        except ValueError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def kill(chosen: list[str], attempts: int, *, seed: int, at_most: float = float("inf")) -> dict[str, Counter[str]]:
    """Counts by work, after so many attempts on each, or so many seconds in all."""
    draw, end = random.Random(seed), time.monotonic() + at_most
    counts: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        finished = place / "finished"
        with _begun(Work("", lambda _folder: None, _train, contents), finished) as child:
            if _status(child, seconds=_LONGEST) != 0:
                raise RuntimeError("the run that others are compared with failed")
        for work in works(finished):
            if work.name not in chosen:
                continue
            whole, counts[work.name] = place / f"whole {work.name}", Counter()
            work.prepare(whole)
            begun = time.monotonic()
            with _begun(work, whole) as child:
                if _status(child, seconds=_LONGEST) != 0:
                    raise RuntimeError(f"{work.name} failed where nobody touched it")
            seconds, expected = time.monotonic() - begun, work.left(whole)
            for number in range(attempts):
                if time.monotonic() > end:
                    break
                folder = place / f"{number} {work.name}"
                found = _attempt(work, folder, expected, seconds, draw)
                counts[work.name] += found
                seconds *= 1.0 if found["kills"] else 0.7  # the first time had more to load
                shutil.rmtree(folder)
    return counts


def threads_compared(seed: int) -> tuple[bool, float]:
    """A run that one thread began and two ended beside one of one thread: equal bits, largest difference of weights."""
    import torch

    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name, str(threads)) for threads in (1, 2)]
        begun = time.monotonic()
        _do(lambda folder: _train(folder), folders[0])
        seconds = time.monotonic() - begun
        while True:
            with _begun(Work("", lambda _folder: None, _train, contents), folders[1]) as child:
                if _status(child, seconds=draw.uniform(0.3, 0.9) * seconds) is None:
                    break  # killed on the way out
            shutil.rmtree(folders[1])
        _do(lambda folder: _train(folder, threads=2), folders[1])
        results = [RunFolder(folder).result() or {} for folder in folders]
        one, two = (load_archive(folder / "wave" / "weights.pt") for folder in folders)
        largest = max(float((one[key].double() - two[key].double()).abs().max()) for key in one if one[key].numel())
        assert torch.get_num_threads() == 1
        return results[0]["bits"] == results[1]["bits"], largest


def _do(work: Callable[[Path], object], folder: Path) -> None:
    with _begun(Work("", lambda _folder: None, work, contents), folder) as child:
        if _status(child, seconds=_LONGEST) != 0:
            raise RuntimeError("the run failed")


def main() -> int:
    """Kill, print the counts, 1 where anything was lost."""
    names = [work.name for work in works(Path())]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attempts", type=int, default=20, help="on each kind of work")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no attempt begins after so long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=names, nargs="+", default=names)
    options = parser.parse_args()
    counts = kill(options.only, options.attempts, seed=options.seed, at_most=options.seconds)
    total = sum(counts.values(), Counter[str]())
    lines = ["| work | " + " | ".join(COLUMNS) + " |", "|---" + "|---:" * len(COLUMNS) + "|"]
    for name, found in [*counts.items(), ("all", total)]:
        lines.append(f"| {name} | " + " | ".join(f"{found[column]:,}" for column in COLUMNS) + " |")
    same, largest = threads_compared(options.seed)
    lines.append(
        f"\nbegun with one thread, killed, ended with two: {'the same' if same else 'other'} bits, "
        f"weights off by at most {largest:.1g}"
    )
    sys.stdout.write("\n".join(lines) + "\n")
    return int(any(total[column] for column in COLUMNS[3:]))


if __name__ == "__main__":
    sys.exit(main())

"""Every experiment on accuracy, cut into pieces and done in the order of what the page rests on, with a plan first.

A piece is one experiment with one seed more, a few minutes of two cores; the table of an experiment is written anew
after each of its pieces, with the seeds so far. No piece is begun that is not expected to end within ``--minutes`` (120
with ``--budget quick``); the same command goes on from there, and of a piece that was interrupted the finished
trainings are read. Trainings that several experiments need are done once.

What is given here goes to all of them (``--budget``, ``--seeds``, ``--device``, ``--networks``, ...) and wins over what
they are told by themselves. ``--again`` makes all pictures and tables anew from what is finished.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.lab.options import number
from benchmarks.lab.pool import add_options

__all__ = ["BY_THEMSELVES", "EXPERIMENTS", "Experiment", "Piece", "main", "pieces_of"]


@dataclass(frozen=True)
class Experiment:
    """How one is run.

    Attributes:
        module: its file in this folder.
        core_minutes: of one seed, quick, on an idle core: trainings x steps x measured milliseconds of a step, and the
            accuracies; what an experiment before it has trained is not counted again.
        own: what it is told beside the options given here.
    """

    module: str
    core_minutes: float
    own: str = ""


# fewer limits and draws than its own defaults, with which both objectives would take 26 core minutes a seed
_CLAIM = "--networks depthwise --datasets fashion-mnist --draws 3"
EXPERIMENTS: dict[str, Experiment] = {
    "claim_quick_macs": Experiment(
        "claim", 9.0, f"{_CLAIM} --objectives macs --limits 0.8 0.95 --name claim_quick_macs"
    ),
    "claim_quick_bitops": Experiment(
        "claim", 7.5, f"{_CLAIM} --objectives bitops --limits 0.65 --name claim_quick_bitops"
    ),
    "table2": Experiment("table2", 14.5),
    "float_road": Experiment("float_road", 3.0),
    "table1": Experiment("table1", 7.0),
    "figure4": Experiment("figure4", 17.5),
    "hardware": Experiment("hardware", 2.5),
    "figure5": Experiment("figure5", 2.0),
    "table6": Experiment("table6", 1.5),
    "figure6": Experiment("figure6", 0.5),
    "figure7": Experiment("figure7", 0.6),
    "figure8": Experiment("figure8", 1.0),
    "table2_depthwise": Experiment(
        "table2", 2.0, "--name table2_depthwise --networks mobilenet_v2 --bases LSQ --bits 2 3"
    ),
    "defaults": Experiment("defaults", 4.0),
}

BY_THEMSELVES = ("dampening", "default_grid", "table2_simplenet5")
"""Not among them: they want CIFAR10 or a file of float weights, which few have at hand, or more than the two hours."""

_MINUTES = 120.0  # --budget quick, all seeds
_CORES = 2


@dataclass(frozen=True)
class Piece:
    """An experiment with its first seeds; the last of them is what there is to do.

    Attributes:
        name: of the experiment.
        seeds: the ones so far.
        options: what its ``main`` is told of what is to be done; where it is done is not the piece's.
        minutes: expected on this many processes; None where nobody has measured.
    """

    name: str
    seeds: tuple[int, ...]
    options: tuple[str, ...]
    minutes: float | None

    def key(self) -> str:
        """Under which its minutes are kept: other options, other piece."""
        return " ".join((self.name, *self.options))


def pieces_of(args: argparse.Namespace, more: Sequence[str] = ()) -> list[Piece]:
    """All pieces, the most wanted experiment first.

    Args:
        args: the options of all experiments, and ``only``.
        more: options that only some experiments know.
    """
    common = ["--budget", args.budget]
    common += ["--dataset", args.dataset] if args.dataset != "fashion-mnist" else []
    common += ["--bf16"] if args.bf16 else []
    cores = max(1, min(args.processes, _CORES))
    listed = []
    for name in args.only:
        each = EXPERIMENTS[name]
        minutes = each.core_minutes / cores if args.budget == "quick" else None
        for count in range(1, len(args.seeds) + 1):
            seeds = tuple(args.seeds[:count])
            options = (*each.own.split(), *common, *more, "--seeds", *map(str, seeds))
            listed.append(Piece(name, seeds, options, minutes))
    return listed


def main(argv: list[str]) -> int:
    """Print the plan, then run its pieces; stops at the first that fails, with its error."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks experiments", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--only", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS))
    parser.add_argument("--minutes", type=number(), default=None, help="in all; default: 120 (quick), no end (others)")
    parser.add_argument("--plan", action="store_true", help="print the plan and do nothing")
    parser.add_argument("--again", action="store_true", help="pieces that are done too: makes tables and pictures")
    add_options(parser)
    args, unknown = parser.parse_known_args(argv)  # what only some experiments know is theirs to refuse
    if args.minutes is None and args.budget == "quick":
        args.minutes = _MINUTES
    record = args.out / "minutes.json"
    taken: dict[str, float] = json.loads(record.read_text()) if record.exists() and not args.again else {}
    pieces = pieces_of(args, unknown)
    print(_plan(pieces, taken, args.minutes))
    return 0 if args.plan else _run(pieces, taken, args)


def _run(pieces: list[Piece], taken: dict[str, float], args: argparse.Namespace) -> int:
    began, limit, record = time.monotonic(), args.minutes, args.out / "minutes.json"
    slower, expected = 0.0, 0.0  # what the pieces of this run took, and were expected to take
    left = [piece for piece in pieces if piece.key() not in taken]
    while left:
        piece, pace = left[0], max(0.5, slower / expected) if expected > 1.0 else 1.0
        ends = (time.monotonic() - began) / 60 + (piece.minutes or 0.0) * pace
        if limit is not None and ends > limit:
            break
        title = f"{piece.name}, seeds {' '.join(map(str, piece.seeds))}"
        print(f"\n{title}\n{'-' * len(title)}", flush=True)
        started = time.monotonic()
        importlib.import_module(f"benchmarks.paper.{EXPERIMENTS[piece.name].module}").main(
            [*piece.options, *_where(args)]
        )
        minutes = (time.monotonic() - started) / 60
        slower, expected = slower + minutes, expected + (piece.minutes or 0.0)
        taken[piece.key()] = round(minutes, 2)
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(taken, indent=2) + "\n")
        del left[0]
    spent = (time.monotonic() - began) / 60
    print(f"\n{len(pieces) - len(left)} of {len(pieces)} pieces are done, {spent:.1f} minutes were spent")
    if left:
        print(f"--minutes {limit:g} is over before {left[0].name}; the same command goes on")
    return 0


def _plan(pieces: list[Piece], taken: dict[str, float], limit: float | None) -> str:
    """A line a piece, and the sums."""
    lines = [f"{'piece':<20} {'seed':>4}  minutes"]
    for piece in pieces:
        state = f"done in {taken[piece.key()]:.1f}" if piece.key() in taken else _told(piece.minutes)
        lines.append(f"{piece.name:<20} {piece.seeds[-1]:>4}  {state}")
    left = [piece for piece in pieces if piece.key() not in taken]
    known = [piece.minutes for piece in left if piece.minutes is not None]
    total = f"{sum(known):.0f} minutes on idle cores" if len(known) == len(left) else "minutes not known"
    end = "" if limit is None else f"; --minutes {limit:g}"
    return "\n".join([*lines, f"{len(pieces)} pieces, {len(pieces) - len(left)} done, {len(left)} left: {total}{end}"])


def _told(minutes: float | None) -> str:
    return "-" if minutes is None else f"{minutes:.1f}"


def _where(args: argparse.Namespace) -> list[str]:
    words = ["--device", args.device, "--processes", str(args.processes)]
    words += ["--folder", str(args.folder), "--out", str(args.out)]
    return [*words, "--data-dir", str(args.data_dir)] if args.data_dir else words

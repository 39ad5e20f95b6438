"""attach() in many ways to train: optimizers, orders of calls, precisions, averages, compilers, processes, trainers.

Six steps each on the same small network, then what ``python -m benchmarks models`` checks. What is refused must be
refused by name, with what to do instead. One to two minutes.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks._report import source, write_json
from benchmarks.lab.tables import markdown
from benchmarks.reach._check import LoopOutcome, run_loop
from benchmarks.reach._loops import LOOPS
from benchmarks.reach.models import shortened

PACKAGES = ("lightning", "accelerate", "transformers")
_COLUMNS = ("loop", "outcome", "moved by finalize()", "said")


def main(argv: list[str]) -> int:
    """Print the table; 1 if a loop failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks loops", description=__doc__)
    parser.add_argument("--only", default="", help="loops whose name holds this")
    parser.add_argument("--json", type=Path, default=None, help="benchmarks/results/loops.json for docs/models.md")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    results: dict[str, LoopOutcome] = {}
    failed = []
    for loop in LOOPS:
        if options.only in loop.name and importlib.util.find_spec(loop.package) is not None:
            try:
                results[loop.name] = run_loop(loop)
            except Exception as error:  # the others are tried all the same
                failed.append(f"{loop.name}: {type(error).__name__}: {error}")
    lines = [[name, *_line(outcome)] for name, outcome in results.items()]
    print(markdown(_COLUMNS, lines))
    print(*failed, sep="\n", file=sys.stderr)
    if options.json:
        write_json(
            options.json,
            {
                "table": {"columns": _COLUMNS, "lines": lines},
                "source": source("loops", *PACKAGES),
                "outcomes": {name: asdict(outcome) for name, outcome in results.items()},
                "failed": failed,
            },
            *PACKAGES,
        )
    return 1 if failed else 0


def _line(outcome: LoopOutcome) -> list[str]:
    moved = "-" if outcome.moved is None else f"{outcome.moved:.0e}".replace("0e+00", "0")
    return [outcome.note, moved, "; ".join(map(shortened, outcome.said)) or "-"]

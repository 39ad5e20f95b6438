"""Every experiment on accuracy, one after the other, with the minutes that each took.

What is given here goes to all of them (``--budget``, ``--seeds``, ``--device``, ``--networks``, ...). Without
``--seeds`` it is seed 0 alone. Trainings that several need are done once, and what an earlier run has finished is read:
this is also how to make all pictures and tables again.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time

from benchmarks.lab.pool import add_options

# the module of each, and what it is told beside the options given here
EXPERIMENTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "table1": ("table1", ()),
    "table2": ("table2", ()),
    "table2_depthwise": (
        "table2",
        ("--name", "table2_depthwise", "--networks", "mobilenet_v2", "--bases", "LSQ", "--bits", "2", "3"),
    ),
    "table6": ("table6", ()),
    "figure4": ("figure4", ()),
    "figure5": ("figure5", ()),
    "figure6": ("figure6", ()),
    "figure7": ("figure7", ()),
    "figure8": ("figure8", ()),
    "hardware": ("hardware", ()),
    "float_road": ("float_road", ()),
    "defaults": ("defaults", ()),
}

BY_THEMSELVES = ("claim", "default_grid", "table2_simplenet5")
"""Not among them: they want CIFAR10, or a float network, that few have at hand."""


def main(argv: list[str]) -> int:
    """Run them; stops at the first that fails, with its error."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks experiments", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS))
    add_options(parser, seeds=(0,))
    args, _ = parser.parse_known_args(argv)  # what only some experiments know is theirs to refuse
    common = [*_without_only(argv), "--seeds", *map(str, args.seeds)]
    minutes = {}
    for name in args.only:
        print(f"\n{name}\n{'-' * len(name)}")
        started = time.monotonic()
        module, own = EXPERIMENTS[name]
        importlib.import_module(f"benchmarks.paper.{module}").main([*common, *own])
        minutes[name] = round((time.monotonic() - started) / 60, 2)
    print("\nminutes: " + ", ".join(f"{name} {taken}" for name, taken in minutes.items()))
    (args.out / "minutes.json").write_text(json.dumps(minutes, indent=2) + "\n")
    return 0


def _without_only(argv: list[str]) -> list[str]:
    """The options for each experiment."""
    kept, skipping = [], False
    for word in argv:
        skipping = word == "--only" or (skipping and not word.startswith("-"))
        if not skipping:
            kept.append(word)
    return kept

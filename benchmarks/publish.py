"""Puts the tables of benchmarks/results into README.md and docs/: what people read is what the experiments wrote.

A page asks for a table with the comment lines ``<!-- table NAME -->`` and ``<!-- end NAME -->``; what stands between
them is made anew from ``benchmarks/results/NAME.json``. ``--take FOLDER`` first copies every NAME.json that a page asks
for from an experiment's ``--out`` folder. ``--check`` changes nothing and says whether the pages are up to date.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from pathlib import Path
from typing import Any

from benchmarks.lab.tables import markdown

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
_BLOCK = re.compile(r"<!-- table (\w+) -->\n.*?<!-- end \1 -->", re.DOTALL)


def block(name: str) -> str:
    """A table with the command, seeds and versions it came from, between its two comment lines."""
    data = json.loads((RESULTS / f"{name}.json").read_text())
    source = data["source"] if "source" in data else _source(data)
    table = markdown(data["table"]["columns"], data["table"]["lines"])
    power = "".join(f"\n- {where}: {says}." for where, says in data.get("verdicts", {}).items())
    told = f"\n\nHow far the table can tell methods apart:\n{power}" if power else ""
    return f"<!-- table {name} -->\n{table}\n\n{source}{told}\n<!-- end {name} -->"


def _source(data: dict[str, Any]) -> str:
    made, asked = data["provenance"], data["arguments"]
    versions = ", ".join(f"{package} {made['versions'][package]}" for package in ("torch", "numpy"))
    seeds = " ".join(map(str, asked["seeds"]))
    return f"*{asked['dataset']}, budget {asked['budget']}, seeds {seeds}; {versions}; mean (standard error).*"


def filled(text: str) -> str:
    """A page with its tables made anew."""
    return _BLOCK.sub(lambda found: block(found.group(1)), text)


def pages() -> list[Path]:
    """The pages that may hold tables."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def main(argv: list[str]) -> int:
    """Fill the pages; 1 if --check finds one that is not up to date."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks publish", description=__doc__)
    parser.add_argument("--take", type=Path, default=None, help="copy results from this folder first")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args(argv)
    stale = []
    for page in pages():
        text = page.read_text()
        for name in _BLOCK.findall(text):
            if args.take is not None and (args.take / f"{name}.json").exists() and not args.check:
                shutil.copyfile(args.take / f"{name}.json", RESULTS / f"{name}.json")
        if filled(text) != text:
            stale.append(page.relative_to(ROOT))
            if not args.check:
                page.write_text(filled(text))
    print(f"{'not up to date' if args.check else 'changed'}: {', '.join(map(str, stale)) or 'nothing'}")
    return 1 if args.check and stale else 0

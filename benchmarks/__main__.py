"""``python -m benchmarks NAME [options]`` runs the file of that name in any room; without a name it lists them.

The room may stand before the name: ``python -m benchmarks speed step``.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from benchmarks._names import unknown

HERE = Path(__file__).parent
ROOMS = ("paper", "reach", "speed")


def modules() -> dict[str, str]:
    """Every runnable file by its name: the module that holds it."""
    found = {path.stem: f"benchmarks.{path.stem}" for path in HERE.glob("[!_]*.py")}
    for room in ROOMS:
        found |= {path.stem: f"benchmarks.{room}.{path.stem}" for path in (HERE / room).glob("[!_]*.py")}
    return dict(sorted(found.items()))


def main(argv: list[str]) -> int:
    """Dispatch to the named benchmark; 2 on an unknown name or bad input."""
    known = modules()
    words = argv[1:] if argv and argv[0] in ROOMS else argv
    if not words or words[0] in {"-h", "--help"}:
        _list(known, argv[0] if argv and argv[0] in ROOMS else "")
        return 0
    name, *options = words
    if name not in known:
        print(f"no benchmark {name!r}{unknown(name, known)}", file=sys.stderr)
        return 2
    try:
        return int(importlib.import_module(known[name]).main(options))
    except ValueError as error:  # bad input, named; finished results are kept
        print(f"{name}: {error}", file=sys.stderr)
        return 2


def _list(known: dict[str, str], room: str) -> None:
    print("usage: python -m benchmarks [ROOM] NAME [--help]")
    for place in [room] if room else ["", *ROOMS]:
        prefix = f"benchmarks.{place}." if place else "benchmarks."
        print(f"\n{place or 'tools'}: {importlib.import_module(prefix[:-1]).__doc__}")
        for name, module in known.items():
            if module == prefix + name:
                doc = importlib.import_module(module).__doc__ or ""
                print(f"  {name:<18} {doc.strip().splitlines()[0]}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""``python -m benchmarks NAME [options]`` runs ``benchmarks/NAME.py``; without a name it lists them."""

from __future__ import annotations

import difflib
import importlib
import sys
from pathlib import Path


def names() -> list[str]:
    """Every file of this folder that is not private."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))


def main(argv: list[str]) -> int:
    """Dispatch to the named benchmark; 2 on an unknown name or bad input."""
    if not argv or argv[0] in {"-h", "--help"}:
        print("usage: python -m benchmarks NAME [--help]\n")
        for name in names():
            doc = importlib.import_module(f"benchmarks.{name}").__doc__ or ""
            print(f"  {name:<14} {doc.strip().splitlines()[0]}")
        return 0
    if argv[0] not in names():
        near = difflib.get_close_matches(argv[0], names(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        print(f"no benchmark {argv[0]!r}{hint} (known: {', '.join(names())})", file=sys.stderr)
        return 2
    try:
        return int(importlib.import_module(f"benchmarks.{argv[0]}").main(argv[1:]))
    except ValueError as error:  # bad input, named; finished results are kept
        print(f"{argv[0]}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

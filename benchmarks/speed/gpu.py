"""Everything that wants a GPU, in one call: do both forms train alike there, what a step costs, what the penalty costs.

Parts run one after the other, each in a process of its own with a limit, and what each printed and measured is written
as soon as it ends: a part that fails or runs out of time takes nothing from the others. Defaults take about five
minutes on an H100.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

PARTS: dict[str, tuple[int, tuple[str, ...]]] = {
    "alike": (220, ("alike",)),
    "step": (240, ("step", "--rounds", "15")),
    "penalty": (90, ("penalty", "--sizes", "100000", "1000000", "11000000", "100000000")),
}  # name -> (seconds at most, arguments of ``python -m benchmarks``)


def run_part(name: str, folder: Path) -> str:
    """One line that says how it ended; output and figures are in the folder."""
    limit, words = PARTS[name]
    began = time.monotonic()
    command = [sys.executable, "-u", "-m", "benchmarks", *words, "--json", str(folder / f"{name}_gpu.json")]
    with (folder / f"{name}.txt").open("w") as log:
        try:
            code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, timeout=limit, check=False).returncode
            end = "done" if code == 0 else f"FAILED with exit code {code}"
        except subprocess.TimeoutExpired:
            end = f"STOPPED after its {limit} s"
    return f"{name}: {end}, {time.monotonic() - began:.0f} s"


def main(argv: list[str]) -> int:
    """Run the parts; 1 if one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="folder for the texts and the JSON files")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    ends = []
    for name in options.only:
        ends.append(run_part(name, options.out))
        print((options.out / f"{name}.txt").read_text()[-6000:])
        print(ends[-1], flush=True)
    print("\n".join(["", *ends]))
    return int(any("done" not in end for end in ends))

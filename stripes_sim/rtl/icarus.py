"""Running the testbench that `stripes_sim.rtl.write_rtl` wrote with Icarus Verilog."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Simulated", "simulate"]

_LINE = re.compile(r"outputs (\d+), wrong (\d+), cycles (\d+), expected cycles (\d+)")


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """What the testbench counted.

    Attributes:
        outputs: sums that were compared.
        wrong: how many of them differ.
        cycles: in which the array was busy.
        expected_cycles: those of `stripes_sim`.
        text: what the simulator printed.
    """

    outputs: int
    wrong: int
    cycles: int
    expected_cycles: int
    text: str

    @property
    def passed(self) -> bool:
        """All outputs and the cycles are as expected."""
        return self.wrong == 0 and self.cycles == self.expected_cycles


def simulate(folder: str | Path) -> Simulated:
    """Compile and run the testbench in a folder.

    Args:
        folder: what `stripes_sim.rtl.write_rtl` wrote.

    Raises:
        ValueError: no such files in the folder.
        RuntimeError: Icarus Verilog is not installed, or does not take the files.
    """
    place = Path(folder)
    if not (place / "testbench.v").is_file():
        raise ValueError(f"{place}: no testbench.v in it; write it first (stripes_sim.rtl.write_rtl, waveq rtl)")
    if shutil.which("iverilog") is None or shutil.which("vvp") is None:
        raise RuntimeError("iverilog is not installed (Debian and Ubuntu: apt-get install iverilog)")
    sources = sorted(file.name for file in place.glob("*.v"))
    compiled = _run(
        ["iverilog", "-g2012", "-Wall", "-Wno-timescale", "-s", "testbench", "-o", "layer.vvp", *sources], place
    )
    if compiled.returncode or compiled.stderr:
        raise RuntimeError(f"iverilog refuses the files in {place}: {compiled.stderr.strip()}")
    run = _run(["vvp", "-n", "layer.vvp"], place)
    found = _LINE.search(run.stdout)
    if found is None:
        raise RuntimeError(f"the testbench in {place} did not end: {(run.stdout + run.stderr).strip()}")
    outputs, wrong, cycles, expected = map(int, found.groups())
    return Simulated(outputs=outputs, wrong=wrong, cycles=cycles, expected_cycles=expected, text=run.stdout)


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)

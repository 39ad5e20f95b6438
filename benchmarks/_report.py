"""What every benchmark writes beside its numbers: versions, machine, command."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PACKAGES = ("waveq", "torch", "torchvision", "numpy", "numba", "pandas")


def provenance(*more_packages: str) -> dict[str, Any]:
    """Command, machine and versions, ready for a JSON file."""
    versions = {}
    for name in (*_PACKAGES, *more_packages):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "command": "python -m benchmarks " + " ".join(sys.argv[1:]),
        "machine": {"processor": processor(), "cores": os.cpu_count(), "system": platform.system()},
        "python": platform.python_version(),
        "versions": versions,
    }


def source(name: str, *packages: str, note: str = "") -> str:
    """The line below a published table: the command that made it, and the versions."""
    versions = provenance(*packages)["versions"]
    told = ", ".join(f"{package} {versions[package]}" for package in ("torch", "torchvision", *packages))
    return f"*`python -m benchmarks {name}`; {told}{note}.*"


def processor() -> str:
    """The processor's name as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def write_json(path: Path | str, results: Mapping[str, Any], *more_packages: str) -> None:
    """Write the results with their provenance, creating the folder."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps({"provenance": provenance(*more_packages), **results}, indent=2) + "\n")
    print(f"written: {target}")

"""``gpu.json``: what is known of each part of ``python -m benchmarks gpu``, so that a later call goes on from there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks._report import provenance
from benchmarks.speed._gpu_report import decision
from waveq._files import write_json

__all__ = ["Record"]


class Record:
    """Entries by part, written anew whenever one changes.

    An entry has a state ("done", "failed", "stopped", "missing", "not reached", or "begun" while it runs) and why it is
    not done; once begun, seconds, device, machine and command; and "result", the figures that it wrote, if it did.

    Args:
        path: the file; one that is there is gone on with.
        device: "cpu" or "cuda".
        rehearsed: whether sizes are tiny.

    Raises:
        ValueError: the file is none of these, or of another device or other sizes.
    """

    def __init__(self, path: Path, *, device: str, rehearsed: bool) -> None:
        self.path = path
        self.entries: dict[str, dict[str, Any]] = {}
        self._kind = {"device": device, "rehearsed": rehearsed}
        self._provenance = provenance("brevitas", "torchao", "triton")
        if path.exists():
            held = _read(path)
            if {key: held[key] for key in self._kind} != self._kind:
                told = f"--device {held['device']}" + (" --rehearse" if held["rehearsed"] else "")
                raise ValueError(f"--out {path.parent}: holds a run with {told}; ask for the same, or another folder")
            self.entries = held["parts"]
        for entry in self.entries.values():
            if entry["state"] == "begun":
                entry |= {"state": "stopped", "why": "the run was killed meanwhile"}

    def state(self, name: str) -> str:
        """Of a part; empty where nothing is known."""
        return str(self.entries.get(name, {}).get("state", ""))

    def put(self, name: str, **entry: Any) -> None:
        """What is known of a part now."""
        self.entries[name] = entry
        whole = {"provenance": self._provenance, **self._kind}
        write_json(self.path, {**whole, "parts": self.entries, "decision": decision(self.entries)})

    def keep(self, name: str, state: str, why: str) -> None:
        """A part that this call did not begin; what an earlier call found of it stays."""
        if "result" not in self.entries.get(name, {}):
            self.put(name, state=state, why=why)


def _read(path: Path) -> dict[str, Any]:
    try:
        held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if {"device", "rehearsed", "parts"} <= held.keys():
            return held
    except (ValueError, AttributeError):
        pass
    raise ValueError(f"--out {path.parent}: {path.name} in it is no record of this benchmark; name another folder")

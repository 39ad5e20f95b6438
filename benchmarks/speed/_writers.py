"""Processes that write into one store; nothing heavy is imported, for each of them imports it again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from pareto.store import Store

__all__ = ["open_campaign", "rows_of", "write"]


def open_campaign(path: Path) -> Store:
    """A store of policies of 8 layers."""
    return Store(path, layers=[f"layer{n}" for n in range(8)], fingerprint={})


def rows_of(writer: int, count: int) -> Any:
    """(count, 8) uint8 policies that no other writer has."""
    numbers = np.arange(count)
    digits = [(numbers // 16**place) % 16 + 1 for place in range(6)]
    return np.stack([np.full(count, writer + 1), *digits, np.ones(count)], axis=1).astype(np.uint8)


def write(number: int, path: Path, seconds: float, gate: Any, queue: Any) -> None:
    """One result a transaction for so long; how many there were, and how long the slowest took, go into the queue."""
    rows, count, slowest = rows_of(number, 200_000), 0, 0.0
    with open_campaign(path) as campaign:
        gate.wait()
        end = time.monotonic() + seconds
        while (begun := time.monotonic()) < end:
            campaign.add(rows[count : count + 1], [1.0])
            slowest, count = max(slowest, time.monotonic() - begun), count + 1
    queue.put((count, slowest))

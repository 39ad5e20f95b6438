"""The ``waveq`` command: one file a verb."""

from __future__ import annotations

from waveq.cli.app import main as main

__all__ = ["main"]

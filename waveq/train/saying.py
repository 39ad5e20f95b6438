"""Who hears what a run is about to do: a function of one line, which here nobody hears."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Say", "say_nothing"]

Say = Callable[[str], None]
"""Receives a line for people."""


def say_nothing(_line: str) -> None:
    """Nobody hears it."""

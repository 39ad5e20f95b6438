"""All ways to train that ``attach`` is tried in, in the order of the table."""

from __future__ import annotations

from benchmarks.reach import _loops_copies, _loops_steps, _loops_wrapped
from benchmarks.reach._loop import Loop

__all__ = ["LOOPS"]

LOOPS: tuple[Loop, ...] = (*_loops_steps.LOOPS, *_loops_copies.LOOPS, *_loops_wrapped.LOOPS)

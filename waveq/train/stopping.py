"""Ctrl-C and SIGTERM: noted, so that a step is finished and a checkpoint written before training ends."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["StopRequested", "signals_noted"]


class StopRequested(Exception):  # noqa: N818  (it is none)
    """Raised inside Lightning after the checkpoint of an interrupted run is written."""


@contextmanager
def signals_noted() -> Iterator[Callable[[], bool]]:
    """Within, the first Ctrl-C or SIGTERM is only noted, so that a step is finished; a second Ctrl-C acts at once.

    Yields:
        A function that tells whether a signal came.
    """
    came = False

    def note(number: int, _frame: FrameType | None) -> None:
        nonlocal came
        if came and number == signal.SIGINT:
            raise KeyboardInterrupt
        came = True

    before = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
    except ValueError:  # not the main thread: whoever runs it takes care of signals
        pass
    try:
        yield lambda: came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

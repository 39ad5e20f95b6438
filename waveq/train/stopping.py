"""Ctrl-C, SIGTERM and SIGHUP: noted, so that a step is finished and a checkpoint written before training ends."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["StopRequested", "StoppedAtOnce", "signals_noted"]


class StopRequested(Exception):  # noqa: N818  (it is none)
    """Raised inside Lightning after the checkpoint of an interrupted run is written."""


class StoppedAtOnce(BaseException):
    """A second Ctrl-C: no checkpoint is written. Lightning would turn a KeyboardInterrupt into an exit of its own."""


@contextmanager
def signals_noted() -> Iterator[Callable[[], bool]]:
    """Within, Ctrl-C, SIGTERM and SIGHUP are only noted, so that a step is finished; a second Ctrl-C acts at once.

    So does SIGTERM after Ctrl-C: an agent that hears Ctrl-C twice tells its processes so. A SIGHUP that nohup had
    ignored stays ignored.

    Yields:
        A function that tells whether a signal came.

    Raises:
        StoppedAtOnce: wherever the program is when Ctrl-C comes after another signal.
    """
    came: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        if came and (number == signal.SIGINT or (number == signal.SIGTERM and signal.SIGINT in came)):
            raise StoppedAtOnce
        came.append(number)

    before = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
            before[number] = signal.signal(number, note)
    except ValueError:  # not the main thread: whoever runs it takes care of signals
        pass
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

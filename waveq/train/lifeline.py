"""Child processes that end with their parent, however it ends: a pipe whose other end only the parent holds.

The system closes a process's files even when it is killed; a child that waits for that needs no help from the parent.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["LIFELINE", "end_with_parent", "end_with_spawner", "lifeline"]

LIFELINE = "WAVEQ_LIFELINE"
"""Where a child finds the number of its end of the pipe."""


@contextmanager
def lifeline() -> Iterator[int]:
    """In the parent: the end of the pipe to hand to children, by `pass_fds` and LIFELINE."""
    theirs, ours = os.pipe()  # neither is inherited but by who is handed it
    try:
        yield theirs
    finally:
        os.close(theirs)
        os.close(ours)


def end_with_parent() -> None:
    """In a child: from now on it ends within moments of its parent. What it writes is whole or not there."""
    handle = int(os.environ[LIFELINE])

    def wait() -> None:
        os.read(handle, 1)  # nothing is ever written: it returns when the parent is gone
        os._exit(1)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def end_with_spawner() -> None:
    """The same in a process of `multiprocessing`, which has such a pipe of its own."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()

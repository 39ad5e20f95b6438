"""Child processes that end with their parent, however it ends: a process that was killed can end nobody."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time

__all__ = ["end_with_parent", "end_with_spawner"]

_SECONDS = 0.2
_NAME = "lifeline"


def end_with_parent(parent: int | None = None) -> None:
    """From now on this process ends within moments of its parent. What it writes is whole or not there.

    Args:
        parent: its number, where the child was told; the parent may have ended before the child could look.
    """
    if any(thread.name == _NAME for thread in threading.enumerate()):
        return
    expected = os.getppid() if parent is None else parent

    def watch() -> None:
        while os.getppid() == expected:  # an orphan is handed to another
            time.sleep(_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name=_NAME, daemon=True).start()


def end_with_spawner() -> None:
    """The same in a process of `multiprocessing`, which has a pipe for it."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name=_NAME, daemon=True).start()

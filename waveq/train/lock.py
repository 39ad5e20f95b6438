"""One process at a time in a folder, by a lock that the system frees when the process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from waveq._files import remove_drafts

__all__ = ["LOCK_FILE", "FolderInUseError", "alone_in", "alone_in_runs"]

LOCK_FILE = ".lock"
"""Holds the number of the process that took it last; it stays, because removing it would race with the next one."""


class FolderInUseError(ValueError):
    """Another process, or another thread of this one, is in the folder."""


@contextmanager
def alone_in(folder: Path) -> Iterator[int]:
    """Within, nobody else is in the folder, which is made when missing; drafts that a killed writer left are removed.

    Yields:
        The file descriptor that holds the lock: a child process that inherits it keeps the lock as long as it lives.

    Raises:
        FolderInUseError: another process, or another thread of this one, is in it.
        OSError: the folder cannot be written, or its file system has no locks.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name, alone_in(Path(name)):
        ...     with alone_in(Path(name)):
        ...         pass
        Traceback (most recent call last):
        waveq.train.lock.FolderInUseError: ... is in use by process ...; wait until it ends, or choose another folder
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise type(error)(error.errno, f"cannot be written ({error.strerror})", str(folder)) from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 20).decode("ascii", "replace").strip() or "of unknown number"
            raise FolderInUseError(
                f"{folder} is in use by process {holder}; wait until it ends, or choose another folder"
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode("ascii"), 0)
        remove_drafts(folder)
        yield handle
    finally:
        os.close(handle)


@contextmanager
def alone_in_runs(*folders: Path) -> Iterator[None]:
    """Within, nobody else is in those of the folders that hold a run; others are left as they are.

    Raises:
        FolderInUseError: see `alone_in`.
    """
    runs = {folder.resolve(): folder for folder in folders if (folder / "config.json").exists()}
    with ExitStack() as held:
        for _, folder in sorted(runs.items()):  # in one order: two that want the same two do not wait for each other
            held.enter_context(alone_in(folder))
        yield

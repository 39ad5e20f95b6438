"""The SQLite file of a store: how it is opened, to write or only to read, and how damage in it is told."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import struct
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

__all__ = ["checksum", "named", "open_to_read", "open_to_write", "quoted", "refuse_damage"]

_BUSY_SECONDS = 60.0  # how long one writer waits while another commits
_DAMAGE = (sqlite3.DatabaseError, OverflowError, UnicodeDecodeError)  # of bytes that SQLite did not write so
_REMEDY = "take a copy of before, or delete the file, and its policies are evaluated again"


def open_to_write(path: Path) -> sqlite3.Connection:
    """The file in write-ahead-log mode, made with its folder when absent.

    Raises:
        ValueError: it cannot be opened, or is no database.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    except sqlite3.OperationalError as error:
        raise ValueError(f"{path} cannot be opened as a campaign store: {error}") from None
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            # Switching to WAL needs the file alone and does not honour the timeout, hence the loop.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")  # a commit survives a power cut too
            return connection
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                connection.close()
                raise ValueError(f"{path} cannot be opened as a campaign store: {error}") from None
            time.sleep(0.02)
        except _DAMAGE as error:
            connection.close()
            raise ValueError(f"{path} is not a campaign store: {error}") from None


def open_to_read(path: Path) -> tuple[sqlite3.Connection, contextlib.ExitStack]:
    """The file as it is, to which nothing can be added through this connection, and what to close after it.

    Where SQLite cannot keep its shared memory beside the file (a medium or folder that is read-only) a copy in a
    temporary folder is read, with the log that lies beside the file. Elsewhere the last one that closes the file moves
    such a log into it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it cannot be read, or is no database.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    after = contextlib.ExitStack()
    try:
        if os.access(path.parent, os.W_OK) and os.access(path, os.W_OK):
            return _reader(path), after
        folder = Path(after.enter_context(tempfile.TemporaryDirectory()))
        for ending in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(f"{path}{ending}", folder / f"copy{ending}")
        return _reader(folder / "copy"), after
    except (OSError, *_DAMAGE) as error:
        after.close()
        raise ValueError(f"{path} cannot be read as a campaign store: {error}") from None


def _reader(path: Path) -> sqlite3.Connection:
    place = f"file:{quote(str(path.absolute()))}?mode=rw"  # never makes a file
    connection = sqlite3.connect(place, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Whatever is wrong with the file is told with its name."""
    try:
        yield
    except _DAMAGE as error:
        if isinstance(error, sqlite3.ProgrammingError):
            raise  # of the caller: the store is closed
        raise ValueError(f"{path} is damaged, or not a campaign store ({error}); {_REMEDY}") from None


def refuse_damage(path: Path, what: str) -> ValueError:
    """The error that says so, and what to do."""
    return ValueError(f"{path}: damaged: {what}; {_REMEDY}")


def checksum(policy: Any, recorded_at: Any, values: Sequence[Any]) -> int | None:
    """Of one row; None where its values have not even the types of one."""
    try:
        plain = [value + 0.0 for value in (recorded_at, *values)]  # SQLite makes 0.0 of -0.0
        return zlib.crc32(policy + struct.pack(f"<{len(plain)}d", *plain))
    except (TypeError, struct.error):
        return None


def quoted(name: str) -> str:
    """A column's name in a statement."""
    return '"' + name.replace('"', '""') + '"'

"""Files that are the old ones or the new ones and nothing between, even if the process is killed or the power fails.

Everything in waveq that writes a file goes through `whole`, or through one of the short forms below it. The exceptions
are what only grows: rows that are appended to metrics.csv, TensorBoard's events, the SQLite store.
`stripes_sim._files` and `pareto._files` are the same for the packages that do not know this one.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["remove_drafts", "whole", "whole_folder", "write_json", "write_text"]


_NUMBERS = itertools.count()  # two threads may write the same file
_DRAFT = re.compile(r"\..+\.(?P<process>\d{1,9})\.\d+(\.\w+)?")


@contextmanager
def whole(path: Path | str) -> Iterator[Path]:
    """Within, the path of a draft to write, with the same suffix; it takes the file's place once it is on the disk.

    Where writing fails the draft is removed and the file is what it was. A link is followed: the file that it points to
    is replaced. Folders that are missing are made.

    Args:
        path: the file.

    Raises:
        OSError: the file cannot be written; the error names it, or the folder in the way, never the draft.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> with whole(f"{folder.name}/new/a.txt") as draft:
        ...     _ = draft.write_bytes(b"all of it")
        >>> Path(folder.name, "new", "a.txt").read_bytes(), len(list(Path(folder.name, "new").iterdir()))
        (b'all of it', 1)
        >>> folder.cleanup()
    """
    target = Path(os.path.realpath(path))
    draft = target.with_name(f".{target.stem}.{os.getpid()}.{next(_NUMBERS)}{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield draft
            _to_disk(draft)
            os.replace(draft, target)
        finally:
            draft.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # some network file systems cannot sync a folder, and the file is whole
            _to_disk(target.parent)
    except OSError as error:
        if error.errno is None or error.filename not in (str(draft), draft, None):
            raise
        raise type(error)(error.errno, error.strerror, str(path)) from error


def remove_drafts(folder: Path) -> None:
    """Remove what writers that are no more left in a folder, and below it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     for left in (".weights.4194305.0.pt", ".lock", "a.csv"):
        ...         Path(name, left).touch()
        ...     remove_drafts(Path(name))
        ...     sorted(path.name for path in Path(name).iterdir())
        ['.lock', 'a.csv']
    """
    for path in list(folder.rglob(".*")):
        draft = _DRAFT.fullmatch(path.name)
        if draft and not _is_running(int(draft["process"])):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path | str) -> Iterator[Path]:
    """Within, a new empty folder; it takes its name once all its files are on the disk.

    Where writing fails it is removed. Nothing that was there before is replaced: files of another export beside those
    of this one would be read as one.

    Args:
        path: the folder, which must not exist.

    Raises:
        FileExistsError: something has the name.
        OSError: the folder cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     with whole_folder(f"{place}/new") as draft:
        ...         _ = Path(draft, "a.txt").write_bytes(b"all of it")
        ...     [found.name for found in Path(place).rglob("*")]
        ['new', 'a.txt']
    """
    target = Path(path).absolute()
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "exists already; give a folder that does not", str(path))
    draft = target.with_name(f".{target.name}.{os.getpid()}.{next(_NUMBERS)}")
    draft.mkdir(parents=True)
    try:
        yield draft
        for each in sorted(draft.rglob("*")):
            _to_disk(each)
        _to_disk(draft)
        os.rename(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    with contextlib.suppress(OSError):
        _to_disk(target.parent)


def write_text(path: Path | str, text: str) -> None:
    """Write text as UTF-8, whatever the locale.

    Raises:
        OSError: see `whole`.
    """
    with whole(path) as draft:
        draft.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path | str, data: Mapping[str, Any], *, default: Callable[[Any], Any] | None = None) -> None:
    """Write JSON for people and machines; ``default`` makes JSON values of other ones.

    Raises:
        OSError: see `whole`.
        TypeError: a value that JSON does not have; nothing is written.
    """
    write_text(path, json.dumps(dict(data), indent=2, default=default) + "\n")


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True


def _to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

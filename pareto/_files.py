"""Files that are the old ones or the new ones and nothing between, even if the process is killed or the power fails.

`waveq._files` is the same: no package may need another for it, and a test holds them together.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["whole"]

_NUMBERS = itertools.count()  # two threads may write the same file


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


def _to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

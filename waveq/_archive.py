"""Files of tensors, .pt and .ckpt: written with a digest of all their bytes, and read only where the bytes are right.

That a file can be parsed does not say that it is what was written: torch.load checks no checksum, and one bit of a
weight that flips on the disk gives another network. The digest stands in the comment at the end of the zip, which every
other reader of such files passes over: it takes its place with the file, at once, and goes where the file is copied.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

from waveq._files import whole
from waveq._reading import require_regular

__all__ = ["load_archive", "save_archive"]

_MARK = b"sha256:"
_COMMENT = len(_MARK) + hashlib.sha256().digest_size * 2
_END = 22  # bytes of the record at the end of a zip, before the comment
_CHUNK = 1 << 20


def save_archive(path: Path | str, content: Any) -> None:
    """Write what `torch.save` takes, all at once and with its digest.

    Args:
        path: the file.
        content: tensors, and plain Python values and containers.

    Raises:
        OSError: the file cannot be written; see `waveq._files.whole`.
    """
    with whole(path) as draft, draft.open("w+b") as file:  # a path would put its name into the file
        try:
            torch.save(content, file)
        except RuntimeError as error:  # torch's own of its archive, which hides what writing the file said
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None
        file.seek(-2, os.SEEK_END)  # the length of the zip's comment: 0
        file.write(_COMMENT.to_bytes(2, "little"))
        file.write(_MARK + _digest(file, file.tell()))


def load_archive(path: Path | str) -> Any:
    """What a file of tensors holds, on the CPU; nothing in the file is executed.

    With a digest all bytes are compared with it. A file from elsewhere has none: its zip's checksums are compared. The
    form before torch 1.6 has neither, and its tensors are taken as they stand.

    Args:
        path: a regular file that `save_archive` or `torch.save` wrote.

    Raises:
        ValueError: no such file, or one that is damaged or holds something else; the message names it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_archive(f"{folder}/a.pt", {"weight": torch.ones(2)})
        ...     load_archive(f"{folder}/a.pt")
        {'weight': tensor([1., 1.])}
    """
    try:
        require_regular(path)
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file of weights") from None
    with Path(path).open("rb") as file:
        _require_right_bytes(path, file)
        file.seek(0)
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # the unpickler raises whatever the damage leads to
            raise ValueError(f"{path}: truncated or not a file of weights ({type(error).__name__})") from None


def _require_right_bytes(path: Path | str, file: BinaryIO) -> None:
    size = os.fstat(file.fileno()).st_size
    file.seek(max(size - _END - _COMMENT, 0))
    end = file.read()
    if (at := end.rfind(b"PK\x05\x06")) >= 0:
        comment = end[at + _END :]
        if int.from_bytes(end[at + _END - 2 : at + _END], "little") != len(comment):
            raise ValueError(f"{path}: damaged or truncated: the end of the zip is not where it says")
        if len(comment) == _COMMENT:
            if comment != _MARK + _digest(file, size - _COMMENT):
                raise ValueError(f"{path}: damaged: its bytes are not those that were written (their digest differs)")
            return
    if not zipfile.is_zipfile(file):
        file.seek(0)
        if file.read(4) == b"PK\x03\x04":
            raise ValueError(f"{path}: truncated or not a file of weights (the zip has no end)")
        return
    try:
        with zipfile.ZipFile(file) as archive:
            member = archive.testzip()
    except Exception as error:  # zipfile raises whatever the damage leads to
        raise ValueError(f"{path}: damaged ({type(error).__name__}: {error})") from None
    if member is not None:
        raise ValueError(f"{path}: damaged: the checksum of its part {member} is wrong")


def _digest(file: BinaryIO, size: int) -> bytes:
    """Of the first ``size`` bytes, as hexadecimal digits."""
    file.seek(0)
    found = hashlib.sha256()
    while size > 0 and (chunk := file.read(min(_CHUNK, size))):
        found.update(chunk)
        size -= len(chunk)
    file.seek(0, os.SEEK_END)
    return found.hexdigest().encode("ascii")

"""Reading what people wrote: regular files of a bounded size, UTF-8, JSON that says one thing.

Whatever is wrong with a file ends in one sentence that names it. `waveq._reading` is the same: neither package
may need the other for it, and a test holds the two together.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["MOST_BYTES", "parse_json", "read_text", "require_regular"]

MOST_BYTES = 64 << 20
"""Of a text: tables of a million policies stay below, /dev/zero does not."""


def require_regular(path: Path | str) -> int:
    """The size in bytes of a regular file: a pipe would block the reader, a device never ends.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no access, or no regular file.

    Example:
        >>> require_regular("/dev/zero")
        Traceback (most recent call last):
        ValueError: /dev/zero: not a regular file
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unreadable(path, error) from None
    except ValueError as error:  # a NUL in the name
        raise ValueError(f"{str(path)!r}: no name of a file ({error})") from None
    if stat.S_ISDIR(found.st_mode):
        raise ValueError(f"{path}: a folder, where a file is wanted")
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path}: not a regular file")
    return found.st_size


def read_text(path: Path | str, *, most_bytes: int = MOST_BYTES) -> str:
    """The text of a UTF-8 file, with or without a byte order mark.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no regular file, too large, not to be read, or not UTF-8; the message names the file.
    """
    size = require_regular(path)
    if size > most_bytes:
        raise ValueError(f"{path}: {size:,} bytes are more than a file of this kind has (at most {most_bytes:,})")
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: damaged, or not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise _unreadable(path, error) from None


def parse_json(text: str, *, where: str) -> Any:
    """JSON in which no key stands twice and every number is one: neither NaN nor an infinity.

    Args:
        text: the JSON.
        where: what errors name, a file for instance.

    Raises:
        ValueError: not JSON, nested too deeply, a key given twice, a number that is none or too large.

    Example:
        >>> parse_json('{"a": 1, "a": 2}', where="b.json")
        Traceback (most recent call last):
        ValueError: b.json: the key 'a' is given twice
        >>> parse_json('{"a": 1e999}', where="b.json")
        Traceback (most recent call last):
        ValueError: b.json: 1e999 is no finite number
    """
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number, parse_float=_finite)
    except _RefusedError as error:
        raise ValueError(f"{where}: {error}") from None
    except RecursionError:
        raise ValueError(f"{where}: damaged: nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: damaged: not valid JSON ({error})") from None
    except ValueError as error:  # Python refuses to read an integer of thousands of digits
        raise ValueError(f"{where}: {error}") from None


class _RefusedError(Exception):
    """JSON's grammar would have allowed it."""


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """JSON allows a name twice and keeps the last: here one of the two would be lost without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _RefusedError(f"the key {next(name for name in names if names.count(name) > 1)!r} is given twice")
    return found


def _no_number(text: str) -> NoReturn:
    raise _RefusedError(f"{text} is no finite number")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        _no_number(text)
    return value


def _unreadable(path: Path | str, error: OSError) -> ValueError:
    return ValueError(f"{path}: cannot be read ({error.strerror})")

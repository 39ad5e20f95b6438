"""Errors out of a user's own code: told with what was called, the kind of error, and the line it came from."""

from __future__ import annotations

import os
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from waveq._lazy import missing_sentence

__all__ = ["naming_errors"]

_NOT_THEIRS = (str(Path(__file__).parent) + os.sep, sysconfig.get_path("stdlib") + os.sep, "<frozen ")


@contextmanager
def naming_errors(what: str) -> Iterator[None]:
    """Within, somebody else's code is called: whatever it raises becomes one sentence that names it.

    Args:
        what: was called, as the beginning of the sentence.

    Raises:
        ValueError: from what was raised, an exit too; Ctrl-C comes through as it is.
        ModuleNotFoundError: as it was raised, for a package that an extra of waveq brings and that is not installed.

    Example:
        >>> with naming_errors("my_work:net"):
        ...     {}["weights"]
        Traceback (most recent call last):
        ValueError: my_work:net raises KeyError: 'weights' (..., line 2)
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        if missing_sentence(error):
            raise
        text = next(iter(str(error).strip().splitlines()), "")
        raise ValueError(f"{what} raises {type(error).__name__}{text and ': '}{text}{_place(error)}") from error


def _place(error: BaseException) -> str:
    """The last line of theirs that it went through: neither of this package nor of what is installed."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(_NOT_THEIRS) and "site-packages" not in frame.filename
    ]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""

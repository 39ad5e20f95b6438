"""Tables as CSV files: each column once, each row as long as the header, and the file named where that is not so.

Spreadsheets take a text that begins with = + - or @ for a formula. Names that do are written with a ' before them, and
read back without it; numbers are written as they are.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from waveq._files import write_text
from waveq._names import suggestion
from waveq._reading import read_text

__all__ = ["as_name", "as_text", "read_frame", "require_numbers", "write_frame"]

_LINES = re.MULTILINE | re.IGNORECASE
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def read_frame(
    path: Path,
    *,
    numbers: Sequence[str] = (),
    wholes: Sequence[str] = (),
    gaps: Sequence[str] = (),
    prefixes: tuple[str, ...] = (),
) -> pd.DataFrame:
    """A CSV file as a table: parted by commas, or by semicolons or tabs, with a point or then a comma as the decimal.

    Args:
        path: the file.
        numbers: columns that must be there, of finite numbers.
        wholes: the same of whole numbers.
        gaps: the same of numbers where cells may be empty.
        prefixes: how the names of further columns with ``gaps`` begin.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no text, no table, a column that is given twice (pandas alone would give the second another name),
            is missing, or holds something else; the message names the file.
    """
    text = read_text(path)
    try:
        separator = _separator(text)
        header = [as_name(name) for name in _header(text, separator)]
        twice = next((name for name in header if header.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"the column {twice!r} is given twice")
        frame = pd.read_csv(io.StringIO(text), sep=separator, decimal=_decimal(text, separator))
    except (csv.Error, ValueError) as error:  # pandas' own errors of tables are ValueErrors
        raise ValueError(f"{path} is no table: {error}") from None
    if not isinstance(frame.index, pd.RangeIndex):
        raise ValueError(f"{path} is no table: its rows have more cells than its header has columns ({len(header)})")
    frame = _mapped(frame, as_name)
    further = [name for name in frame.columns if prefixes and name.startswith(prefixes)]
    for name in (*numbers, *wholes, *gaps, *further):
        require_numbers(path, frame, name, whole=name in wholes, gaps=name in gaps or name in further)
    return frame


def _header(text: str, separator: str) -> list[str]:
    return next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])


def _separator(text: str) -> str:
    """What parts the header into most columns: a comma, or what spreadsheets write where the comma is the decimal."""
    return max(",;\t", key=lambda separator: len(_header(text, separator)))


def _decimal(text: str, separator: str) -> str:
    """A comma where some cell can be nothing else; it cannot where commas part the cells."""
    cell = rf"(?:^|[{separator}])-?\d+,\d+(?:e[+-]?\d+)?(?:$|[{separator}])"
    return "," if separator != "," and re.search(cell, text, _LINES) else "."


def require_numbers(path: Path, frame: pd.DataFrame, name: str, *, whole: bool = False, gaps: bool = False) -> None:
    """Refuse a table without such a column.

    Args:
        path: where it comes from, for messages.
        frame: the table.
        name: of the column, which must be there and hold finite numbers.
        whole: whether they must be whole.
        gaps: whether cells may be empty.

    Raises:
        ValueError: it is missing, or holds something else; the message names the file.
    """
    if name not in frame.columns:
        raise ValueError(f"{path}: damaged: the column {name!r} is missing{suggestion(name, frame.columns)}")
    values = pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=float)
    right = np.isfinite(values) | (gaps & frame[name].isna().to_numpy())
    if whole:
        right &= values == np.round(values)
    if frame[name].dtype == bool or not right.all():
        row = int(np.argmin(right))
        raise ValueError(
            f"{path}: damaged: {name} is {str(frame[name].iloc[row])!r} in line {row + 2}, a "
            f"{'whole' if whole else 'finite'} number is expected"
        )


def write_frame(path: Path | str, frame: pd.DataFrame) -> None:
    """Write a table as CSV, without its index; `read_frame` gives it back.

    Raises:
        OSError: see `waveq._files.whole`.
    """
    write_text(path, _mapped(frame, as_text).to_csv(index=False))


def as_text(name: str) -> str:
    """A name as a cell that no spreadsheet takes for a formula.

    Example:
        >>> as_text("=1+1"), as_text("conv-1")
        ("'=1+1", 'conv-1')
    """
    return f"'{name}" if _FORMULA.match(name) else name


def as_name(text: str) -> str:
    """What `as_text` was given.

    Example:
        >>> as_name("'=1+1"), as_name("'conv1'")
        ('=1+1', "'conv1'")
    """
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def _mapped(frame: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """The table with its texts changed, those of the header too."""
    texts = {
        str(name): column.map(lambda value: change(value) if isinstance(value, str) else value)
        for name, column in frame.items()
        if not pd.api.types.is_numeric_dtype(column)
    }
    return frame.assign(**texts).rename(columns=lambda name: change(str(name)))

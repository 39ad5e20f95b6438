"""Tables from CSV files: each column once, each row as long as the header, and the file named where that is not so."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pandas as pd

from waveq._reading import read_text

__all__ = ["read_frame"]


def read_frame(path: Path) -> pd.DataFrame:
    """A CSV file as a table.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no text, no table, a column that is given twice; pandas alone would give the second another name.
    """
    text = read_text(path)
    try:
        header = next(csv.reader(io.StringIO(text, newline="")), [])
        twice = next((name for name in header if header.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"the column {twice!r} is given twice")
        frame = pd.read_csv(io.StringIO(text))
    except (csv.Error, ValueError) as error:  # pandas' own errors of tables are ValueErrors
        raise ValueError(f"{path} is no table: {error}") from None
    if not isinstance(frame.index, pd.RangeIndex):
        raise ValueError(f"{path} is no table: its rows have more cells than its header has columns ({len(header)})")
    return frame

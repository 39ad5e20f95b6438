"""Tables of policies from outside: CSV with any usual separator, Parquet, a campaign's store; each cell checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from waveq._reading import require_regular
from waveq.codesign.frames import read_frame, require_numbers
from waveq.codesign.score import OBJECTIVES

__all__ = ["MEAN_BITS", "check_table", "is_campaign", "read_any"]

MEAN_BITS = "mean_bits"
"""What a policy of a campaign costs: no machine is known there."""
_MOST_BITS = 32


def is_campaign(path: Path) -> bool:
    """Whether a file is an SQLite database."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(16) == b"SQLite format 3\0"


def read_any(path: Path, *, numbers: Sequence[str] = ()) -> pd.DataFrame:
    """A table from a CSV or Parquet file, or from a campaign's store: that one has the column "mean_bits" too.

    Args:
        path: the file.
        numbers: columns that must be there, of finite numbers.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no table of that kind; the message names the file.
        ModuleNotFoundError: Parquet without pyarrow.
    """
    if not is_campaign(path) and path.suffix != ".parquet":
        return read_frame(path, numbers=numbers)
    frame = _read_campaign(path) if is_campaign(path) else _read_parquet(path)
    for name in numbers:
        require_numbers(path, frame, name)
    return frame


def _read_campaign(path: Path) -> pd.DataFrame:
    from pareto import Store

    with Store.read(path) as store:
        frame = store.frame()
        if MEAN_BITS in frame.columns:
            return frame
        return frame.assign(**{MEAN_BITS: frame[list(store.layers)].mean(axis=1)})


def _read_parquet(path: Path) -> pd.DataFrame:
    require_regular(path)
    try:
        return pd.read_parquet(path)
    except ImportError:
        raise ModuleNotFoundError(
            "reading Parquet needs pyarrow: pip install 'waveq[parquet]'", name="pyarrow"
        ) from None
    except Exception as error:  # pyarrow's own, which this package does not know
        raise ValueError(f"{path} is no Parquet file: {error}") from None


def check_table(path: Path, frame: pd.DataFrame, *, layers: Sequence[str] = (), costs: Sequence[str] = ()) -> None:
    """Refuse what cannot be a table of policies, with file and row.

    Args:
        path: where it comes from, for messages.
        frame: one row a policy.
        layers: its columns of bits: whole numbers from 1 to 32, no two rows alike.
        costs: further columns that must be finite numbers, beside "energy_pj", "cycles" and "weight_bytes".

    Raises:
        ValueError: a column given twice; no row; an accuracy outside 0 to 100; a cost that is not finite; bits that are
            none; a policy given twice.

    Example:
        >>> check_table(Path("a.csv"), pd.DataFrame({"fc": [2, 258]}), layers=["fc"])
        Traceback (most recent call last):
        ValueError: a.csv: fc is 258 in row 2 (line 3 of a CSV file); bits are whole numbers from 1 to 32
    """
    if not frame.columns.is_unique:
        raise ValueError(f"{path}: the column {frame.columns[frame.columns.duplicated()][0]!r} is given twice")
    if frame.empty:
        raise ValueError(f"{path}: no policy is in it")
    if "accuracy" in frame.columns:
        values = _numbers(frame["accuracy"])
        _require(path, frame, "accuracy", (values >= 0) & (values <= 100), "accuracies are percent, from 0 to 100")
    for name in dict.fromkeys([*OBJECTIVES, *costs]):
        if name in frame.columns:
            _require(path, frame, name, np.isfinite(_numbers(frame[name])), "a finite number is expected")
    for name in layers:
        values = _numbers(frame[name])
        right = (values >= 1) & (values <= _MOST_BITS) & (values == np.round(values))
        _require(path, frame, name, right, f"bits are whole numbers from 1 to {_MOST_BITS}")
    if layers:
        twice = np.flatnonzero(frame.duplicated(list(layers)))
        if twice.size:
            policy = {name: int(frame[name].iloc[twice[0]]) for name in layers}
            raise ValueError(f"{path}: {_place(int(twice[0]))} has a policy for the second time: {policy}")


def _numbers(column: pd.Series) -> npt.NDArray[np.float64]:
    """NaN where a cell is none; truth values are none either."""
    if column.dtype == bool:
        return np.full(len(column), np.nan)
    return pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)


def _require(path: Path, frame: pd.DataFrame, name: str, right: npt.NDArray[np.bool_], wanted: str) -> None:
    if not right.all():
        row = int(np.argmin(right))
        cell = frame[name].iloc[row]
        shown = "empty" if pd.isna(cell) else repr(cell) if isinstance(cell, str) else str(cell)
        raise ValueError(f"{path}: {name} is {shown} in {_place(row)}; {wanted}")


def _place(row: int) -> str:
    return f"row {row + 1} (line {row + 2} of a CSV file)"

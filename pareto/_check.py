"""What the public doors of this package share: user input into plain arrays, and what is wrong with it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

__all__ = [
    "EXACT_INTEGER",
    "SENSES",
    "Floats",
    "Sense",
    "as_pandas",
    "check_choice",
    "nearest",
    "objective_columns",
    "points_array",
    "sense_list",
    "sense_signs",
]

Floats = npt.NDArray[np.float64]
Sense = Literal["max", "min"]
SENSES = ("max", "min")
_FEW_VALUES = 4096
EXACT_INTEGER = 2**53  # integers up to here are exact as float64, in which objectives are compared


def nearest(name: object, known: Iterable[object]) -> str:
    """A hint such as ``"; did you mean 'conv1'?"``, or what there is to choose from.

    >>> nearest("energy", ["accuracy", "energy_pj"])
    "; did you mean 'energy_pj'?"
    """
    names = [str(entry) for entry in known]
    hint = _suggestion(name, names)
    if hint:
        return hint
    shown = ", ".join(repr(entry) for entry in names[:12])
    return f"; known: {shown}{', ...' if len(names) > 12 else ''}"


def as_pandas(table: Any) -> pd.DataFrame | None:
    """A table of pandas, polars or pyarrow as pandas has it; None for anything else.

    >>> as_pandas([[1, 2]]) is None
    True
    """
    if isinstance(table, pd.DataFrame):
        return table
    library, kind = type(table).__module__.partition(".")[0], type(table).__name__
    if library == "polars" and kind == "LazyFrame":
        raise TypeError("a polars LazyFrame holds no rows yet: collect() it first")
    if library == "polars" and kind == "DataFrame":
        return pd.DataFrame({name: table[name].to_numpy() for name in table.columns})
    if library == "pyarrow" and kind in ("Table", "RecordBatch"):
        return cast(pd.DataFrame, table.to_pandas())
    return None


def check_choice(argument: str, value: object, allowed: Sequence[str]) -> None:
    """Refuse a `value` that is not one of the `allowed` words.

    >>> check_choice("keep", "al", ("all", "first"))
    Traceback (most recent call last):
    ...
    ValueError: keep must be one of 'all', 'first', got 'al'; did you mean 'all'?
    """
    if value not in allowed:
        listed = ", ".join(repr(entry) for entry in allowed)
        raise ValueError(f"{argument} must be one of {listed}, got {value!r}{_suggestion(value, allowed)}")


def _suggestion(name: object, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(str(name), known, n=1)
    close = close or [entry for entry in known if entry and str(name).lower().startswith(entry)]  # "maximize"
    return f"; did you mean {close[0]!r}?" if close else ""


def sense_list(sense: object, columns: Sequence[str]) -> list[Sense]:
    """One of "max", "min" per objective, from a sequence in column order or a mapping by column name."""
    if isinstance(sense, str) or not isinstance(sense, (Mapping, Sequence)):
        raise TypeError(f"sense must be a sequence, or a mapping by name, of 'max' and 'min', got {sense!r}")
    if isinstance(sense, Mapping):
        for name in sense:
            if name not in columns:
                raise ValueError(f"sense names {name!r}, which is not an objective{nearest(name, columns)}")
        missing = [name for name in columns if name not in sense]
        if missing:
            raise ValueError(f"sense does not say 'max' or 'min' for {missing[0]!r}")
        given = [sense[name] for name in columns]
    else:
        given = list(sense)
    if len(given) != len(columns):
        raise ValueError(f"sense must have one entry for each of {len(columns)} objectives, it has {len(given)}")
    for entry in given:
        check_choice("each entry of sense", entry, SENSES)
    return cast(list[Sense], given)


def sense_signs(sense: Sequence[Sense]) -> Floats:
    """+1 where an objective is minimised, -1 where maximised: multiplied by it, smaller is better."""
    return np.array([1.0 if entry == "min" else -1.0 for entry in sense])


def objective_columns(frame: pd.DataFrame, sense: object) -> tuple[list[str], list[Sense]]:
    """The objective columns that a mapping `sense` names, with their senses, in its order."""
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(f"frame must be a pandas DataFrame, got {type(frame).__name__}")
    if not isinstance(sense, Mapping) or not sense:
        raise TypeError(f"sense must be a mapping such as {{'accuracy': 'max', 'energy_pj': 'min'}}, got {sense!r}")
    for name in sense:
        if name not in frame.columns:
            raise ValueError(f"sense names column {name!r}, which the frame lacks{nearest(name, frame.columns)}")
    columns = list(sense)
    return columns, sense_list(sense, columns)


def points_array(points: Any, argument: str = "points") -> tuple[Floats, list[str]]:
    """An (N, M) float64 array, shared with the input where possible and never written to, and its column
    names.

    Raises ValueError for a wrong shape, NaN (with its row), or integers that float64 cannot hold.
    """
    frame = as_pandas(points)
    names = None if frame is None else list(frame.columns)
    raw = _unmasked(points, argument) if frame is None else _numbers_of(frame, argument)
    if raw.ndim != 2 or raw.shape[1] == 0:
        raise ValueError(f"{argument} must have shape (rows, objectives), got shape {raw.shape}")
    if _beyond_exact(raw):
        raise ValueError(f"{argument} holds integers beyond 2**53, which float64 cannot compare exactly")
    if raw.dtype.kind not in "biuf":
        try:
            raw = _real(raw)
        except (TypeError, ValueError):
            raise TypeError(f"{argument} must hold real numbers, its dtype is {raw.dtype}") from None
    array = np.asarray(raw, dtype=np.float64)
    names = [str(column) for column in range(array.shape[1])] if names is None else names
    _refuse_nan(array, names, argument)
    return array, names


def _unmasked(points: Any, argument: str) -> npt.NDArray[Any]:
    if isinstance(points, np.ma.MaskedArray) and np.ma.is_masked(points):
        row = int(np.argwhere(np.ma.getmaskarray(points))[0][0])
        raise ValueError(f"{argument}: row {row} is masked; fill or drop such rows")
    return np.asarray(points)


def _numbers_of(frame: pd.DataFrame, argument: str) -> npt.NDArray[Any]:
    """The values of a frame, NaN where pandas has NA; each column is looked at before all get one dtype."""
    if all(isinstance(dtype, np.dtype) and dtype.kind == "f" for dtype in frame.dtypes.array):
        return frame.to_numpy()  # a look at each column takes longer than a small front
    plain = True
    for place, name in enumerate(frame.columns):
        column = frame.iloc[:, place]
        if not pd.api.types.is_numeric_dtype(column.dtype) or pd.api.types.is_complex_dtype(column.dtype):
            raise TypeError(f"{argument}: column {name!r} must hold real numbers, its dtype is {column.dtype}")
        plain = plain and isinstance(column.dtype, np.dtype)
        if pd.api.types.is_integer_dtype(column.dtype) and _beyond_exact(column.dropna().to_numpy()):
            raise ValueError(f"{argument}: column {name!r} holds integers beyond 2**53, which float64 cannot hold")
    return frame.to_numpy() if plain else frame.to_numpy(dtype=np.float64, na_value=np.nan)


def _beyond_exact(raw: npt.NDArray[Any]) -> bool:
    if raw.dtype.kind == "O":
        return any(isinstance(cell, int) and abs(cell) > EXACT_INTEGER for cell in raw.flat)
    return raw.dtype.kind in "iu" and raw.size > 0 and max(abs(int(raw.min())), abs(int(raw.max()))) > EXACT_INTEGER


def _real(raw: npt.NDArray[Any]) -> Floats:
    if raw.dtype.kind == "c":
        raise TypeError("an imaginary part would be lost")
    return raw.astype(np.float64)


def _refuse_nan(array: Floats, names: Sequence[str], argument: str) -> None:
    # A sum is NaN when any term is, and needs no mask of N booleans; infinities of both signs also make
    # one, so a suspicious sum is looked at again. Few values are quicker masked than added up with warnings off.
    if array.size > _FEW_VALUES:
        with np.errstate(invalid="ignore", over="ignore"):
            suspicious = np.isnan(array.sum())
    else:
        suspicious = np.isnan(array).any()
    if not suspicious:
        return
    rows, columns = np.nonzero(np.isnan(array))
    if rows.size:
        row, column = int(rows[0]), names[int(columns[0])]
        raise ValueError(
            f"{argument}: row {row} is NaN in column {column!r} ({len(np.unique(rows))} such rows); "
            "drop or fill them, because NaN neither dominates nor is dominated"
        )

"""Means with standard errors, as text for people, Markdown for the README, CSV and JSON for programs."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks._report import write_json

__all__ = ["as_rows", "markdown", "mean_and_error", "pivot", "save_table", "with_error"]

_KEPT = ("test", "validation", "mean_bits", "energy_pj", "cycles", "diverged")


def as_rows(labels: Sequence[Mapping[str, Any]], results: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row a training: what it is called, what it reached, and its bits in one word."""
    return pd.DataFrame(
        [
            {**label, "policy": " ".join(map(str, result["bits"].values())), **{key: result[key] for key in _KEPT}}
            for label, result in zip(labels, results, strict=True)
        ]
    )


def with_error(values: Sequence[float] | pd.Series[float], digits: int = 2) -> str:
    """ "87.31 (0.12)": the mean, and in brackets its standard error; none for a single value.

    Example:
        >>> with_error([1.0, 2.0, 3.0])
        '2.00 (0.58)'
    """
    mean, error = mean_and_error(values)
    return f"{mean:.{digits}f}" + ("" if pd.isna(error) else f" ({error:.{digits}f})")


def mean_and_error(values: Sequence[float] | pd.Series[float]) -> tuple[float, float]:
    """The mean and its standard error over seeds."""
    series = pd.Series(list(values), dtype=float)
    return float(series.mean()), float(series.std() / len(series) ** 0.5)


def pivot(rows: pd.DataFrame, index: Sequence[str], columns: str, value: str = "test") -> pd.DataFrame:
    """One cell for each pair of index and column, mean (standard error) over what is left, in order of appearance."""
    cells = rows.pivot_table(index=list(index), columns=columns, values=value, aggfunc=with_error, sort=False)
    return cells.reindex(columns=list(dict.fromkeys(rows[columns])))


def markdown(columns: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """A table for the README.

    Example:
        >>> print(markdown(["bits", "test"], [[2, "81.0 (0.2)"]]))
        | bits | test |
        |---|---|
        | 2 | 81.0 (0.2) |
    """
    head = ["| " + " | ".join(map(str, columns)) + " |", "|" + "---|" * len(columns)]
    return "\n".join(head + ["| " + " | ".join(map(str, line)) + " |" for line in lines])


def save_table(name: str, table: pd.DataFrame, rows: pd.DataFrame, args: argparse.Namespace, **facts: Any) -> None:
    """Print a table; write it and the rows behind it as NAME.json with versions and arguments, the rows as NAME.csv."""
    print(table.to_string())
    out: Path = args.out
    out.mkdir(parents=True, exist_ok=True)
    rows.to_csv(out / f"{name}.csv", index=False)
    flat = table.reset_index()
    shown = {
        "columns": [str(column) for column in flat.columns],
        "lines": [["-" if pd.isna(cell) else str(cell) for cell in line] for line in flat.to_numpy()],
    }
    hidden = {"out", "folder", "data_dir", "processes"}
    arguments = {key: value for key, value in vars(args).items() if key not in hidden}
    every = {"columns": list(rows.columns), "lines": rows.astype(object).where(rows.notna(), None).to_numpy().tolist()}
    write_json(out / f"{name}.json", {"arguments": arguments, **facts, "table": shown, "rows": every})

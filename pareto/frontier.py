"""Which rows are efficient.

A row dominates another when it is at least as good in every objective and better in one. A row is efficient
when no row dominates it. The rule for ties follows: equal rows never dominate each other, so all copies of an
efficient row are efficient (`keep="first"` leaves one).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from pareto._check import Floats, as_pandas, check_choice, objective_columns, points_array, sense_list, sense_signs
from pareto._kernels_2d import efficient_2d
from pareto._kernels_3d import efficient_3d
from pareto._kernels_nd import efficient_nd
from pareto._window import few_efficient

__all__ = ["frontier", "is_efficient"]


def is_efficient(
    points: Any,
    *,
    sense: Sequence[str] | Mapping[str, str],
    keep: Literal["all", "first"] = "all",
) -> npt.NDArray[np.bool_]:
    """Mark the efficient rows of (N, M) objective values.

    Args:
        points: array or frame (pandas, polars, pyarrow) of N rows and M objectives, compared as float64. Infinities
            are values like any other. Never written to.
        sense: "max" or "min" for each objective, in column order, or by column name for a frame.
        keep: of equal efficient rows, mark "all" or only the "first".

    Returns:
        (N,) booleans, in row order.

    Raises:
        ValueError: NaN (with its row number), a wrong shape, or a wrong sense.
        TypeError: values that are not numbers.

    >>> is_efficient([[90.0, 2.0], [90.0, 3.0], [95.0, 5.0], [95.0, 5.0]], sense=("max", "min")).tolist()
    [True, False, True, True]
    """
    check_choice("keep", keep, ("all", "first"))
    array, names = points_array(points)
    signs = sense_signs(sense_list(sense, names))
    mask = _efficient(array, signs)
    if keep == "first":
        rows = np.flatnonzero(mask)
        _, first = np.unique(array[rows], axis=0, return_index=True)
        mask = np.zeros(len(array), dtype=np.bool_)
        mask[rows[first]] = True
    return mask


def frontier(
    frame: Any,
    *,
    sense: Mapping[str, str],
    keep: Literal["all", "first"] = "all",
) -> pd.DataFrame:
    """The efficient rows of a frame, sorted by the objectives in the order of `sense`, values rising.

    A table of polars or pyarrow does too; the answer is one of pandas, its index the row numbers.

    Index labels and all columns stay as they are; `attrs["sense"]` remembers the objectives, which is how
    `plot` knows its axes. Raises what `is_efficient` raises, and ValueError for a column that the frame
    lacks.

    >>> frame = pd.DataFrame({"accuracy": [95, 80, 90], "energy_pj": [9, 3, 3]})
    >>> frontier(frame, sense={"accuracy": "max", "energy_pj": "min"})
       accuracy  energy_pj
    2        90          3
    0        95          9
    """
    table = as_pandas(frame)
    if table is None:
        raise TypeError(f"frame must be a table of pandas, polars or pyarrow, got {type(frame).__name__}")
    columns, senses = objective_columns(table, sense)
    front = table.loc[is_efficient(table[columns], sense=senses, keep=keep)]
    front = front.sort_values(columns, kind="stable")
    front.attrs["sense"] = {str(name): entry for name, entry in zip(columns, senses, strict=True)}
    return front


def _efficient(points: Floats, signs: Floats) -> npt.NDArray[np.bool_]:
    if points.shape[1] == 1:
        best = points[:, 0] * signs[0]
        return np.asarray(best == best.min(initial=np.inf))
    kernel = {2: efficient_2d, 3: efficient_3d}.get(points.shape[1], efficient_nd)
    found = few_efficient(points, signs)
    if found is None:
        return kernel(points, signs)
    rows, efficient = found
    mask = np.zeros(len(points), dtype=np.bool_)
    mask[rows] = True if efficient else kernel(points[rows], signs)
    return mask

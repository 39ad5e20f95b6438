"""The one door for arrays of policies: whole numbers of bits, one row a policy, one column a layer.

NumPy would turn 258 into 2 bits, 2.7 into 2, and a masked cell into whatever lies below the mask, each without a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pareto._check import as_pandas, nearest

__all__ = ["MAX_BITS", "Policies", "policy_rows"]

Policies = npt.NDArray[np.uint8]
MAX_BITS = 32  # wider than any stored weight: a larger number is a mistake in the input


def policy_rows(policies: Any, layers: Sequence[str], argument: str = "policies") -> Policies:
    """Policies as a (n, L) uint8 array, shared with the input where that is one already.

    Args:
        policies: an array or nested sequence of whole numbers in 1..32, whatever their type; or a frame (pandas,
            polars, pyarrow) whose columns are the layers, in any order.
        layers: the L names, in order.
        argument: what to call the policies in messages.

    Raises:
        TypeError: truth values, complex numbers, texts.
        ValueError: another shape, other columns; a cell that is masked, no whole number, or outside 1..32 (with row and
            layer).

    >>> policy_rows([[2.0, 3.0]], ("conv", "fc"))
    array([[2, 3]], dtype=uint8)
    >>> policy_rows([[2, 258]], ("conv", "fc"))
    Traceback (most recent call last):
    ...
    ValueError: policies: row 0 gives layer 'fc' 258 bits; bit widths are whole numbers in 1..32
    """
    frame = as_pandas(policies)
    raw = np.ma.asarray(policies) if frame is None else _in_order(frame, layers, argument)
    if raw.ndim != 2 or raw.shape[1] != len(layers):
        raise ValueError(f"{argument} must have shape (n, {len(layers)}), got {raw.shape}")
    if isinstance(raw, np.ma.MaskedArray):
        if np.ma.is_masked(raw):
            row, layer = np.argwhere(np.ma.getmaskarray(raw))[0]
            raise ValueError(f"{argument}: row {row} is masked in layer {layers[layer]!r}; fill or drop such rows")
        raw = raw.data
    if raw.dtype.kind not in "iufO" and raw.size:
        raise TypeError(f"{argument} must hold whole numbers of bits, the dtype is {raw.dtype}")
    if raw.dtype.kind in "iu" and raw.size and raw.min() >= 1 and raw.max() <= MAX_BITS:  # quick: most are right
        return np.ascontiguousarray(raw, dtype=np.uint8)
    wrong = np.argwhere(~_right(raw))
    if wrong.size:
        row, layer = wrong[0]
        shown = raw[row, layer].item() if isinstance(raw[row, layer], np.generic) else raw[row, layer]
        raise ValueError(
            f"{argument}: row {row} gives layer {layers[layer]!r} {shown!r} bits; bit widths are whole numbers in "
            f"1..{MAX_BITS}"
        )
    return np.ascontiguousarray(raw, dtype=np.uint8)


def _right(raw: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    if raw.dtype.kind == "O":
        cells = [isinstance(cell, Integral | float) and not isinstance(cell, bool) and _one(cell) for cell in raw.flat]
        return np.array(cells, dtype=np.bool_).reshape(raw.shape)
    with np.errstate(invalid="ignore"):
        inside = (raw >= 1) & (raw <= MAX_BITS)
        return inside & (raw == np.floor(raw)) if raw.dtype.kind == "f" else inside


def _one(cell: Any) -> bool:
    return bool(1 <= cell <= MAX_BITS and int(cell) == cell)


def _in_order(frame: pd.DataFrame, layers: Sequence[str], argument: str) -> npt.NDArray[Any]:
    """The columns in the order of the layers."""
    for name in frame.columns:
        if name not in layers:
            raise ValueError(f"{argument} has column {name!r}, which is no layer{nearest(name, layers)}")
    for name in layers:
        if name not in frame.columns:
            raise ValueError(f"{argument} has no column for layer {name!r}")
    if not frame.columns.is_unique:
        raise ValueError(f"{argument} has column {frame.columns[frame.columns.duplicated()][0]!r} twice")
    return frame[list(layers)].to_numpy()

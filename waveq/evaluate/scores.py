"""From class scores to predictions: torch.argmax, and a compiled twin for the small score tables of a CPU."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from waveq._kernels.jit import compiled

__all__ = ["count_hits", "mark_hits", "predicted_classes"]

_Scores = npt.NDArray[np.floating]
_COMPILED = (torch.float32, torch.float64)


def predicted_classes(scores: Tensor) -> npt.NDArray[np.int64]:
    """(n,) class with the highest score of each row of (n, classes); the first of equals, a NaN before any number.

    Example:
        >>> predicted_classes(torch.tensor([[0.1, 0.7, 0.7], [2.0, 1.0, 0.0]])).tolist()
        [1, 0]
    """
    if scores.device.type != "cpu" or scores.dtype not in _COMPILED:
        found: npt.NDArray[np.int64] = scores.argmax(dim=1).cpu().numpy()
        return found
    classes = np.empty(len(scores), dtype=np.int64)
    _argmax_rows(scores.numpy(), classes)
    return classes


def count_hits(scores: Tensor, labels: npt.NDArray[np.int64]) -> int:
    """In how many of the n rows the predicted class is the label.

    Example:
        >>> count_hits(torch.tensor([[0.1, 0.7], [2.0, 1.0]]), np.array([1, 1]))
        1
    """
    if scores.device.type != "cpu" or scores.dtype not in _COMPILED:
        return int((predicted_classes(scores) == labels).sum())
    return int(_count_rows(scores.numpy(), labels))


def mark_hits(scores: Tensor, labels: npt.NDArray[np.int64], right: npt.NDArray[np.bool_]) -> None:
    """Write into ``right`` (n,) in which of the n rows the predicted class is the label.

    Example:
        >>> right = np.empty(2, dtype=np.bool_)
        >>> mark_hits(torch.tensor([[0.1, 0.7], [2.0, 1.0]]), np.array([1, 1]), right)
        >>> right.tolist()
        [True, False]
    """
    if scores.device.type != "cpu" or scores.dtype not in _COMPILED:
        right[:] = predicted_classes(scores) == labels
    else:
        _mark_rows(scores.numpy(), labels, right)


@compiled
def _argmax(scores: _Scores, row: int) -> int:
    best, where = scores[row, 0], 0
    for column in range(1, scores.shape[1]):
        value = scores[row, column]
        if value > best or (value != value and best == best):
            best, where = value, column
    return where


@compiled
def _argmax_rows(scores: _Scores, classes: npt.NDArray[np.int64]) -> None:
    for row in range(scores.shape[0]):
        classes[row] = _argmax(scores, row)


@compiled
def _count_rows(scores: _Scores, labels: npt.NDArray[np.int64]) -> int:
    hits = 0
    for row in range(scores.shape[0]):
        hits += _argmax(scores, row) == labels[row]
    return hits


@compiled
def _mark_rows(scores: _Scores, labels: npt.NDArray[np.int64], right: npt.NDArray[np.bool_]) -> None:
    for row in range(scores.shape[0]):
        right[row] = _argmax(scores, row) == labels[row]

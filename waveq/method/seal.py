"""Whole numbers that somebody averaged: how they are found out.

Moving averages of models (``AveragedModel(use_buffers=True)``) average bits and steps as if they were weights, and
round what comes out. A seal is a large number that follows from the state, and averages of seals are no seals. A state
that was written without touching its seal is taken as meant.
"""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

__all__ = ["seal_of", "warn_averaged", "was_averaged"]

_SIZE = 2**61 - 1
_FACTOR = 0x9E3779B97F4A7C15


def seal_of(*values: int) -> int:
    """A number below 2^61 that looks like no function of the values.

    Example:
        >>> seal_of(3, 1) == seal_of(3, 1), seal_of(3, 1) == seal_of(4, 0)
        (True, False)
    """
    seal = 1
    for value in values:
        seal = (seal + int(value) + 1) * _FACTOR % _SIZE
    return seal ^ (seal >> 29)


def was_averaged(seal: Tensor, known: int, *values: int) -> bool:
    """Whether a seal is neither the one that is known nor that of the values that it came with.

    Args:
        seal: as it is now, 0-dim.
        known: as the run wrote it last.
        values: the state that it stands beside.

    Example:
        >>> was_averaged(torch.tensor(seal_of(3)), seal_of(2), 3), was_averaged(torch.tensor(seal_of(3) - 9), 0, 3)
        (False, True)
    """
    found, right = seal.item(), seal_of(*values)
    if not seal.is_floating_point():
        return found not in (known, right)
    if not math.isfinite(found):  # a copy in half precision, where it has no place
        return False
    return all(abs(found - own) > 4 * torch.finfo(seal.dtype).eps * own for own in (known, right))


def warn_averaged(found: str, restored: str) -> None:
    """Say what was found and what stands there again."""
    warnings.warn(
        f"somebody averaged whole numbers of a quantised model ({found}); they are as they were before ({restored}). "
        "Average with use_buffers=False, which copies buffers; wq.finalize_copy(copy) finishes an averaged copy.",
        stacklevel=3,
    )

"""The scale of weights that lie on evenly spaced levels, found in the weights alone, to the last bit.

A policy keeps one scale a layer and none a channel, and a fine-tuned network has others: what the weights are is the
one source that is always right. With the largest weight taken for n steps, each value v that is k steps away leaves
an interval for the scale, (|v| - ulp/2) / k to (|v| + ulp/2) / k; the scale lies where all of them meet.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["find_scales"]

_NEIGHBOURS = 4  # numbers on both sides of the middle of what is left; the true scale is no farther


def find_scales(rows: Tensor, bits: int, offset: float, told: float | None = None) -> Tensor | None:
    """(R,) scales at which each row is exactly scale * (code + offset), codes from -2^(B-1) to 2^(B-1) - 1.

    The product is rounded once, in float32 at least, and then to the dtype of the rows.

    Args:
        rows: (R, n) weights, floating.
        bits: B.
        offset: 0, or 1/2 where zero lies midway between two levels.
        told: what somebody says the scale of a single row is; tried first, because numbers of 8 digits (bfloat16) at 9
            bits leave hardly a trace of it.

    Returns:
        float32, float64 for rows of that; None where a row lies on no such grid.

    Example:
        >>> find_scales(torch.tensor([[0.5, -1.5, 1.0], [0.0, 0.25, 0.75]]), 3, 0.0).tolist()
        [0.5, 0.25]
        >>> find_scales(torch.tensor([[0.5, 0.75, 0.8]]), 3, 0.0) is None
        True
    """
    values = _values(rows, 2**bits)
    if values is None:
        return None
    if told is not None and len(rows) == 1:
        found = _fitting(values[0], torch.tensor(told, dtype=_wide(rows.dtype)), bits, offset)
        if bool(found > 0.0):
            return found.reshape(1).to(rows.device)
    most = 2.0 ** (bits - 1)
    top = torch.tensor([most - 1.0 if offset == 0.0 else most - offset])  # of methods whose levels end at max|w|
    counts = torch.arange(1.0 - offset, most + 1.0)
    found = _scales(values, top, bits, offset) if top[0] > 0 else torch.zeros(len(values), dtype=_wide(rows.dtype))
    missing = (found == 0.0).nonzero()[:, 0]
    if len(missing):
        found[missing] = _scales(values[missing], counts, bits, offset)
    return found.to(rows.device) if bool((found > 0.0).all()) else None


def _values(rows: Tensor, most: int) -> Tensor | None:
    """(R, m) the values of each row by their size, the largest repeated; None where a row has more than ``most``."""
    each: list[Tensor] = [torch.unique(row) for row in rows.detach().cpu().unbind()]
    longest = max(len(values) for values in each)
    if longest > most:
        return None
    ordered = [values[values.abs().argsort()] for values in each]
    return torch.stack([torch.cat([values, values[-1:].expand(longest - len(values))]) for values in ordered])


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype is torch.float64 else torch.float32


def _scales(values: Tensor, counts: Tensor, bits: int, offset: float) -> Tensor:
    """(R,) the largest scale that fits each row of (R, m) values, 0 where none does.

    Args:
        values: ascending in size.
        counts: (n,), how many steps the largest value may be away from zero.
    """
    if not values.numel():
        return torch.zeros(len(values), dtype=_wide(values.dtype))
    size, counts = values.double().abs(), counts.double()
    least, most = _ends(size, torch.finfo(values.dtype).eps)
    low, high = least[:, -1:] / counts, most[:, -1:] / counts
    for column in range(values.shape[1]):
        at = slice(column, column + 1)
        steps = torch.round(size[:, at] / ((low + high) / 2) - offset) + offset  # the grid is symmetric
        low = torch.where(steps > 0, torch.maximum(low, least[:, at] / steps), low)
        high = torch.where(steps > 0, torch.minimum(high, most[:, at] / steps), high)
    found = torch.zeros(len(values), dtype=_wide(values.dtype))
    for column in range(len(counts)):
        alive = (low[:, column] <= high[:, column] * (1 + 1e-15)).logical_and(found == 0.0)
        for row in alive.nonzero()[:, 0].tolist():
            middle = ((low[row, column] + high[row, column]) / 2).to(found.dtype)
            found[row] = _fitting(values[row], middle, bits, offset)
    zero = (values == 0.0).all(dim=1)
    found[zero] = 1.0 if offset == 0.0 else 0.0
    return found


def _ends(size: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Between which numbers, float64, all that is rounded to ``size`` lies; the gap below a power of two is half."""
    fraction, exponent = torch.frexp(size)
    half = torch.ldexp(torch.full_like(size, eps), exponent - 2)
    return size - torch.where(fraction == 0.5, half / 2, half), size + half


def _fitting(values: Tensor, middle: Tensor, bits: int, offset: float) -> Tensor:
    """The one of a few neighbouring numbers that gives exactly the values, or 0."""
    ulp = torch.nextafter(middle, middle.new_tensor(torch.inf)) - middle
    distances = torch.arange(-_NEIGHBOURS, _NEIGHBOURS + 1, device=values.device).to(middle.dtype)
    candidates = (middle + distances[distances.abs().argsort()] * ulp)[:, None]
    codes = torch.round(values.to(middle.dtype) / candidates - offset)
    exact = ((candidates * (codes + offset)).to(values.dtype) == values) & (codes.abs() <= 2.0 ** (bits - 1))
    fits = (exact & (codes < 2.0 ** (bits - 1))).all(dim=1) & (candidates[:, 0] > 0)
    return candidates[fits.long().argmax(), 0] if bool(fits.any()) else middle.new_zeros(())

"""Levels that are sums of a learned basis, v^T e with binary e, and the fit of the basis to data (LQ-Nets)."""

from __future__ import annotations

import torch
from torch import Tensor

from waveq.quantizers._piecewise import thresholds_below

__all__ = ["assign", "binary_codes", "fit_basis", "moved_basis", "sorted_levels"]

_RIDGE = 1e-4  # share of the sample; keeps directions that the codes do not determine where they are
_MEMORY = 0.9  # of the basis, at each step of training


def binary_codes(bits: int, *, signed: bool, like: Tensor) -> Tensor:
    """All 2^K codes e, (2^K, K), of -1 and 1 (signed) or of 0 and 1; dtype and device of ``like``.

    Example:
        >>> binary_codes(2, signed=False, like=torch.zeros(())).tolist()
        [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    """
    number = torch.arange(2**bits, device=like.device)[:, None]
    digit = (number >> torch.arange(bits, device=like.device)) & 1
    return (2 * digit - 1 if signed else digit).to(like.dtype)


def sorted_levels(basis: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """The levels v^T e of each row in ascending order, (rows, 2^K), and the code of each, (rows, 2^K)."""
    sums = (basis[:, None, :] * codes).sum(dim=2)  # no matrix product: mixed precision would round it
    levels, order = torch.sort(sums, dim=1)
    return levels, order


def assign(values: Tensor, levels: Tensor) -> Tensor:
    """Index of the nearest level of each value, row by row; thresholds lie midway between levels.

    Example:
        >>> assign(torch.tensor([[-1.0, 0.4, 0.6, 5.0]]), torch.tensor([[0.0, 1.0, 3.0]])).tolist()
        [[0, 0, 1, 2]]
    """
    return thresholds_below(values, (levels[:, 1:] + levels[:, :-1]) / 2)


def fit_basis(values: Tensor, index: Tensor, signs: Tensor, basis: Tensor) -> Tensor:
    """argmin_v |x - v^T B|^2 + ridge |v - v_now|^2 for each row: v = (B B^T + ridge I)^-1 (B x + ridge v_now).

    B B^T alone is singular where two bits always agree, or where a row has fewer values than bits. Values on one level
    have one code: it is enough to know how many there are and their sum.

    Args:
        values: x, (rows, n).
        index: the level of each value, (rows, n).
        signs: the code of each level, (rows, levels, K).
        basis: v_now, (rows, K).
    """
    rows, levels, _ = signs.shape
    place = (index + levels * torch.arange(rows, device=index.device)[:, None]).flatten()
    count = torch.bincount(place, minlength=rows * levels).view(rows, levels).to(basis.dtype)
    total = torch.zeros(rows * levels, device=values.device, dtype=torch.float64)
    total = total.scatter_add_(0, place, values.flatten().double()).view(rows, levels).to(basis.dtype)
    ridge = _RIDGE * values.shape[1]
    with torch.autocast(device_type=values.device.type, enabled=False):
        gram = (signs.transpose(1, 2) * count[:, None]) @ signs
        gram = gram + ridge * torch.eye(basis.shape[1], device=basis.device, dtype=basis.dtype)
        target = (signs.transpose(1, 2) @ total[:, :, None])[:, :, 0] + ridge * basis
        fitted: Tensor = torch.linalg.solve(gram, target)
    return fitted


def moved_basis(values: Tensor, basis: Tensor, codes: Tensor, *, memory: float = _MEMORY) -> Tensor:
    """One round of the paper's algorithm: assign codes, fit the basis, take 1 - memory of the fit (algorithm 1).

    Example:
        >>> x, codes = torch.tensor([[-3.0, -1.0, 1.0, 3.0]]), binary_codes(2, signed=True, like=torch.zeros(()))
        >>> moved_basis(x, torch.tensor([[0.8, 2.1]]), codes, memory=0.0).round(decimals=3).tolist()
        [[1.0, 2.0]]
    """
    levels, order = sorted_levels(basis, codes)
    return memory * basis + (1.0 - memory) * fit_basis(values, assign(values, levels), codes[order], basis)

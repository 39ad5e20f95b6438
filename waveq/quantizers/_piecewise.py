"""The wave's coordinate where levels are not equally far apart: linear between knots, one knot a level or threshold."""

from __future__ import annotations

import torch
from torch import Tensor

from waveq.quantizers.base import TINY, straight_through

__all__ = ["piecewise_coordinate", "thresholds_below"]

_STEEPEST = 10.0  # times the mean slope
_FEW = 16  # thresholds up to which comparing with each is faster than a binary search


def thresholds_below(values: Tensor, thresholds: Tensor) -> Tensor:
    """How many of its row's ascending thresholds each value exceeds, int64; ``searchsorted``, faster for a few.

    Example:
        >>> thresholds_below(torch.tensor([[-1.0, 0.5, 0.6, 5.0]]), torch.tensor([[0.5, 2.0]])).tolist()
        [[0, 0, 1, 2]]
    """
    if thresholds.shape[1] > _FEW:
        return torch.searchsorted(thresholds.contiguous(), values.contiguous())
    below = torch.zeros(values.shape, dtype=torch.uint8, device=values.device)
    for column in thresholds.unbind(dim=1):
        below += values > column[:, None]
    return below.long()


def piecewise_coordinate(values: Tensor, knots: Tensor, heights: Tensor) -> Tensor:
    """Linear interpolation, row by row, constant outside the outermost knots; the shape of values.

    The wave on this coordinate is zero at each knot that has a grid level for its height. Its pull grows with the
    slope, that is with how close the levels lie; where two levels (almost) coincide the slope in the gradient, not the
    value, is capped at 10 times the mean, lest the few weights between them be thrown out.

    Args:
        values: (rows, n).
        knots: (rows, m), ascending in each row; constants.
        heights: (m,), the coordinate at the knots, ascending.

    Example:
        >>> knots, heights = torch.tensor([[-1.0, 0.0, 4.0]]), torch.tensor([-1.0, 0.0, 1.0])
        >>> piecewise_coordinate(torch.tensor([[-0.5, 1.0, 9.0]]), knots, heights)
        tensor([[-0.5000,  0.2500,  1.0000]])
    """
    fixed, points = knots.detach(), values.detach()
    segment = thresholds_below(points, fixed[:, 1:-1])
    left = fixed.gather(1, segment)
    gap = fixed.gather(1, segment + 1) - left
    slope = (heights[segment + 1] - heights[segment]) / gap.clamp_min(TINY)
    along = points - left
    inside = (along >= 0.0) & (along <= gap)
    height = heights[segment] + torch.minimum(along.clamp_min(0.0), gap) * slope
    height = torch.where(points > fixed[:, -1:], heights[-1], height)  # the outermost knots may coincide
    height = torch.where(points < fixed[:, :1], heights[0], height)
    extent = (fixed[:, -1:] - fixed[:, :1]).clamp_min(TINY)
    steepest = _STEEPEST * (heights[-1] - heights[0]) / extent
    return straight_through(values * (torch.minimum(slope, steepest) * inside), height)

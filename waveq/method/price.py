"""Dual ascent: the price of a bit that takes the policy to its budget and holds it there.

A plain integral of the excess winds up while beta, whose speed is limited, is on its way, and overshoots by bits. So
the cost follows a ramp to the limit; the price is lambda_beta exp(p) (1 + pressure), where the pressure is the distance
from the ramp and p, the dual variable, moves slowly until no pressure is left.
"""

from __future__ import annotations

import math

__all__ = ["RAMP", "next_dual", "pressure", "price_factor"]

RAMP = 0.6  # share of phase 2 in which the cost comes down to the limit; the rest is for settling
_BAND = 0.02  # relative distance from the ramp at which the pressure is full
_RATE = 20.0  # how far p moves during phase 2 under full pressure
_RANGE = math.log(1e3)  # the price stays within this factor of where it began


def pressure(cost: float, *, start: float, limit: float, progress: float) -> float:
    """How far the cost lies above (+1) or below (-1) the ramp from ``start`` to ``limit``.

    Args:
        cost: of the present, real-valued bits.
        start: cost when phase 2 began.
        limit: the budget.
        progress: share of phase 2 that is over.

    Example:
        >>> pressure(8.0, start=8.0, limit=4.0, progress=0.0), pressure(8.0, start=8.0, limit=4.0, progress=0.3)
        (0.0, 1.0)
    """
    ramp = max(limit, start + (limit - start) * progress / RAMP)
    return min(1.0, max(-1.0, (cost / ramp - 1.0) / _BAND))


def price_factor(dual: float, pressure: float) -> float:
    """What the schedule's lambda_beta is multiplied with; nothing is paid two percent below the ramp.

    Args:
        dual: p, the logarithm of how far the price has moved.
        pressure: distance from the ramp, -1 to 1.

    Example:
        >>> price_factor(0.0, 0.0), price_factor(0.0, -1.0)
        (1.0, 0.0)
    """
    return math.exp(dual) * (1.0 + pressure)


def next_dual(dual: float, pressure: float, phase2_steps: int) -> float:
    """One step of the dual variable p.

    Args:
        dual: p before it.
        pressure: distance from the ramp, -1 to 1.
        phase2_steps: the length of phase 2, over which full pressure would move p by 20.

    Example:
        >>> next_dual(0.0, 1.0, 100)
        0.2
    """
    return min(_RANGE, max(-_RANGE, dual + _RATE * pressure / max(1, phase2_steps)))

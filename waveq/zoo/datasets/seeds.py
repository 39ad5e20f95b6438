"""Seeds made of several numbers."""

from __future__ import annotations

__all__ = ["mixed_seed"]

_MODULUS = (1 << 61) - 1  # a prime: the products below stay spread out, and fit a generator's seed


def mixed_seed(*parts: int) -> int:
    """One seed from several numbers; any change of any of them gives unrelated draws.

    Example:
        >>> mixed_seed(0, 1) == mixed_seed(0, 1), mixed_seed(0, 1) == mixed_seed(1, 0)
        (True, False)
    """
    state = 0x9E3779B97F4A7C15 % _MODULUS
    for part in parts:
        state = (state * 0xBF58476D1CE4E5B9 + part + 1) * 0x94D049BB133111EB % _MODULUS
    return state

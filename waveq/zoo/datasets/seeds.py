"""Seeds made of several numbers, and what is drawn from one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["drawn_from", "mixed_seed", "seed_all"]

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


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Within, what torch (on the CPU), NumPy's old functions and Python draw follows from the seed; then as before.

    Example:
        >>> with drawn_from(7):
        ...     first = torch.rand(2), random.random()
        >>> with drawn_from(7):
        ...     first[0].equal(torch.rand(2)), first[1] == random.random()
        (True, True)
    """
    kept = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002  (what others draw from)
    seed_all(seed)
    try:
        yield
    finally:
        torch.set_rng_state(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002
        random.setstate(kept[2])


def seed_all(seed: int) -> None:
    """Start the same three from a seed."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % (1 << 32))  # noqa: NPY002
    random.seed(seed)

"""Hypothesis strategies that several test files share."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

from waveq.functional import BETA_MAX, BETA_MIN, Grid

__all__ = ["betas", "grids", "total_bits", "weight_lists", "weights"]


def grids() -> st.SearchStrategy[Grid]:
    return st.sampled_from(list(Grid))


def total_bits(least: int = 1) -> st.SearchStrategy[int]:
    return st.integers(least, 9)


def betas(low: float = BETA_MIN, high: float = BETA_MAX) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False)


def weight_lists(*, largest: float = 2.0, max_size: int = 40) -> st.SearchStrategy[list[float]]:
    """Weights of trained layers, with zeros, repeated values and tiny ones among them."""
    one = st.one_of(
        st.floats(-largest, largest, allow_nan=False, width=32),
        st.sampled_from([0.0, -0.0, 1e-30, -1e-6, 0.5, -0.5, 1.0, -1.0]),
    )
    return st.lists(one, min_size=1, max_size=max_size)


def weights(*, largest: float = 2.0, dtype: torch.dtype = torch.float64) -> st.SearchStrategy[Tensor]:
    return weight_lists(largest=largest).map(lambda values: torch.tensor(values, dtype=dtype))

"""Slow twins of the method: published formulas transcribed literally, and answers found without any formula."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

__all__ = [
    "dorefa_activation",
    "dorefa_weight",
    "figure_strengths",
    "nearest_level",
    "wave_of_eq_2_5",
    "wrpn_weight",
    "zeros_by_search",
]


def wave_of_eq_2_5(u: float, beta: float, grid: str, order: int) -> float:
    """sin^2(pi u (2^beta - 1)) / 2^(k beta), or the wave of period S = 1/(2^beta - 1/2) shifted by half a period."""
    if grid == "mid-tread":
        angle = math.pi * u * (2**beta - 1)
    else:
        period = 1 / (2**beta - 0.5)
        angle = math.pi * (u + period / 2) / period
    return math.sin(angle) ** 2 / 2 ** (order * beta)


def zeros_by_search(function: Callable[[np.ndarray], np.ndarray], periods: float) -> np.ndarray:
    """Zeros of a non-negative function on [-1, 1], by sampling and narrowing: nothing is known but its values.

    Args:
        function: vectorised, float64 to float64.
        periods: at most so many zeros per unit, to sample densely enough.
    """
    samples = np.linspace(-1.0, 1.0, math.ceil(64 * (periods + 1)))
    values = function(samples)
    padded = np.concatenate([[np.inf], values, [np.inf]])
    lowest = np.flatnonzero((values <= padded[:-2]) & (values <= padded[2:]))
    low, high = samples[np.maximum(lowest - 1, 0)], samples[np.minimum(lowest + 1, len(samples) - 1)]
    for _ in range(80):  # ternary search in every bracket at once
        left, right = low + (high - low) / 3, high - (high - low) / 3
        goes_left = function(left) < function(right)
        low, high = np.where(goes_left, low, left), np.where(goes_left, right, high)
    # the search approaches an end of [-1, 1] without ever trying it
    found = np.concatenate([(low + high) / 2, [-1.0, 1.0]])
    found = np.sort(found[function(found) < 1e-12])
    return found[np.concatenate([[True], np.diff(found) > 1e-5])] if len(found) else found


def nearest_level(values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """The nearest level of each value, by trying all of them."""
    return levels[np.abs(values[..., None] - levels).argmin(axis=-1)]


def _quantize_k(x: np.ndarray, k: int) -> np.ndarray:
    """DoReFa eq. 5: r_o = round((2^k - 1) r_i) / (2^k - 1) for r_i in [0, 1]."""
    return np.round((2**k - 1) * x) / (2**k - 1)


def dorefa_weight(w: np.ndarray, k: int) -> np.ndarray:
    """DoReFa eq. 7 (k = 1) and 9: 2 quantize_k(tanh(w) / (2 max|tanh(w)|) + 1/2) - 1."""
    if k == 1:
        return np.where(w >= 0, 1.0, -1.0) * np.mean(np.abs(w))
    return 2 * _quantize_k(np.tanh(w) / (2 * np.max(np.abs(np.tanh(w)))) + 0.5, k) - 1


def dorefa_activation(a: np.ndarray, k: int) -> np.ndarray:
    """DoReFa eq. 11: quantize_k of the activation clipped to [0, 1]."""
    return _quantize_k(np.clip(a, 0, 1), k)


def wrpn_weight(w: np.ndarray, k: int) -> np.ndarray:
    """WRPN eq. 1: round((2^(k-1) - 1) clip(w, -1, 1)) / (2^(k-1) - 1)."""
    return np.round((2 ** (k - 1) - 1) * np.clip(w, -1, 1)) / (2 ** (k - 1) - 1)


def figure_strengths(i: float) -> tuple[float, float]:
    """Fig. 2e as its listing has it: rise 200, fall 500, s 10, Lw 1, Lb 0.05, hyperbolic tangents written out."""

    def tanh(x: float) -> float:
        return 1 - 2 / (math.exp(2 * x) + 1)

    f1 = 0.5 * (1 + tanh((i - 200) / 10))
    f2 = 0.5 * (1 + tanh((i - 500) / 10))
    return 1.0 * f1, 0.05 * (f1 - f2)

"""The loops over activations: clip and round, and the gradient within the range."""

from __future__ import annotations

from typing import Any

import numpy as np

from waveq._kernels.cpu.loops import chunk_of
from waveq._kernels.cpu.scalars import clip, jit_loop, whole, widest_vectors
from waveq._kernels.cpu.threads import CHUNK

__all__ = ["clip_round_backward_chunks", "clip_round_chunks"]

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
Array = Any  # numba's arrays and float32; kernels are checked by their tests, not by mypy
Real = Any


@jit_loop
def _clip_round(x: Array, out: Array, low: Real, steps: Real) -> None:
    widest_vectors()
    for i in range(x.size):
        out[i] = whole(clip(x[i], low, _ONE) * steps) / steps


@jit_loop
def clip_round_chunks(first: int, last: int, x: int, out: int, size: int, low: Real, steps: Real) -> None:
    """round(clip(x, low, 1) steps) / steps."""
    widest_vectors()
    for k in range(first, last):
        _clip_round(chunk_of(x, k * CHUNK, size), chunk_of(out, k * CHUNK, size), low, steps)


@jit_loop
def _clip_round_backward(x: Array, g: Array, out: Array, low: Real) -> None:
    widest_vectors()
    for i in range(x.size):
        out[i] = g[i] if low <= x[i] <= _ONE else _ZERO


@jit_loop
def _clip_round_backward_open(x: Array, g: Array, out: Array, low: Real) -> None:
    widest_vectors()
    for i in range(x.size):
        out[i] = g[i] if low < x[i] <= _ONE else _ZERO


@jit_loop
def clip_round_backward_chunks(
    first: int, last: int, x: int, gradient: int, out: int, size: int, low: Real, closed: bool
) -> None:
    """The gradient where low <= x <= 1, or low < x <= 1 unless closed; zero elsewhere."""
    widest_vectors()
    for k in range(first, last):
        g, o = chunk_of(gradient, k * CHUNK, size), chunk_of(out, k * CHUNK, size)
        if closed:
            _clip_round_backward(chunk_of(x, k * CHUNK, size), g, o, low)
        else:
            _clip_round_backward_open(chunk_of(x, k * CHUNK, size), g, o, low)

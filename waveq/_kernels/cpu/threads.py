"""Threads for the compiled kernels: as many as torch uses, and none where the work is small."""

from __future__ import annotations

from collections.abc import Callable

import torch

from waveq._kernels.jit import shared

__all__ = ["CHUNK", "count_chunks", "share_chunks"]

CHUNK = 4096  # floats; two or three such pieces fit the first-level cache, and the partial sums stay short
_WORTH_A_THREAD = 64  # chunks for each; below it waking a thread costs more than it saves


def count_chunks(size: int) -> int:
    """How many chunks hold so many floats."""
    return -(-size // CHUNK)


def share_chunks(kernel: Callable[..., object], chunks: int, *arguments: object) -> None:
    """Call ``kernel(first, last, *arguments)`` so that every chunk is visited once.

    Every chunk has its own partial sum, so that the result does not depend on the number of threads.
    """
    shared(kernel, chunks, *arguments, worth=_WORTH_A_THREAD, threads=torch.get_num_threads())

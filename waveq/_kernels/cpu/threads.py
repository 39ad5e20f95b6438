"""Threads for the compiled kernels: as many as torch uses, and none where the work is small."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

__all__ = ["CHUNK", "count_chunks", "share_chunks"]

CHUNK = 4096  # floats; two or three such pieces fit the first-level cache, and the partial sums stay short
_WORTH_A_THREAD = 64  # chunks for each; below it waking a thread costs more than it saves

_pool: ThreadPoolExecutor | None = None
_pool_size = 0


def count_chunks(size: int) -> int:
    """How many chunks hold so many floats."""
    return -(-size // CHUNK)


def share_chunks(kernel: Callable[..., object], chunks: int, *arguments: object) -> None:
    """Call ``kernel(first, last, *arguments)`` so that every chunk is visited once.

    Numba's own threading layers are not used: one of them ends the process when two Python threads meet in it, another
    when a process that has used it forks. Kernels here release the interpreter lock, so Python's threads do. Every
    chunk has its own partial sum, so that the result does not depend on their number.
    """
    threads = min(torch.get_num_threads(), chunks // _WORTH_A_THREAD)
    if threads <= 1:
        kernel(0, chunks, *arguments)
        return
    edges = [chunks * i // threads for i in range(threads + 1)]
    pool = _threads(threads - 1)
    waiting = [pool.submit(kernel, edges[i], edges[i + 1], *arguments) for i in range(1, threads)]
    kernel(0, edges[1], *arguments)
    for share in waiting:
        share.result()


def _threads(size: int) -> ThreadPoolExecutor:
    global _pool, _pool_size
    if _pool is None or _pool_size < size:
        _pool, _pool_size = ThreadPoolExecutor(size, thread_name_prefix="waveq"), size
    return _pool


def _forget() -> None:
    global _pool
    _pool = None  # threads do not survive a fork


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)

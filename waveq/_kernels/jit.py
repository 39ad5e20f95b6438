"""How kernels are compiled, and how one call is shared among threads.

`waveq._kernels.jit`, `stripes_sim._jit` and `pareto._jit` are the same: none of the packages may need another for it,
and a test holds the three together.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar, cast

import numba
from numba.core.caching import FunctionCache

__all__ = ["compiled", "shared", "thread_count"]

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

_pool: ThreadPoolExecutor | None = None
_pool_size = 0


class _Cache(FunctionCache):
    """Numba's, but a file that cannot be read or written costs a compilation and ends nothing."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # whatever damage leads to, an empty file after a power cut for one
            with suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(OSError):  # a full disk
            super().save_overload(sig, data)


def compiled(kernel: Kernel, **options: Any) -> Kernel:
    """Compile on the first call, without the interpreter lock; kept on the disk where there is a place for it.

    With NUMBA_DISABLE_JIT=1 it is the kernel itself. Numba is untyped: the kernel keeps the signature that it was
    written with.

    Args:
        kernel: a function of a file, for the cache's sake.
        options: of `numba.njit`. Not ``parallel``: see `shared`.

    Example:
        >>> compiled(lambda value: value + 1)(2)
        3
    """
    made = numba.njit(nogil=True, **options)(kernel)
    if made is not kernel:
        with suppress(RuntimeError):  # a read-only installation and no home: numba finds no folder that it can write
            made._cache = _Cache(kernel)
    return cast(Kernel, made)


def thread_count() -> int:
    """NUMBA_NUM_THREADS, by default the number of cores that this process may use."""
    return int(numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]


def shared(
    kernel: Callable[..., Any], parts: int, *arguments: Any, worth: int = 1, threads: int | None = None
) -> list[Any]:
    """Call ``kernel(first, last, *arguments)`` so that every part is visited once; what each call returned, in order.

    Numba's own threading layers are not used: one of them ends the process when two Python threads meet in it, another
    hangs when a process that has used it forks. Kernels release the interpreter lock, so Python's threads do.

    Args:
        kernel: compiled; what it writes of one part does not lie in another.
        parts: how many; their results must not depend on which of them are visited by one call.
        arguments: handed on.
        worth: so many parts are worth a thread; with fewer, waking it costs more than it brings.
        threads: at most; by default `thread_count`.

    Example:
        >>> shared(lambda first, last: list(range(first, last)), 5, threads=2)
        [[0, 1], [2, 3, 4]]
    """
    threads = min(thread_count() if threads is None else threads, parts // worth)
    if threads <= 1:
        return [kernel(0, parts, *arguments)]
    edges = [parts * i // threads for i in range(threads + 1)]
    pool = _threads(threads - 1)
    waiting = [pool.submit(kernel, edges[i], edges[i + 1], *arguments) for i in range(1, threads)]
    found = []
    try:
        found.append(kernel(0, edges[1], *arguments))
    finally:  # Ctrl-C must not free what the others still write to
        found += [share.result() for share in waiting]
    return found


def _threads(size: int) -> ThreadPoolExecutor:
    global _pool, _pool_size
    if _pool is None or _pool_size < size:
        _pool, _pool_size = ThreadPoolExecutor(size, thread_name_prefix="kernels"), size
    return _pool


def _forget() -> None:
    global _pool
    _pool = None  # threads do not survive a fork


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)

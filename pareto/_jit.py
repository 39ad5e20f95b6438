"""The one place that decides how kernels are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

__all__ = ["PARALLEL_ROWS", "PARTS", "jit", "jit_parallel"]

PARALLEL_ROWS = 500_000  # with fewer, waiting for a second thread on a busy machine costs more than it brings
PARTS = 64  # of a parallel loop: enough for any number of cores

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

# Lazy compilation keeps the import fast, the cache keeps the second process fast. fastmath stays off:
# infinities are legal objective values. cast: numba is untyped, and a kernel keeps the signature that it was
# written with.


def jit(kernel: Kernel) -> Kernel:
    """Compile for one thread, releasing the interpreter lock.

    >>> jit(lambda value: value + 1)(2)
    3
    """
    return _compiled(kernel, nogil=True)


def jit_parallel(kernel: Kernel) -> Kernel:
    """Compile so that ``numba.prange`` runs on all of numba's threads.

    >>> callable(jit_parallel(lambda value: value))
    True
    """
    return _compiled(kernel, nogil=True, parallel=True)


def _compiled(kernel: Kernel, **options: Any) -> Kernel:
    try:
        return cast(Kernel, numba.njit(cache=_has_file(kernel), **options)(kernel))
    except RuntimeError:  # a read-only installation and no home: numba finds no folder that it can write
        return cast(Kernel, numba.njit(**options)(kernel))


def _has_file(kernel: Callable[..., Any]) -> bool:
    return not kernel.__code__.co_filename.startswith("<")  # doctests and consoles have nothing to cache beside

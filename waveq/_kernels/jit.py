"""How kernels are compiled: kept on the disk for the next process, or anew in each where there is no place for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

__all__ = ["compiled"]

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def compiled(kernel: Kernel, **options: Any) -> Kernel:
    """Compile on the first call. Numba is untyped: the kernel keeps the signature that it was written with.

    Args:
        kernel: in a file of its own package.
        options: of `numba.njit`.

    Example:
        >>> callable(compiled(lambda value: value + 1, nogil=True))
        True
    """
    try:
        return cast(Kernel, numba.njit(cache=True, **options)(kernel))
    except RuntimeError:  # a read-only installation and no home: numba finds no folder that it can write
        return cast(Kernel, numba.njit(**options)(kernel))

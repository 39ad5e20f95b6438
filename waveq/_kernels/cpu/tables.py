"""Tables of addresses for one call over several layers, as ``loops`` describes them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from waveq._kernels.cpu.threads import count_chunks

__all__ = ["Array", "addresses", "by_layer", "edges_of"]

Array = npt.NDArray[Any]


def addresses(weights: Sequence[Tensor], outs: Sequence[Tensor] = (), above: Sequence[Tensor] = ()) -> Array:
    """``places`` of dense float32 tensors, which must live for as long as the table is used."""
    places = np.zeros((len(weights), 4), np.int64)
    places[:, 0] = [weight.data_ptr() for weight in weights]
    places[:, 3] = [weight.numel() for weight in weights]
    if outs:
        places[:, 1] = [out.data_ptr() for out in outs]
    if above:
        places[:, 2] = [gradient.data_ptr() for gradient in above]
    return places


def edges_of(weights: Sequence[Tensor]) -> Array:
    """The first chunk of each layer, and the number of all."""
    return _edges(tuple(weight.numel() for weight in weights))


@functools.lru_cache(maxsize=256)
def _edges(sizes: tuple[int, ...]) -> Array:
    return np.concatenate([[0], np.cumsum([max(1, count_chunks(size)) for size in sizes])])


def by_layer(partial: Array, edges: Array) -> Array:
    """Sums over each layer's chunks, in their order."""
    sums: Array = np.add.reduceat(partial, edges[:-1], axis=0)
    return sums

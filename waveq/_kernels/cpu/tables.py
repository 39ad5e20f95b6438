"""Tables of addresses for one call over several layers, as ``loops`` describes them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from waveq._kernels.cpu.threads import count_chunks
from waveq._kernels.parts import Parts

__all__ = ["Array", "addresses", "edges_of", "layer_edges", "sums_between"]

Array = npt.NDArray[Any]


def addresses(
    weights: Sequence[Tensor],
    outs: Sequence[Tensor] = (),
    above: Sequence[Tensor] = (),
    parts: Parts | None = None,
) -> Array:
    """``places`` of dense float32 tensors, which must live for as long as the table is used; a row a part."""
    places = np.zeros((len(weights), 4), np.int64)
    places[:, 0] = [weight.data_ptr() for weight in weights]
    places[:, 3] = [weight.numel() for weight in weights]
    if outs:
        places[:, 1] = [out.data_ptr() for out in outs]
    if above:
        places[:, 2] = [gradient.data_ptr() for gradient in above]
    if parts is None:
        return places
    counts, number = _counts_and_numbers(parts.counts)
    places = np.repeat(places, counts, axis=0)
    places[:, 3] //= np.repeat(counts, counts)
    places[:, :3] += (4 * number * places[:, 3])[:, None]
    return places


@functools.lru_cache(maxsize=256)
def _counts_and_numbers(counts: tuple[int, ...]) -> tuple[Array, Array]:
    """Parts of each weight, and each part's number within its weight."""
    return np.array(counts), np.concatenate([np.arange(count) for count in counts])


def edges_of(weights: Sequence[Tensor], parts: Parts | None = None) -> Array:
    """The first chunk of each row, and the number of all."""
    return _edges(tuple(weight.numel() for weight in weights), None if parts is None else parts.counts)


@functools.lru_cache(maxsize=256)
def _edges(sizes: tuple[int, ...], counts: tuple[int, ...] | None) -> Array:
    if counts is not None:
        sizes = tuple(size // count for size, count in zip(sizes, counts, strict=True) for _ in range(count))
    return np.concatenate([[0], np.cumsum([max(1, count_chunks(size)) for size in sizes])])


def layer_edges(edges: Array, parts: Parts | None) -> Array:
    """The first chunk of each layer, and the number of all, from those of the rows."""
    return edges if parts is None else edges[np.array(parts.edges)]


def sums_between(partial: Array, edges: Array) -> Array:
    """Sums over the chunks from each edge to the next, in their order."""
    sums: Array = np.add.reduceat(partial, edges[:-1], axis=0)
    return sums

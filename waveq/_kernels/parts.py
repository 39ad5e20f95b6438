"""Equal parts of a weight that have numbers of their own: its output channels, or the slices of a stack.

A call over layers has one row of numbers a layer. Where levels belong to channels it has one a channel, in the order of
the layers, and a weight comes in the order of its channels, so that each of them is one run of memory.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from waveq._kernels.constants import constants
from waveq.layers import Outputs

__all__ = ["Parts", "in_parts", "out_of_parts"]


@dataclass(frozen=True, slots=True)
class Parts:
    """How the rows of a call belong to its weights.

    Attributes:
        counts: rows of each weight.

    Example:
        >>> parts = Parts((2, 1, 3))
        >>> parts.rows(slice(1, 3)), parts.rows([0, 2])
        (slice(2, 6, None), [0, 1, 3, 4, 5])
        >>> parts.spread(torch.tensor([7.0, 8.0, 9.0])).tolist()
        [7.0, 7.0, 8.0, 9.0, 9.0, 9.0]
        >>> parts.totals(torch.arange(6.0)).tolist(), parts.first(torch.arange(6.0)).tolist()
        ([1.0, 2.0, 12.0], [0.0, 2.0, 3.0])
    """

    counts: tuple[int, ...]

    def some(self, at: slice | list[int]) -> Parts:
        """Those of some weights."""
        return Parts(self.counts[at] if isinstance(at, slice) else tuple(self.counts[i] for i in at))

    def rows(self, at: slice | list[int]) -> slice | list[int]:
        """The rows of some weights; a slice of neighbours."""
        edges = self.edges
        if isinstance(at, slice):
            return slice(edges[at.start], edges[at.stop])
        return [row for i in at for row in range(edges[i], edges[i + 1])]

    @property
    def edges(self) -> tuple[int, ...]:
        """The first row of each weight, and the number of all."""
        return tuple(accumulate(self.counts, initial=0))

    def spread(self, numbers: Tensor) -> Tensor:
        """(rows,) from one number a weight."""
        counts = constants(self.counts, torch.int64, numbers.device)
        return torch.repeat_interleave(numbers, counts, output_size=sum(self.counts))

    def first(self, numbers: Tensor) -> Tensor:
        """(weights,) from (rows,) numbers that are the same for all rows of a weight."""
        return numbers[constants(self.edges[:-1], torch.int64, numbers.device)]

    def totals(self, numbers: Tensor) -> Tensor:
        """(weights,) sums of (rows,) numbers, in the order of the rows."""
        if numbers.is_cpu:
            return torch.from_numpy(np.add.reduceat(numbers.numpy(), self.edges[:-1]))
        padded = torch.cat([numbers, numbers.new_zeros(1)])
        return padded[_places(self.counts, numbers.device)].sum(dim=1)


@functools.lru_cache(maxsize=64)
def _places(counts: tuple[int, ...], device: torch.device) -> Tensor:
    """(weights, rows of the longest): the rows of each, and behind them the one after the last."""
    edges, last = list(accumulate(counts, initial=0)), sum(counts)
    rows = [[*range(edges[i], edges[i + 1]), *[last] * (max(counts) - count)] for i, count in enumerate(counts)]
    with torch.inference_mode(False):
        return torch.tensor(rows, dtype=torch.int64, device=device)


def in_parts(tensors: Sequence[Tensor | None], outputs: Sequence[Outputs]) -> list[Tensor | None]:
    """Tensors whose output channels are runs of memory, one after the other: as they are where they are so already.

    Args:
        tensors: weights, or gradients of theirs; None stays None.
        outputs: where the output channels lie in each.
    """
    return [_in_parts(tensor, where) for tensor, where in zip(tensors, outputs, strict=True)]


def _in_parts(tensor: Tensor | None, outputs: Outputs) -> Tensor | None:
    if tensor is None or tensor.ndim < 2:
        return tensor
    if outputs.axis != 0:
        return outputs.rows(tensor).contiguous()
    return tensor if tensor.stride(0) * tensor.shape[0] == tensor.numel() else tensor.contiguous()


def out_of_parts(tensors: Sequence[Tensor], outputs: Sequence[Outputs], like: Sequence[Tensor]) -> list[Tensor]:
    """What was made of ``in_parts``, in the shape of the weights."""
    return [
        made if weight.ndim < 2 or where.axis == 0 else where.back(made, weight).contiguous()
        for made, where, weight in zip(tensors, outputs, like, strict=True)
    ]

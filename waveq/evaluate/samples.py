"""The samples that policies are evaluated on: from any loader, in a fixed order, as often as needed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler

__all__ = ["Batch", "EvaluationData", "Stretch"]

Batch = tuple[Tensor, Tensor]
_HELD_BYTES = 1 << 30


@dataclass(frozen=True)
class Stretch:
    """Neighbouring samples of one shape, and the lengths of the batches in which the loader gave them."""

    start: int
    x: Tensor
    lengths: tuple[int, ...]

    def telling_batches(self) -> list[slice]:
        """The first batch of each length, and the last one."""
        stops = list(itertools.accumulate(self.lengths))
        firsts = {self.lengths.index(length) for length in self.lengths} | {len(self.lengths) - 1}
        return [slice(stops[index] - self.lengths[index], stops[index]) for index in sorted(firsts)]


class EvaluationData:
    """Batches (x, y) that come in the same order at every pass.

    Data up to a limit are read once and held in memory; more than that is read from the loader again at every pass.

    Args:
        loader: an iterable of (x, y) batches, or one (x, y) pair of tensors.
        held_bytes: how much data may be held in memory.
        name: of the argument, for messages.

    Raises:
        TypeError: batches that are not (x, y) tensors.
        ValueError: no samples; labels that are not (n,) integers; an endless or shuffled loader too large to hold.

    Example:
        >>> data = EvaluationData([(torch.zeros(2, 3), torch.tensor([0, 1])), (torch.zeros(1, 3), torch.tensor([1]))])
        >>> len(data), data.labels.tolist(), [len(x) for x, _ in data]
        (3, [0, 1, 1], [2, 1])
    """

    def __init__(self, loader: Any, *, held_bytes: int = _HELD_BYTES, name: str = "loader") -> None:
        self._name = name
        self._held: list[Batch] | None = []
        self._whole: Tensor | None = None
        self._source: Iterable[Batch] = [loader] if _is_pair(loader) else loader
        if not isinstance(self._source, Iterable):
            raise TypeError(
                f"{name} must be an iterable of (x, y) batches or one (x, y) pair, not {type(loader).__name__}"
            )
        labels, size = [], 0
        for index, item in enumerate(self._source):
            x, y = _checked(item, index, self._name)
            labels.append(y.cpu())
            size += x.nbytes
            if self._held is not None and size <= held_bytes:
                self._held.append((x, y))
                continue
            if self._held is not None:
                self._refuse_what_cannot_be_read_again(held_bytes)
            self._held = None
        if not labels:
            raise ValueError(f"{name} gave no batch")
        self.labels: Tensor = torch.cat(labels).long()
        if self._held is not None:
            self._hold(self._held)

    def _hold(self, batches: list[Batch]) -> None:
        """Keep one tensor where shapes allow it, the batches being views of it; other processes receive no loader."""
        if len({(x.shape[1:], x.dtype, x.device) for x, _ in batches}) == 1:
            self._whole = torch.cat([x for x, _ in batches])
            lengths = [len(y) for _, y in batches]
            parts = zip(torch.split(self._whole, lengths), (y for _, y in batches), strict=True)
            batches = list(parts)
        self._source = self._held = batches

    def _refuse_what_cannot_be_read_again(self, held_bytes: int) -> None:
        limit = f"{held_bytes / 2**20:.0f} MiB, more than are held in memory"
        if iter(self._source) is self._source:
            raise ValueError(
                f"{self._name} is an iterator that gives data once, over {limit}; give a DataLoader or a list"
            )
        if isinstance(self._source, DataLoader) and isinstance(self._source.sampler, RandomSampler):
            raise ValueError(
                f"{self._name} shuffles data of over {limit}; use shuffle=False so that every pass has one order"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[Batch]:
        for index, item in enumerate(self._source):
            yield _checked(item, index, self._name)

    def stretches(self) -> Iterator[Stretch]:
        """All samples in order: in one piece where they are held and have one shape, else batch by batch."""
        if self._whole is not None and self._held is not None:
            yield Stretch(0, self._whole, tuple(len(y) for _, y in self._held))
            return
        start = 0
        for x, y in self:
            yield Stretch(start, x, (len(y),))
            start += len(y)


def _is_pair(loader: Any) -> bool:
    return isinstance(loader, tuple | list) and len(loader) == 2 and all(isinstance(part, Tensor) for part in loader)


def _checked(item: Any, index: int, name: str) -> Batch:
    if not isinstance(item, tuple | list) or len(item) < 2 or not all(isinstance(part, Tensor) for part in item[:2]):
        raise TypeError(f"{name}: batch {index} must be a pair of tensors (x, y), not {type(item).__name__}")
    x, y = item[0], item[1]
    if y.ndim != 1 or y.is_floating_point() or y.is_complex() or x.ndim < 1 or len(x) != len(y):
        raise ValueError(
            f"{name}: batch {index} must hold x of shape (n, ...) and class numbers y of shape (n,), "
            f"not {tuple(x.shape)} and {tuple(y.shape)} {y.dtype}"
        )
    return x, y

"""The order of training data as a function of (seed, epoch, batch), so that a run can go on from any step."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

from waveq.zoo.datasets.augment import Augmentation
from waveq.zoo.datasets.folders import FolderSplit
from waveq.zoo.datasets.seeds import mixed_seed
from waveq.zoo.datasets.splits import Split

__all__ = ["EpochLoader"]

Item = TypeVar("Item")


def _one_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items; the next one is made by another thread while the present one is in use."""
    done = object()
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(next, items, done)
        while (item := pending.result()) is not done:
            pending = pool.submit(next, items, done)
            yield item  # type: ignore[misc]


class EpochLoader:
    """Batches of one epoch after another: x float32 (N, C, H, W), y int64 (N,).

    Every `iter()` is the next epoch, in an order drawn from (seed, epoch). A batch is cut from the order first and
    shared by the processes afterwards, so that `world_size` processes see together what one would have seen. What
    does not fill a batch is left out (other images in every epoch). `state_dict()` is the next epoch and batch.

    Args:
        split: the training images.
        batch_size: images of a batch, over all processes.
        seed: of the run.
        augmentation: None leaves images as they are.
        rank: which share is ours.
        world_size: how many share a batch.

    Raises:
        ValueError: a batch cannot be shared evenly.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        seed: int,
        augmentation: Augmentation | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        batch_size = min(batch_size, len(split) // world_size * world_size)
        if batch_size == 0 or batch_size % world_size:
            raise ValueError(f"batch_size: {batch_size} images cannot be shared by {world_size} processes")
        self._split = split
        self._batch_size = batch_size
        self._seed = seed
        self._augmentation = augmentation
        self._rows = slice(rank, None, world_size)
        self._epoch = 0
        self._batch = 0

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return len(self._split) // self._batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        epoch, start = self._epoch, self._batch
        order = self.order(epoch)
        numbers = range(start, len(self))
        fetched = (self.fetch(order, epoch, batch) for batch in numbers)
        # Files are read while the last batch is trained on. Tensors in memory are cut faster than a thread is woken;
        # items of somebody's dataset may draw from torch's one generator, which training draws from meanwhile.
        ready = _one_ahead(fetched) if isinstance(self._split, FolderSplit) else fetched
        for batch, images_and_labels in zip(numbers, ready, strict=True):
            # before the batch goes out: whoever holds it and asks, hears what comes next
            self._epoch, self._batch = (epoch, batch + 1) if batch + 1 < len(self) else (epoch + 1, 0)
            yield images_and_labels

    def order(self, epoch: int) -> Tensor:
        """Indices of all training images in the order of that epoch, int64 (N,)."""
        generator = torch.Generator().manual_seed(mixed_seed(self._seed, epoch))
        return torch.randperm(len(self._split), generator=generator)

    def fetch(self, order: Tensor, epoch: int, batch: int) -> tuple[Tensor, Tensor]:
        """Our share of one batch."""
        indices = order[batch * self._batch_size : (batch + 1) * self._batch_size]
        return self._split.batch(
            indices, augmentation=self._augmentation, seed=mixed_seed(self._seed, epoch, batch), rows=self._rows
        )

    def state_dict(self) -> dict[str, Any]:
        """Where the next batch is."""
        return {"epoch": self._epoch, "batch": self._batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there at the next `iter()`."""
        self._epoch, self._batch = int(state["epoch"]), int(state["batch"])

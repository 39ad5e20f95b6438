"""One part of somebody's own data, as a loader, a dataset of torch's or tensors give it.

Of a DataLoader its dataset and `collate_fn` are used. The batches are cut by whoever trains, in an order that follows
from a seed, and what an item draws at random follows from one too: so a run that was stopped goes on as if it had not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    default_collate,
)

from waveq._own_code import naming_errors
from waveq.zoo.datasets.augment import Augmentation
from waveq.zoo.datasets.seeds import drawn_from, mixed_seed, seed_all

__all__ = ["LoaderSplit", "read_loader"]

Collate = Callable[[list[Any]], Any]
_MOST_BYTES = 4 << 30
_LOOKED_AT = 64


@dataclass(frozen=True, kw_only=True)
class LoaderSplit:
    """Items of a dataset that counts its items, put into batches by its loader's `collate_fn`."""

    where: str
    """What errors name."""
    items: Any
    chosen: Tensor
    """int64 (N,): which of the items these are."""
    collate: Collate
    labels: Tensor
    """int64 (N,)."""

    def __len__(self) -> int:
        return len(self.chosen)

    def batch(
        self,
        indices: Tensor,
        *,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        rows: slice = slice(None),
    ) -> tuple[Tensor, Tensor]:
        """Rows `rows` of the batch `indices`: x float32 (N, ...), y int64 (N,).

        What an item draws at random follows from the seed and its own number, so that processes which share a batch see
        together what one would have seen.

        Raises:
            ValueError: no such pair of tensors, or numbers in x that are none.
        """
        del augmentation  # the dataset's own affair
        if type(self.items) is TensorDataset and self.collate is default_collate:
            rows_of = self.chosen[indices[rows]]
            return _checked(tuple(tensor[rows_of] for tensor in self.items.tensors), self.where)
        taken = []
        with drawn_from(0):
            for index in self.chosen[indices[rows]].tolist():
                seed_all(mixed_seed(seed, index))
                with naming_errors(f"{self.where}: item {index}"):
                    taken.append(self.items[index])
            with naming_errors(f"{self.where}: collate_fn"):
                collated = self.collate(taken)
            return _checked(collated, self.where)

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Everything at once."""
        return self.batch(torch.arange(len(self)))

    def digest(self) -> str:
        """A short hash of all labels and of up to 64 items, from the first to the last."""
        sample = torch.linspace(0, len(self) - 1, min(len(self), _LOOKED_AT)).long()
        found = hashlib.sha256(self.labels.numpy().tobytes())
        for tensor in self.batch(sample):
            found.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            found.update(tensor.contiguous().numpy().tobytes())
        return found.hexdigest()[:16]


def read_loader(loader: Any, where: str) -> LoaderSplit:
    """A part of the data.

    Args:
        loader: a DataLoader, a dataset of torch's, an iterable of (x, y) batches (read once and held), or one pair.
        where: what errors name, as in "my_data:loaders, train".

    Raises:
        ValueError: none of these; nothing in it; batches that are no pair of x, floating point (n, ...), and class
            numbers y (n,); values that are not finite; a sampler that repeats or weighs items; more than 4 GiB to hold.

    Example:
        >>> part = read_loader((torch.zeros(5, 3), torch.tensor([0, 1, 1, 0, 2])), "mine, train")
        >>> len(part), part.batch(torch.tensor([4, 1]))[1].tolist()
        (5, [2, 1])
    """
    if _is_pair(loader):
        return _split(_tensor_dataset([tuple(loader)], where), None, default_collate, where)
    if isinstance(loader, DataLoader) and loader.batch_size is not None and not _streams(loader.dataset):
        collate: Collate = loader.collate_fn
        return _split(loader.dataset, _indices(loader, where), collate, where)
    if isinstance(loader, Dataset) and not _streams(loader):
        return _split(loader, None, default_collate, where)
    if isinstance(loader, str | bytes) or not isinstance(loader, Iterable):
        raise ValueError(
            f"{where}: a DataLoader is expected, a torch Dataset, or (x, y) batches, not {type(loader).__name__}"
        )
    if isinstance(loader, DataLoader) and type(loader.batch_sampler) not in (BatchSampler, type(None)):
        raise ValueError(f"{where}: its batch_sampler draws batches of its own; give a DataLoader with a batch_size")
    return _split(_tensor_dataset(loader, where), None, default_collate, where)


def _is_pair(loader: object) -> bool:
    return isinstance(loader, tuple | list) and len(loader) == 2 and all(isinstance(part, Tensor) for part in loader)


def _streams(dataset: object) -> bool:
    return isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__")


def _indices(loader: DataLoader[Any], where: str) -> Tensor | None:
    """Which items a loader goes over, in their own order; None is all of them."""
    sampler: Any = loader.sampler
    if isinstance(sampler, SubsetRandomSampler):
        return torch.as_tensor(list(sampler.indices)).long().sort().values
    whole = isinstance(sampler, RandomSampler) and not sampler.replacement and len(sampler) == len(sampler.data_source)
    if whole or isinstance(sampler, SequentialSampler | DistributedSampler):
        return None
    raise ValueError(
        f"{where}: {type(sampler).__name__} repeats, weighs or leaves out items, which would be lost: training draws "
        "its own order; give a DataLoader with shuffle, a Subset or a SubsetRandomSampler"
    )


def _tensor_dataset(batches: Iterable[Any], where: str) -> TensorDataset:
    """All batches in memory."""
    held, size = [], 0
    for batch in _each(batches, where):
        x, y = _checked(batch, where)
        held.append((x, y))
        size += x.nbytes
        if size > _MOST_BYTES:
            raise ValueError(
                f"{where}: over {_MOST_BYTES >> 30} GiB of batches without a count of items; give a DataLoader over a "
                "dataset with __len__ and __getitem__, which is read item by item"
            )
    if not held:
        raise ValueError(f"{where}: there is nothing in it")
    shapes = {tuple(x.shape[1:]) for x, _ in held}
    if len(shapes) > 1:
        raise ValueError(
            f"{where}: x has several shapes, {' and '.join(map(str, sorted(shapes)[:2]))}; one is expected"
        )
    return TensorDataset(torch.cat([x for x, _ in held]), torch.cat([y for _, y in held]))


def _each(batches: Iterable[Any], where: str) -> Iterator[Any]:
    with naming_errors(f"{where}: iterating"):
        yield from batches


def _split(items: Any, chosen: Tensor | None, collate: Collate, where: str) -> LoaderSplit:
    if len(items) == 0 or (chosen is not None and len(chosen) == 0):
        raise ValueError(f"{where}: there is nothing in it")
    chosen = torch.arange(len(items)) if chosen is None else chosen
    while type(items) is Subset:
        chosen, items = torch.as_tensor(list(items.indices)).long()[chosen], items.dataset
    unlabelled = LoaderSplit(where=where, items=items, chosen=chosen, collate=collate, labels=torch.empty(0))
    return LoaderSplit(where=where, items=items, chosen=chosen, collate=collate, labels=_labels(unlabelled))


def _labels(split: LoaderSplit) -> Tensor:
    """All labels: as torchvision's datasets keep them, else from the items one after the other."""
    kept = getattr(split.items, "targets", None)
    plain = getattr(split.items, "target_transform", None) is None and split.collate is default_collate
    if plain and kept is not None and len(kept) == len(split.items):
        try:
            labels = torch.as_tensor(kept)[split.chosen]
        except (TypeError, ValueError, RuntimeError):
            labels = torch.empty(0)
        if _are_labels(labels, len(split)):
            first = split.batch(torch.arange(1))[1]
            if first.equal(labels[:1].long()):
                return labels.long()
    pieces = torch.split(torch.arange(len(split)), 256)
    return torch.cat([split.batch(piece)[1] for piece in pieces])


def _are_labels(y: Tensor, count: int) -> bool:
    return y.shape == (count,) and not (y.is_floating_point() or y.is_complex() or y.dtype == torch.bool)


def _checked(batch: Any, where: str) -> tuple[Tensor, Tensor]:
    """x as float32 and y as int64."""
    if not _is_pair(batch):
        raise ValueError(f"{where}: a batch must be a pair of tensors (x, y), not {_kind(batch)}")
    x, y = (part.detach() for part in batch)
    if x.is_meta or x.layout != torch.strided or y.layout != torch.strided:
        raise ValueError(f"{where}: a batch must hold dense tensors with values, not meta or sparse ones")
    if x.ndim < 2 or not _are_labels(y, len(x)):
        raise ValueError(
            f"{where}: a batch must hold x of shape (n, ...) and class numbers y of shape (n,), not "
            f"{tuple(x.shape)} and {tuple(y.shape)} of {str(y.dtype).removeprefix('torch.')}"
        )
    if not x.is_floating_point():
        kind = str(x.dtype).removeprefix("torch.")
        raise ValueError(f"{where}: x must be floating point, such as x.float() / 255 of bytes, not {kind}")
    if not x.isfinite().all():
        raise ValueError(f"{where}: x is NaN or infinite somewhere")
    if y.numel() and int(y.min()) < 0:
        raise ValueError(f"{where}: a label is {int(y.min())}; class numbers begin at 0")
    return x.float().cpu(), y.long().cpu()


def _kind(batch: object) -> str:
    if isinstance(batch, Tensor):
        return "Tensor: labels are missing"
    if isinstance(batch, Mapping):
        return f"a {type(batch).__name__} of {', '.join(map(str, batch))}; a collate_fn makes pairs of it"
    if not isinstance(batch, tuple | list):
        return type(batch).__name__
    if len(batch) == 1:
        return "x alone: labels are missing"
    return f"{len(batch)} things ({', '.join(type(part).__name__ for part in batch[:4])})"

"""Somebody's own training, validation and test data as a `Dataset`: loaders in a tuple or mapping, or a DataModule."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import torch

from waveq._names import nearest
from waveq._own_code import naming_errors
from waveq.zoo.datasets.augment import Augmentation
from waveq.zoo.datasets.data import Dataset
from waveq.zoo.datasets.loader_split import LoaderSplit, read_loader

__all__ = ["data_digest", "own_dataset"]

_MOST_CLASSES = 1_000_000
_PARTS = ("train", "validation", "test")
_KEYS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
_NOT_GIVEN = ("lightning.pytorch.core.hooks", "pytorch_lightning.core.hooks")  # where Lightning has methods that raise
Later = Callable[[], Any]


def own_dataset(name: str, given: Any) -> Dataset:
    """The data behind three loaders; the test loader is not touched before `Dataset.test()`.

    Args:
        name: of the data, for messages and the run folder.
        given: (train, validation, test), a mapping with "train", "val" or "validation", and "test", or an object with
            the methods of a LightningDataModule. See `loader_split.read_loader` for what a loader is.

    Raises:
        ValueError: something else; a loader that is missing or holds no pairs of x and class numbers; parts whose x
            have other shapes; a class in validation or test that training has not.

    Example:
        >>> import torch
        >>> pair = torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 0, 1])
        >>> data = own_dataset("mine", {"train": pair, "val": pair, "test": pair})
        >>> data.shape, data.classes, len(data.validation)
        ((1, 8, 8), ('0', '1'), 4)
    """
    loaders = _loaders(name, given)
    train, validation = (read_loader(loaders[part](), f"{name}, {part}") for part in _PARTS[:2])
    shape = tuple(train.batch(torch.arange(1))[0].shape[1:])
    classes = _classes(train)
    _require_alike(train, validation, shape, len(classes))

    def test() -> LoaderSplit:
        part = read_loader(loaders["test"](), f"{name}, test")
        _require_alike(train, part, shape, len(classes))
        return part

    return Dataset(
        name=name,
        classes=classes,
        channels=shape[0],
        size=shape[1:],
        train=train,
        validation=validation,
        augmentation=Augmentation(),
        folder=None,
        read_test=test,
    )


def data_digest(dataset: Dataset) -> str:
    """A short hash of training and validation data of one's own."""
    found = hashlib.sha256()
    for part in (dataset.train, dataset.validation):
        assert isinstance(part, LoaderSplit)
        found.update(part.digest().encode())
    return found.hexdigest()[:16]


def _loaders(name: str, given: Any) -> dict[str, Later]:
    if hasattr(given, "train_dataloader") and hasattr(given, "val_dataloader"):
        return _of_module(name, given)
    if isinstance(given, Mapping):
        for key in given:
            if key not in _KEYS:
                raise ValueError(f"{name}: no part is called {key!r}{nearest(key, _KEYS)}")
        found = {_KEYS[key]: loader for key, loader in given.items()}
        if missing := [part for part in _PARTS if found.get(part) is None]:
            raise ValueError(f"{name}: the {missing[0]} loader is missing; train, val and test are expected")
        return {part: _later(loader) for part, loader in found.items()}
    if isinstance(given, tuple | list) and len(given) == len(_PARTS):
        return {part: _later(loader) for part, loader in zip(_PARTS, given, strict=True)}
    got = f"{len(given)} things" if isinstance(given, tuple | list) else type(given).__name__
    lacking = ": test is missing" if got == "2 things" else ""
    raise ValueError(
        f"{name}: train, validation and test loaders are expected, as a tuple, a mapping or a LightningDataModule, "
        f"not {got}{lacking}"
    )


def _later(loader: Any) -> Later:
    return lambda: loader


def _of_module(name: str, module: Any) -> dict[str, Later]:
    """Lightning's order of calls, without a Trainer."""
    for part in ("train", "val", "test"):
        method = getattr(module, f"{part}_dataloader", None)
        if method is None or getattr(method, "__module__", "") in _NOT_GIVEN:
            what = f"{type(module).__name__} has no {part}_dataloader"
            raise ValueError(f"{name}: {what}; train, val and test are expected")
    with naming_errors(f"{name}: prepare_data or setup"):
        module.prepare_data()
        module.setup("fit")

    def test() -> Any:
        with naming_errors(f"{name}: setup"):
            module.setup("test")
        return _one(name, "test", module)

    return {
        "train": lambda: _one(name, "train", module),
        "validation": lambda: _one(name, "val", module),
        "test": test,
    }


def _one(name: str, part: str, module: Any) -> Any:
    with naming_errors(f"{name}: {part}_dataloader"):
        loader = getattr(module, f"{part}_dataloader")()
    if isinstance(loader, list | tuple) and len(loader) == 1:
        return loader[0]
    if loader is None or isinstance(loader, Mapping) or (isinstance(loader, list | tuple) and not len(loader) == 2):
        raise ValueError(f"{name}: {part}_dataloader must give one loader, not {type(loader).__name__}")
    return loader


def _classes(train: LoaderSplit) -> tuple[str, ...]:
    """Their names where the dataset keeps them, else the class numbers."""
    count = int(train.labels.max()) + 1
    if count > _MOST_CLASSES:
        raise ValueError(f"{train.where}: a label is {count - 1:,}; class numbers 0, 1, 2, ... are expected")
    names = getattr(train.items, "classes", None)
    if isinstance(names, list | tuple) and len(names) >= count:
        return tuple(map(str, names))
    return tuple(map(str, range(count)))


def _require_alike(train: LoaderSplit, part: LoaderSplit, shape: tuple[int, ...], classes: int) -> None:
    found = tuple(part.batch(torch.arange(1))[0].shape[1:])
    if found != shape:
        raise ValueError(f"{part.where}: x has shape {found}, but {shape} in {train.where}")
    if (label := int(part.labels.max())) >= classes:
        raise ValueError(f"{part.where}: a label is {label}, but {train.where} has the classes 0 to {classes - 1} only")

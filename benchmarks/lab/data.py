"""The images of a setting, in memory once for each process."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.lab.settings import Setting
from waveq.zoo import load_data
from waveq.zoo.datasets.data import AnySplit

__all__ = ["Images", "Part", "batches", "endless", "images_of"]

Part = tuple[Tensor, Tensor]
_VALIDATION_IMAGES = 3000


@dataclass(frozen=True)
class Images:
    """x float32 (N, C, H, W) and y int64 (N,) of the three parts, on one device."""

    train: Part
    validation: Part
    test: Part
    classes: int


def images_of(setting: Setting, device: str, data_dir: Path | None = None) -> Images:
    """The parts that a setting asks for; which images they hold depends on nothing else."""
    s = setting
    return _load(s.dataset, s.channels, s.size, s.images, s.test_images, device, data_dir)


@functools.lru_cache(maxsize=2)
def _load(
    dataset: str, channels: int, size: int, images: int, test_images: int, device: str, data_dir: Path | None
) -> Images:
    data = load_data(dataset, data_dir=data_dir, channels=channels, size=size)
    return Images(
        train=_some(data.train, images, device),
        validation=_some(data.validation, _VALIDATION_IMAGES, device),
        test=_some(data.test(), test_images, device),
        classes=len(data.classes),
    )


def _some(split: AnySplit, count: int, device: str) -> Part:
    order = torch.arange(len(split))
    if 0 < count < len(split):
        order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:count]
    x, y = split.batch(order)
    return x.to(device), y.to(device)


def batches(part: Part, size: int, generator: torch.Generator | None = None) -> Iterator[Part]:
    """One pass: in a drawn order and full batches alone, or in the part's order to its end."""
    x, y = part
    if generator is None:
        for start in range(0, len(y), size):
            yield x[start : start + size], y[start : start + size]
        return
    order = torch.randperm(len(y), generator=generator).to(y.device)
    for start in range(0, len(y) // size * size, size):
        rows = order[start : start + size]
        yield x[rows], y[rows]


def endless(part: Part, size: int, generator: torch.Generator, *, flip: bool = False) -> Iterator[Part]:
    """Pass after pass, each in an order of its own; with ``flip`` half of the images are mirrored left to right."""
    while True:
        for x, y in batches(part, size, generator):
            if flip:
                mirrored = (torch.rand(len(y), generator=generator) < 0.5).to(x.device, non_blocking=True)
                x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
            yield x, y

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

__all__ = ["Images", "Part", "batches", "drawn_pass", "endless", "images_of", "taken"]

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


def batches(part: Part, size: int) -> Iterator[Part]:
    """One pass in the part's order, to its end."""
    x, y = part
    for start in range(0, len(y), size):
        yield x[start : start + size], y[start : start + size]


def drawn_pass(count: int, size: int, generator: torch.Generator, *, flip: bool = False) -> tuple[Tensor, Tensor]:
    """One pass in a drawn order and full batches alone: rows of each batch, and which of them are mirrored.

    Returns:
        int64 (batches, size), and bool of the same shape: half of it with ``flip``, else nothing.
    """
    rows = torch.randperm(count, generator=generator)[: count // size * size].reshape(-1, size)
    return rows, torch.rand(rows.shape, generator=generator) < 0.5 if flip else torch.zeros(
        rows.shape, dtype=torch.bool
    )


def endless(part: Part, size: int, generator: torch.Generator, *, flip: bool = False) -> Iterator[Part]:
    """Pass after pass, each in an order of its own; with ``flip`` half of the images are mirrored left to right."""
    x, y = part
    while True:
        passed = (each.to(y.device) for each in drawn_pass(len(y), size, generator, flip=flip))
        for rows, mirrored in zip(*passed, strict=True):
            yield taken(x, rows, mirrored) if flip else x[rows], y[rows]


def taken(x: Tensor, rows: Tensor, mirrored: Tensor) -> Tensor:
    """Some rows of the images (N, C, H, W), mirrored left to right where the mask (rows,) says so."""
    images = x[rows]
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)

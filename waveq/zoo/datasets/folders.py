"""Parts of a dataset that are folders of image files, read when a batch asks for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from waveq.zoo.datasets.augment import Augmentation
from waveq.zoo.datasets.seeds import mixed_seed

__all__ = ["IMAGE_SUFFIXES", "FolderSplit", "list_folder"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".webp", ".tif", ".tiff")


def list_folder(root: Path, classes: tuple[str, ...] | None = None) -> tuple[tuple[Path, ...], Tensor, tuple[str, ...]]:
    """Image files below `root/CLASS/`, labels int64 (N,), names of the classes in alphabetical order.

    Raises:
        ValueError: no class folders, a class without images, or classes other than `classes`.
    """
    found = tuple(sorted(entry.name for entry in root.iterdir() if entry.is_dir()))
    if not found:
        raise ValueError(f"{root}: no folders inside; one folder for every class is expected")
    if classes is not None and found != classes:
        odd = sorted(set(found) ^ set(classes))
        raise ValueError(f"{root}: its classes are not those of the training folder (differs: {', '.join(odd[:5])})")
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(found):
        images = sorted(p for p in (root / name).rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        if not images:
            raise ValueError(f"{root / name}: no images inside ({', '.join(IMAGE_SUFFIXES)})")
        files += images
        labels += [label] * len(images)
    return tuple(files), torch.tensor(labels), found


@dataclass(frozen=True, kw_only=True)
class FolderSplit:
    """Image files, decoded by a few threads when a batch asks for them."""

    files: tuple[Path, ...]
    labels: Tensor
    size: tuple[int, int]
    """Height and width that every image is brought to."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """One number a channel: three for colour, one for grey."""
    workers: int = 4
    """Threads that decode."""

    def __len__(self) -> int:
        return len(self.files)

    def batch(
        self,
        indices: Tensor,
        *,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        rows: slice = slice(None),
    ) -> tuple[Tensor, Tensor]:
        """Rows `rows` of the batch `indices`: x float32 (N, C, H, W), y int64 (N,).

        With augmentation: a random part of 8-100 % of the area, aspect 3/4 to 4/3, resized, flipped at random
        (the usual training view of ImageNet). Without: the shorter side to 256/224 of the size, then the
        centre.
        """
        chosen = indices[rows].tolist()
        seeds = range(len(indices))[rows] if augmentation else [None] * len(chosen)
        jobs = [(self.files[i], None if k is None else mixed_seed(seed, k)) for i, k in zip(chosen, seeds, strict=True)]
        with ThreadPoolExecutor(self.workers) as pool:
            pixels = torch.stack(list(pool.map(lambda job: self._image(*job), jobs)))
        std, mean = torch.tensor(self.std)[:, None, None], torch.tensor(self.mean)[:, None, None]
        return (pixels - mean) / std, self.labels[indices[rows]]

    def take(self, indices: Tensor) -> FolderSplit:
        """A split of these images only."""
        return replace(self, files=tuple(self.files[i] for i in indices.tolist()), labels=self.labels[indices])

    def _image(self, path: Path, seed: int | None) -> Tensor:
        import numpy as np
        from PIL import Image

        try:
            with Image.open(path) as file:
                image = file.convert("RGB" if len(self.mean) == 3 else "L")
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"{path}: truncated or not an image ({error})") from None
        box, mirrored = _centre_part(image.size, self.size), False
        if seed is not None:
            box, mirrored = _random_part(image.size, seed)
        image = image.resize((self.size[1], self.size[0]), Image.Resampling.BILINEAR, box=box)
        pixels = torch.from_numpy(np.array(image)).float().div_(255)
        pixels = pixels.permute(2, 0, 1) if pixels.ndim == 3 else pixels[None]
        return pixels.flip(2) if mirrored else pixels


Box = tuple[float, float, float, float]


def _random_part(size: Sequence[int], seed: int) -> tuple[Box, bool]:
    """Left, top, right, bottom of a random part of an image (width, height), and whether to mirror it."""
    width, height = size
    generator = torch.Generator().manual_seed(seed)
    area, ratio, x, y, side = torch.rand(5, generator=generator, dtype=torch.float64).tolist()
    pixels = width * height * (0.08 + 0.92 * area)
    aspect = math.exp(math.log(3 / 4) + ratio * math.log(16 / 9))
    part_width = min(math.sqrt(pixels * aspect), width)
    part_height = min(math.sqrt(pixels / aspect), height)
    left, top = x * (width - part_width), y * (height - part_height)
    return (left, top, left + part_width, top + part_height), side < 0.5


def _centre_part(image: Sequence[int], size: tuple[int, int]) -> Box:
    """The centre that a crop of `size` (height, width) sees after the shorter side went to 256/224 of it."""
    width, height = image
    scale = min(width / size[1], height / size[0]) * 224 / 256
    part_width, part_height = size[1] * scale, size[0] * scale
    left, top = (width - part_width) / 2, (height - part_height) / 2
    return left, top, left + part_width, top + part_height

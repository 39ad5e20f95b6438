"""Parts of a dataset in memory as one tensor, how they are cut and brought to a network's size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from waveq.zoo.datasets.augment import Augmentation, augment

__all__ = ["MemorySplit", "Split", "fit_images", "stratified_cut"]


class Split(Protocol):
    """What training and evaluation need of a part of a dataset."""

    @property
    def labels(self) -> Tensor:
        """int64 (N,)."""

    def __len__(self) -> int: ...

    def batch(
        self,
        indices: Tensor,
        *,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        rows: slice = slice(None),
    ) -> tuple[Tensor, Tensor]:
        """Normalised images float32 (N, C, H, W) and labels int64 (N,) of the rows `rows` of a batch."""


def stratified_cut(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices that stay and indices that are held out, `fraction` of every class, both in rising order.

    A class with two or more members gives at least one and keeps at least one.

    Example:
        >>> stay, held = stratified_cut(torch.tensor([0] * 8 + [1] * 4), 0.25, seed=0)
        >>> len(stay), torch.bincount(torch.tensor([0] * 8 + [1] * 4)[held]).tolist()
        (9, [2, 1])
    """
    generator = torch.Generator().manual_seed(seed)
    held = torch.zeros(len(labels), dtype=torch.bool)
    for label in torch.bincount(labels).nonzero().flatten().tolist():
        members = torch.nonzero(labels == label).flatten()
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        held[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    return torch.nonzero(~held).flatten(), torch.nonzero(held).flatten()


def fit_images(pixels: Tensor, channels: int, size: tuple[int, int]) -> Tensor:
    """Images uint8 (N, C, H, W) in the shape that a network takes.

    One channel is repeated (three become one by the luma weights of ITU-R BT.601). Up to 8 missing pixels a
    side are padded with zeros all around; anything else is resized bilinearly with antialiasing.

    Raises:
        ValueError: neither number of channels is 1.

    Example:
        >>> fit_images(torch.full((2, 1, 28, 28), 7, dtype=torch.uint8), 3, (32, 32))[0, 2, 16, :3].tolist()
        [0, 0, 7]
    """
    pixels = _with_channels(pixels, channels)
    height, width = pixels.shape[2:]
    missing_rows, missing_columns = size[0] - height, size[1] - width
    if missing_rows == missing_columns == 0:
        return pixels
    if 0 <= missing_rows <= 8 and 0 <= missing_columns <= 8:
        top, left = missing_rows // 2, missing_columns // 2
        return F.pad(pixels, (left, missing_columns - left, top, missing_rows - top))
    # in pieces: as floats the whole set would take four times its size, twice
    resized = [F.interpolate(p.float(), size=size, mode="bilinear", antialias=True) for p in _pieces(pixels, 1024)]
    return torch.cat([piece.round_().clamp_(0, 255).to(torch.uint8) for piece in resized])


def _pieces(pixels: Tensor, size: int) -> Iterator[Tensor]:
    return (pixels[start : start + size] for start in range(0, len(pixels), size))


def _with_channels(pixels: Tensor, channels: int) -> Tensor:
    have = pixels.shape[1]
    if have == channels:
        return pixels
    if have == 1:
        return pixels.expand(-1, channels, -1, -1)
    if have == 3 and channels == 1:
        luma = torch.tensor([0.299, 0.587, 0.114])
        pieces = [(p.float() * luma[:, None, None]).sum(1, keepdim=True).round() for p in _pieces(pixels, 4096)]
        return torch.cat(pieces).to(torch.uint8)
    raise ValueError(f"in_channels: images with {have} channels cannot be given {channels}")


@dataclass(frozen=True, kw_only=True)
class MemorySplit:
    """Images in memory: pixels uint8 (N, C, H, W), of which `full_scale` is white."""

    pixels: Tensor
    labels: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    full_scale: int = 255

    def __len__(self) -> int:
        return len(self.labels)

    def batch(
        self,
        indices: Tensor,
        *,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        rows: slice = slice(None),
    ) -> tuple[Tensor, Tensor]:
        """Rows `rows` of the batch `indices`: x float32 (N, C, H, W), y int64 (N,).

        Crops and flips are drawn for the whole batch and only then cut to `rows`, so several processes that
        share a batch see together what one process would have seen.
        """
        if not augmentation:
            indices = indices[rows]
            return self._normalised(self.pixels[indices]), self.labels[indices]
        drawn = augment(self.pixels[indices], augmentation, torch.Generator().manual_seed(seed))[rows]
        return self._normalised(drawn), self.labels[indices[rows]]

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Everything at once: x float32 (N, C, H, W), y int64 (N,)."""
        return self._normalised(self.pixels), self.labels

    def take(self, indices: Tensor) -> MemorySplit:
        """A split of these images only."""
        return replace(self, pixels=self.pixels[indices], labels=self.labels[indices])

    def _normalised(self, pixels: Tensor) -> Tensor:
        # (p / full_scale - mean) / std as one multiplication and one addition
        std = torch.tensor(self.std)[:, None, None]
        mean = torch.tensor(self.mean)[:, None, None]
        return pixels.float().mul_(1 / (self.full_scale * std)).sub_(mean / std)

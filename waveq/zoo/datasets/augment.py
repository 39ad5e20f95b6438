"""Random crops and flips of a whole batch at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Augmentation", "augment"]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is drawn anew for every image of a batch."""

    crop_padding: int = 0
    """Zero pixels put around the image before a window of its own size is cut out at random."""
    flip: bool = False
    """Whether half of the images are mirrored left to right."""

    def __bool__(self) -> bool:
        return self.crop_padding > 0 or self.flip


def augment(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Crop and flip every image of a batch (N, C, H, W) on its own; any dtype, the input is left alone.

    Draws come in a fixed order (rows, columns, flips), so the same generator state gives the same batch.

    Example:
        >>> images = torch.arange(2 * 9.0).reshape(2, 1, 3, 3)
        >>> both = Augmentation(crop_padding=1, flip=True)
        >>> augment(images, both, torch.Generator().manual_seed(0)).shape
        torch.Size([2, 1, 3, 3])
    """
    count, _, height, width = images.shape
    pad = augmentation.crop_padding
    if pad:
        top = torch.randint(0, 2 * pad + 1, (count,), generator=generator)
        left = torch.randint(0, 2 * pad + 1, (count,), generator=generator)
        # every window of the padded image as a view; indexing copies the chosen ones in one go
        windows = F.pad(images, (pad, pad, pad, pad)).unfold(2, height, 1).unfold(3, width, 1)
        images = windows[torch.arange(count), :, top, left]
    if augmentation.flip:
        mirrored = torch.rand(count, generator=generator) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    return images

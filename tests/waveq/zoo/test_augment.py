"""Whole-batch augmentation against a loop over images."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from waveq.zoo.datasets.augment import Augmentation, augment


def slow_augment(images: Tensor, what: Augmentation, generator: torch.Generator) -> Tensor:
    """One image at a time, pixel by pixel from its definition, with the draws in the documented order."""
    count, _, height, width = images.shape
    pad = what.crop_padding
    top = torch.randint(0, 2 * pad + 1, (count,), generator=generator) if pad else torch.zeros(count, dtype=torch.long)
    left = torch.randint(0, 2 * pad + 1, (count,), generator=generator) if pad else torch.zeros(count, dtype=torch.long)
    flips = torch.rand(count, generator=generator) < 0.5 if what.flip else torch.zeros(count, dtype=torch.bool)
    out = torch.zeros_like(images)
    for n in range(count):
        for y in range(height):
            for x in range(width):
                source_x = width - 1 - x if flips[n] else x
                row, column = y + int(top[n]) - pad, source_x + int(left[n]) - pad
                if 0 <= row < height and 0 <= column < width:
                    out[n, :, y, x] = images[n, :, row, column]
    return out


@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)),
    padding=st.integers(0, 3),
    flip=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_equals_the_loop(shape: tuple[int, ...], padding: int, flip: bool, seed: int) -> None:
    images = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    before = images.clone()
    what = Augmentation(crop_padding=padding, flip=flip)
    fast = augment(images, what, torch.Generator().manual_seed(seed))
    slow = slow_augment(images, what, torch.Generator().manual_seed(seed))
    assert torch.equal(fast, slow)
    assert torch.equal(images, before)


def test_every_window_and_both_sides_occur() -> None:
    images = torch.arange(1, 5.0).reshape(1, 1, 2, 2).expand(400, 1, 2, 2)
    seen = augment(images, Augmentation(crop_padding=1, flip=True), torch.Generator().manual_seed(0))
    # nine windows, each in two orientations; the image has no symmetry, so all differ
    assert len(seen.reshape(400, 4).unique(dim=0)) == 18


def test_nothing_to_do_is_false() -> None:
    assert not Augmentation()
    assert Augmentation(flip=True)

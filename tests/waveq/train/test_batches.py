"""The order of training data: a function of seed, epoch and batch, shared exactly by several processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from waveq.train.batches import EpochLoader
from waveq.zoo.datasets.augment import Augmentation
from waveq.zoo.datasets.folders import FolderSplit
from waveq.zoo.datasets.seeds import mixed_seed
from waveq.zoo.datasets.splits import MemorySplit


def numbered(count: int) -> MemorySplit:
    """Images that carry their own number, as pixels and as label."""
    numbers = torch.arange(count)
    pixels = numbers.to(torch.uint8).reshape(count, 1, 1, 1).expand(count, 1, 4, 4).contiguous()
    return MemorySplit(pixels=pixels, labels=numbers, mean=(0.0,), std=(1.0,))


@pytest.mark.slow
@given(
    count=st.integers(8, 60),
    batch=st.integers(1, 4),
    world=st.integers(1, 3),
    seed=st.integers(0, 2**40),
    augmented=st.booleans(),
)
def test_processes_together_see_what_one_sees(count: int, batch: int, world: int, seed: int, augmented: bool) -> None:
    what = Augmentation(crop_padding=1, flip=True) if augmented else None
    split, size = numbered(count), batch * world
    one = EpochLoader(split, batch_size=size, seed=seed, augmentation=what)
    shares = [
        EpochLoader(split, batch_size=size, seed=seed, augmentation=what, rank=r, world_size=world)
        for r in range(world)
    ]
    for _epoch in range(2):
        for (x, y), *parts in zip(one, *shares, strict=True):
            for rank, (part_x, part_y) in enumerate(parts):
                assert torch.equal(part_x, x[rank::world])
                assert torch.equal(part_y, y[rank::world])


@given(count=st.integers(4, 40), batch=st.integers(1, 7), seed=st.integers(0, 1000))
def test_an_epoch_shows_every_image_at_most_once(count: int, batch: int, seed: int) -> None:
    loader = EpochLoader(numbered(count), batch_size=batch, seed=seed)
    first = torch.cat([y for _, y in loader]).tolist()
    second = torch.cat([y for _, y in loader]).tolist()
    size = min(batch, count)
    assert len(first) == len(second) == count // size * size
    assert len(set(first)) == len(first)
    assert set(first) <= set(range(count))


def test_order_depends_on_seed_and_epoch() -> None:
    orders = {tuple(EpochLoader(numbered(50), batch_size=5, seed=s).order(e).tolist()) for s in (0, 1) for e in (0, 1)}
    assert len(orders) == 4


@pytest.mark.parametrize("taken", range(1, 13))
def test_goes_on_from_any_batch(taken: int) -> None:
    def stream(loader: EpochLoader, epochs: int) -> list[list[int]]:
        return [y.tolist() for _ in range(epochs) for _, y in loader]

    whole = stream(EpochLoader(numbered(20), batch_size=5, seed=3), 3)
    loader = EpochLoader(numbered(20), batch_size=5, seed=3)
    seen: list[list[int]] = []
    while len(seen) < taken:
        for _, y in loader:
            seen.append(y.tolist())
            if len(seen) == taken:
                break
    later = EpochLoader(numbered(20), batch_size=5, seed=3)
    later.load_state_dict(loader.state_dict())
    rest = stream(later, 3)
    assert (seen + rest)[:12] == whole


def test_a_batch_larger_than_the_data_is_all_of_it() -> None:
    loader = EpochLoader(numbered(10), batch_size=64, seed=0, world_size=2)
    assert len(loader) == 1
    assert len(next(iter(loader))[1]) == 5


def test_files_are_read_ahead_and_give_the_same(tmp_path: Path) -> None:
    from PIL import Image

    for number in range(9):
        Image.new("L", (4, 4), 20 * number).save(tmp_path / f"{number}.png")
    files = tuple(tmp_path / f"{number}.png" for number in range(9))
    split = FolderSplit(files=files, labels=torch.arange(9), size=(4, 4), mean=(0.0,), std=(1.0,), workers=2)
    loader = EpochLoader(split, batch_size=2, seed=1)
    seen = list(loader)
    stopped = EpochLoader(split, batch_size=2, seed=1)
    next(iter(stopped))
    resumed = EpochLoader(split, batch_size=2, seed=1)
    resumed.load_state_dict(stopped.state_dict())  # not what was read ahead, but what was handed out
    assert [y.tolist() for _, y in resumed] == [y.tolist() for _, y in seen[1:]]
    assert loader.state_dict() == {"epoch": 1, "batch": 0}
    assert [y.tolist() for _, y in seen] == loader.order(0)[:8].reshape(4, 2).tolist()
    assert all(torch.equal(x[:, 0, 0, 0] * 255, 20.0 * y) for x, y in seen)
    files[3].write_bytes(b"")
    with pytest.raises(ValueError, match=r"3\.png: truncated"):
        list(loader)


def test_what_cannot_be_shared_is_refused() -> None:
    with pytest.raises(ValueError, match="5 images cannot be shared by 2 processes"):
        EpochLoader(numbered(10), batch_size=5, seed=0, world_size=2)


def test_mixed_seeds_are_seeds_and_differ() -> None:
    seeds = [mixed_seed(a, b, c) for a in range(6) for b in range(6) for c in range(6)]
    assert len(set(seeds)) == 216
    assert all(0 <= seed < 2**63 for seed in seeds)
    torch.Generator().manual_seed(max(seeds))

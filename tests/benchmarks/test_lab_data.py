from __future__ import annotations

import itertools

import torch

from benchmarks.lab.data import batches, endless, images_of


def numbered(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images that hold their own number."""
    return torch.arange(count, dtype=torch.float32)[:, None], torch.arange(count)


def test_without_a_generator_the_parts_come_in_order_to_their_end():
    got = [y.tolist() for _, y in batches(numbered(7), 3)]
    assert got == [[0, 1, 2], [3, 4, 5], [6]]


def test_with_a_generator_batches_are_full_drawn_and_without_repetition():
    drawn = list(batches(numbered(7), 3, torch.Generator().manual_seed(0)))
    assert [len(y) for _, y in drawn] == [3, 3]
    seen = torch.cat([y for _, y in drawn]).tolist()
    assert len(set(seen)) == 6
    assert seen != sorted(seen)
    assert all(torch.equal(x[:, 0].long(), y) for x, y in drawn)


def test_endless_passes_have_orders_of_their_own_and_depend_on_the_seed_alone():
    def first(count: int, seed: int) -> list[list[int]]:
        stream = endless(numbered(6), 3, torch.Generator().manual_seed(seed))
        return [y.tolist() for _, y in itertools.islice(stream, count)]

    three_passes = first(6, seed=0)
    passes = [three_passes[i] + three_passes[i + 1] for i in (0, 2, 4)]
    assert all(sorted(each) == list(range(6)) for each in passes)
    assert passes[0] != passes[1]
    assert first(6, seed=0) == three_passes
    assert first(6, seed=1) != three_passes


def test_the_images_of_a_setting_are_the_same_ones_each_time(tiny):
    data = images_of(tiny, "cpu")
    assert data.train[0].shape == (512, 1, 8, 8)
    assert len(data.test[1]) == tiny.test_images
    assert data.classes == 10
    assert images_of(tiny, "cpu") is data

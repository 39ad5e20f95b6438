from __future__ import annotations

import itertools

import torch

from benchmarks.lab.data import batches, drawn_pass, endless, images_of


def numbered(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images that hold their own number."""
    return torch.arange(count, dtype=torch.float32)[:, None], torch.arange(count)


def test_without_a_generator_the_parts_come_in_order_to_their_end():
    got = [y.tolist() for _, y in batches(numbered(7), 3)]
    assert got == [[0, 1, 2], [3, 4, 5], [6]]


def test_a_pass_has_full_batches_drawn_without_repetition():
    rows, mirrored = drawn_pass(7, 3, torch.Generator().manual_seed(0))
    assert rows.shape == mirrored.shape == (2, 3)
    seen = rows.flatten().tolist()
    assert len(set(seen)) == 6
    assert seen != sorted(seen)
    assert not mirrored.any()


def test_half_of_the_images_are_mirrored_and_all_keep_their_labels():
    x = torch.arange(400, dtype=torch.float32)[:, None, None, None] + torch.tensor([0.0, 0.25])
    stream = endless((x, torch.arange(400)), 400, torch.Generator().manual_seed(0), flip=True)
    images, labels = next(stream)
    assert torch.equal(images.amin(3).flatten().long(), labels)
    mirrored = images[:, 0, 0, 0] > images[:, 0, 0, 1]
    assert 150 < int(mirrored.sum()) < 250


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

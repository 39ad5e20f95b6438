"""Loaders, datasets, tensors and DataModules of somebody's own as parts of a `Dataset`."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from waveq.train.batches import EpochLoader
from waveq.zoo.datasets.loader_split import read_loader
from waveq.zoo.datasets.own import data_digest, own_dataset

X = torch.arange(24.0).reshape(12, 1, 1, 2)
Y = torch.arange(12) % 3
PAIR = (X, Y)


class Noisy(Dataset[tuple[Tensor, int]]):
    """Items that draw from torch, NumPy and Python, as augmentations do."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        import random

        drawn = torch.rand(1, 1, 2) + float(np.random.rand()) + random.random()  # noqa: NPY002
        return X[index] + drawn, int(Y[index])


class Endless(IterableDataset[tuple[Tensor, Tensor]]):
    def __iter__(self) -> Any:
        while True:
            yield X[0], Y[0]


@pytest.mark.parametrize(
    "loader",
    [
        PAIR,
        TensorDataset(*PAIR),
        DataLoader(TensorDataset(*PAIR), batch_size=5, shuffle=True),
        [(X[:7], Y[:7]), (X[7:], Y[7:])],
        (pair for pair in [(X[:7], Y[:7]), (X[7:], Y[7:])]),
        DataLoader(TensorDataset(X.double(), Y.int()), batch_size=5, collate_fn=torch.utils.data.default_collate),
    ],
    ids=["pair", "dataset", "loader", "list", "generator", "float64"],
)
def test_every_form_gives_the_same_items(loader: Any) -> None:
    split = read_loader(loader, "mine")
    x, y = split.tensors()
    assert x.equal(X)
    assert y.equal(Y)
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert split.labels.equal(Y)


def test_subsets_and_their_samplers_keep_their_items() -> None:
    inner = Subset(TensorDataset(*PAIR), [11, 3, 5])
    assert read_loader(DataLoader(Subset(inner, [2, 0])), "mine").tensors()[0].equal(X[[5, 11]])
    chosen = DataLoader(TensorDataset(*PAIR), sampler=SubsetRandomSampler([7, 2]))
    assert read_loader(chosen, "mine").tensors()[0].equal(X[[2, 7]])


def test_a_collate_function_is_the_loaders_own() -> None:
    def doubled(items: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        return 2 * torch.stack([x for x, _ in items]), torch.stack([y for _, y in items])

    split = read_loader(DataLoader(TensorDataset(*PAIR), collate_fn=doubled), "mine")
    assert split.batch(torch.tensor([3, 1]))[0].equal(2 * X[[3, 1]])


def test_what_items_draw_follows_from_seed_and_item_alone() -> None:
    split = read_loader(DataLoader(Noisy(), batch_size=4), "mine")
    state = torch.get_rng_state()
    order = torch.tensor([5, 2, 9, 0])
    whole = split.batch(order, seed=3)[0]
    shares = [split.batch(order, seed=3, rows=slice(rank, None, 2))[0] for rank in range(2)]
    assert torch.stack(shares, dim=1).flatten(0, 1).equal(whole)
    assert not split.batch(order, seed=4)[0].equal(whole)
    assert torch.get_rng_state().equal(state)


def test_a_run_that_was_stopped_sees_what_it_would_have_seen() -> None:
    split = read_loader(DataLoader(Noisy(), batch_size=4), "mine")
    first, second = (EpochLoader(split, batch_size=4, seed=1) for _ in range(2))
    seen = [x for _ in range(2) for x, _ in first]
    second.load_state_dict({"epoch": 1, "batch": 1})
    assert all(x.equal(y) for (x, _), y in zip(second, seen[4:], strict=True))


def test_labels_are_read_where_torchvision_keeps_them() -> None:
    class Kept(Noisy):
        calls = 0
        targets = Y.tolist()
        classes = ("a", "b", "c")

        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            type(self).calls += 1
            return super().__getitem__(index)

    assert read_loader(DataLoader(Kept()), "mine").labels.equal(Y)
    assert Kept.calls == 1
    assert own_dataset("mine", (Kept(), Noisy(), Noisy())).classes == ("a", "b", "c")


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (3, "mine: a DataLoader is expected, a torch Dataset, or (x, y) batches, not int"),
        ([], "mine: there is nothing in it"),
        (TensorDataset(X[:0], Y[:0]), "mine: there is nothing in it"),
        (DataLoader(TensorDataset(X)), "a pair of tensors (x, y), not x alone: labels are missing"),
        ([X], "not Tensor: labels are missing"),
        ([{"x": X, "y": Y}], "a pair of tensors (x, y), not a dict of x, y; a collate_fn makes pairs of it"),
        ((X, Y.float()), "class numbers y of shape (n,), not (12, 1, 1, 2) and (12,) of float32"),
        ((X, Y[:, None]), "not (12, 1, 1, 2) and (12, 1) of int64"),
        ((X.byte(), Y), "x must be floating point, such as x.float() / 255 of bytes, not uint8"),
        ((X.to_sparse(), Y), "a batch must hold dense tensors with values"),
        ([(X, ["a"] * 12)], "not 2 things (Tensor, list)"),
        ((X / 0, Y), "x is NaN or infinite somewhere"),
        ((X, Y - 1), "a label is -1; class numbers begin at 0"),
        ([(X, Y), (X[..., :1], Y)], "x has several shapes, (1, 1, 1) and (1, 1, 2); one is expected"),
        (
            DataLoader(TensorDataset(*PAIR), sampler=WeightedRandomSampler([1.0] * 12, 12)),
            "WeightedRandomSampler repeats, weighs or leaves out items",
        ),
    ],
)
def test_what_is_no_part_of_a_data_set_is_refused(loader: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        read_loader(loader, "mine")


def test_data_that_do_not_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("waveq.zoo.datasets.loader_split._MOST_BYTES", 1 << 10)
    with pytest.raises(ValueError, match="give a DataLoader over a dataset with __len__"):
        read_loader(DataLoader(Endless(), batch_size=4), "mine")


class Module:
    """The methods of a LightningDataModule."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def prepare_data(self) -> None:
        self.calls.append("prepare")

    def setup(self, stage: str) -> None:
        self.calls.append(stage)

    def train_dataloader(self) -> Any:
        return DataLoader(TensorDataset(*PAIR), batch_size=5, shuffle=True)

    def val_dataloader(self) -> Any:
        return [DataLoader(TensorDataset(X[:6], Y[:6]))]

    def test_dataloader(self) -> Any:
        return DataLoader(TensorDataset(X[6:], Y[6:]))


def test_a_data_module_is_asked_for_its_test_part_last() -> None:
    module = Module()
    data = own_dataset("mine", module)
    assert module.calls == ["prepare", "fit"]
    assert (data.shape, len(data.train), len(data.validation)) == ((1, 1, 2), 12, 6)
    assert len(data.test()) == 6
    assert module.calls == ["prepare", "fit", "test"]
    assert data_digest(data) == data_digest(own_dataset("mine", {"train": PAIR, "val": (X[:6], Y[:6]), "test": PAIR}))
    assert data_digest(data) != data_digest(own_dataset("mine", (PAIR, PAIR, PAIR)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (PAIR, "as a tuple, a mapping or a LightningDataModule, not 2 things: test is missing"),
        ((TensorDataset(X, Y * 10**8),) * 3, "mine, train: a label is 200,000,000; class numbers 0, 1, 2, ... are"),
        (None, "not NoneType"),
        ({"train": PAIR, "vall": PAIR}, "no part is called 'vall'; did you mean 'val'?"),
        ({"train": PAIR, "val": PAIR}, "the test loader is missing"),
        ((PAIR, (X[..., :1], Y), PAIR), "mine, validation: x has shape (1, 1, 1), but (1, 1, 2) in mine, train"),
        ((PAIR, (X, Y + 5), PAIR), "a label is 7, but mine, train has the classes 0 to 2 only"),
    ],
)
def test_what_are_no_data_is_refused(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        own_dataset("mine", given)


def test_a_data_module_without_a_part_is_refused_before_anything_is_read() -> None:
    from lightning import LightningDataModule

    given = LightningDataModule.from_datasets(TensorDataset(*PAIR), TensorDataset(*PAIR), batch_size=4)
    with pytest.raises(ValueError, match="LightningDataModule has no test_dataloader"):
        own_dataset("mine", given)
    part = TensorDataset(*PAIR)
    assert len(own_dataset("mine", LightningDataModule.from_datasets(part, part, part, batch_size=4)).test()) == 12


def test_tensors_of_a_graph_are_taken_out_of_it() -> None:
    taken, _ = read_loader((X.clone().requires_grad_(), Y), "mine").batch(torch.arange(2))
    assert not taken.requires_grad

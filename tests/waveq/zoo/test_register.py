"""Networks and data sets of others: the documentation's own example, and what is refused."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.docs_blocks import first_python_block
from waveq.zoo import (
    build,
    data_status,
    dataset_names,
    load_data,
    network,
    network_names,
    register_dataset,
    register_network,
)

NETWORK: dict[str, Any] = {"in_channels": 1, "input_size": 8, "num_classes": 2}
DATA: dict[str, Any] = {"classes": ("left", "right"), "channels": 1, "size": 4}

pytestmark = pytest.mark.usefixtures("as_new")


def test_the_documentations_example_joins_the_zoo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_new: Callable[[], None]
) -> None:
    (tmp_path / "my_zoo.py").write_text(first_python_block("training.md", "Networks and data of your own"))
    monkeypatch.syspath_prepend(str(tmp_path))
    made = importlib.import_module("my_zoo")
    assert "pair" in network_names()
    assert "sides" in dataset_names()
    net = build("pair", in_channels=3, num_classes=5)
    assert isinstance(net, made.Pair)
    assert net(torch.zeros(2, 3, 8, 8)).shape == (2, 5)
    assert network("pair").summary == "Two layers."
    data = load_data("Sides", channels=3, size=16)
    assert (data.classes, data.channels, data.size) == (("left", "right"), 3, (16, 16))
    assert (len(data.train), len(data.validation), len(data.test())) == (360, 40, 400)
    x, y = next(iter(data.loader("test", batch_size=400)))
    assert x.shape == (400, 3, 16, 16)
    side = x.mean(dim=(1, 2))
    assert torch.equal(y, (side[:, 8:].mean(1) > side[:, :8].mean(1)).long())


def test_a_maker_gets_the_sizes_that_it_names() -> None:
    seen: list[dict[str, Any]] = []

    @register_network("takes-two", **NETWORK)
    def two(num_classes: int, in_channels: int) -> nn.Module:
        seen.append({"num_classes": num_classes, "in_channels": in_channels})
        return nn.Identity()

    @register_network("takes-all", smallest_size=5, summary="All of them.", **NETWORK)
    def everything(**sizes: Any) -> nn.Module:
        seen.append(sizes)
        return nn.Identity()

    build("takes-two")
    build("takes-all", input_size=(5, 9), width=0.5)
    assert seen == [
        {"num_classes": 2, "in_channels": 1},
        {"num_classes": 2, "in_channels": 1, "input_size": (5, 9), "width": 0.5},
    ]
    with pytest.raises(ValueError, match=r"takes-two are its own .* can be widened: .*takes-all"):
        build("takes-two", width=2)
    with pytest.raises(ValueError, match="does not fit into 4x4 pixels; the smallest it takes is 5x5"):
        build("takes-all", input_size=4)
    with pytest.raises(ValueError, match=r"did you mean 'takes-all'\? \(known: digitsnet, .*takes-two, takes-all\)"):
        build("take-all")


def test_wrong_networks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"network 'LeNet': a name of lower-case letters"):
        register_network("LeNet", **NETWORK)(lambda num_classes, in_channels: nn.Identity())
    with pytest.raises(ValueError, match=r"network 'le-net' is taken: 'lenet' is"):
        register_network("le-net", **NETWORK)(lambda num_classes, in_channels: nn.Identity())
    with pytest.raises(TypeError, match=r"network 'mine': .* does not take 'in_channels'"):
        register_network("mine", **NETWORK)(lambda num_classes: nn.Identity())
    with pytest.raises(TypeError, match=r"network 'mine': .* missing a required argument: 'depth'"):
        register_network("mine", **NETWORK)(lambda num_classes, in_channels, depth: nn.Identity())
    with pytest.raises(ValueError, match="num_classes: a positive whole number is expected, not 0"):
        register_network("mine", **{**NETWORK, "num_classes": 0})
    assert "mine" not in network_names()


def test_files_of_a_data_set_are_looked_for_and_their_folder_is_given(tmp_path: Path) -> None:
    @register_dataset("dots", folders=("dots", "."), files={"train": ("a.npy",), "test": ("b.npy",)},
                      how_to_get="write them yourself", summary="Two files.", **DATA)  # fmt: skip
    def dots(folder: Path, part: str) -> Any:
        pixels = np.load(folder / ("a.npy" if part == "train" else "b.npy"))
        return pixels, [0, 1] * (len(pixels) // 2)

    with pytest.raises(ValueError, match=r"dots is not there; looked for a\.npy in .*To get it: write them yourself"):
        load_data("dots", data_dir=tmp_path)
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", np.zeros((20, 1, 4, 4), dtype=np.uint8))
    assert load_data("dots", data_dir=tmp_path).folder == tmp_path
    (row,) = (row for row in data_status(tmp_path) if row.name == "dots")
    assert (row.found, row.summary) == (tmp_path, "Two files.")


@pytest.mark.parametrize(
    ("pixels", "labels", "expected"),
    [
        (np.zeros((4, 1, 4, 4)), [0, 1, 0, 1], r"pixels uint8 \(N, 1, H, W\) are expected, not torch.float64"),
        (np.zeros((4, 3, 4, 4), dtype=np.uint8), [0, 1, 0, 1], r"not torch.uint8 \(4, 3, 4, 4\)"),
        (np.zeros((4, 16), dtype=np.uint8), [0, 1, 0, 1], r"not torch.uint8 \(4, 16\)"),
        (np.zeros((4, 1, 4, 4), dtype=np.uint8), [0, 1, 0], r"4 labels, whole numbers, are expected, .* \(3,\)"),
        (
            np.zeros((4, 1, 4, 4), dtype=np.uint8),
            [0.0, 1.0, 0.0, 1.0],
            "whole numbers, are expected, not torch.float32",
        ),
        (np.zeros((4, 1, 4, 4), dtype=np.uint8), [0, 1, 0, 2], r"label 2 where 0\.\.1 are expected"),
    ],
)
def test_what_a_reader_gives_is_checked(pixels: Any, labels: Any, expected: str) -> None:
    register_dataset("wrong", **DATA)(lambda folder, part: (pixels, labels))
    with pytest.raises(ValueError, match=rf"dataset 'wrong', part 'train': .*{expected}"):
        load_data("wrong")


def test_wrong_data_sets_are_refused() -> None:
    def read(folder: Path, part: str) -> Any:
        raise AssertionError

    for name in ("digits", "cifar", "fashionmnist"):  # a name, an alias, a name without its hyphen
        with pytest.raises(ValueError, match=f"dataset '{name}' is taken"):
            register_dataset(name, **DATA)(read)
    with pytest.raises(ValueError, match="classes: names such as"):
        register_dataset("mine", **{**DATA, "classes": "ab"})
    with pytest.raises(ValueError, match="folders and files go together"):
        register_dataset("mine", folders=("mine",), **DATA)
    with pytest.raises(ValueError, match="mean and std: one value, or one for each of 1 channels"):
        register_dataset("mine", mean=(0.1, 0.2), std=(1.0, 1.0), **DATA)
    with pytest.raises(ValueError, match="channels: a positive whole number is expected, not 0"):
        register_dataset("mine", **{**DATA, "channels": 0})

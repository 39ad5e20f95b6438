"""Files of tensors: no flipped bit, no lost byte, no foreign object passes; files from elsewhere are read."""

from __future__ import annotations

import io
import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from waveq._archive import load_archive, save_archive

CONTENT = {"weight": torch.arange(200.0), "epoch": 3}


def refused(path: Path) -> bool:
    try:
        load_archive(path)
    except ValueError as error:
        return str(path) in str(error)
    return False


def test_what_was_written_is_read_by_this_reader_and_by_torch(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    save_archive(path, CONTENT)
    for found in (load_archive(path), torch.load(path, weights_only=True)):
        assert torch.equal(found["weight"], CONTENT["weight"])
        assert found["epoch"] == 3
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_every_flipped_bit_of_ours_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    save_archive(path, CONTENT)
    whole = path.read_bytes()
    draw = random.Random(0)
    places = [draw.randrange(8 * len(whole)) for _ in range(300)]
    for place in [*places, *range(8 * (len(whole) - 93), 8 * len(whole))]:
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        assert refused(path), place


@pytest.mark.slow
def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    save_archive(path, CONTENT)
    whole = path.read_bytes()
    for length in [*range(0, len(whole) - 80, 97), *range(len(whole) - 80, len(whole))]:
        path.write_bytes(whole[:length])
        assert refused(path), length


def test_files_from_elsewhere_are_held_to_their_checksums(tmp_path: Path) -> None:
    path = tmp_path / "published.pth"
    torch.save(CONTENT, path)
    whole = path.read_bytes()
    assert load_archive(path)["epoch"] == 3
    place = whole.index(torch.tensor([150.0]).numpy().tobytes())
    path.write_bytes(whole[:place] + b"\x01" + whole[place + 1 :])
    assert float(torch.load(path, weights_only=True)["weight"][150]) != 150  # what torch alone makes of it
    with pytest.raises(ValueError, match=r"published\.pth: damaged"):
        load_archive(path)


def test_the_form_before_torch_1_6_is_read(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(CONTENT, buffer, _use_new_zipfile_serialization=False)
    (tmp_path / "old.pth").write_bytes(buffer.getvalue())
    assert torch.equal(load_archive(tmp_path / "old.pth")["weight"], CONTENT["weight"])


def test_no_code_is_run_and_no_pipe_waited_for(tmp_path: Path) -> None:
    save_archive(tmp_path / "code.pt", {"a": nn.Linear(1, 1)})
    assert refused(tmp_path / "code.pt")
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(ValueError, match=r"pipe\.pt: not a regular file"):
        load_archive(tmp_path / "pipe.pt")
    with pytest.raises(ValueError, match=r"none\.pt: there is no such file"):
        load_archive(tmp_path / "none.pt")


def test_the_digest_is_that_of_all_bytes_before_the_comment(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    save_archive(path, CONTENT)
    whole = path.read_bytes()
    told = subprocess.run(["sha256sum"], input=whole[:-71], capture_output=True, check=True).stdout.split()[0]
    assert whole.endswith(b"sha256:" + told)


def test_a_disk_that_is_full_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")

    @contextmanager
    def drafted(_path: object) -> Iterator[Path]:
        yield full

    monkeypatch.setattr("waveq._archive.whole", drafted)
    with pytest.raises(OSError, match="No space left on device"):
        save_archive(tmp_path / "a.pt", {"a": torch.zeros(10_000)})

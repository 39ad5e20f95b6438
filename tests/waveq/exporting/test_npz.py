"""Archives of packed codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import waveq
from waveq.exporting.npz import pack, read_npz, unpack


@given(st.integers(1, 9), st.data())
def test_packing_is_undone_by_unpacking(bits: int, data: st.DataObject) -> None:
    codes = np.array(data.draw(st.lists(st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1), max_size=40)), int)
    packed = pack(codes, bits)
    assert len(packed) == -(-len(codes) * bits // 8)
    assert unpack(packed, bits, len(codes)).tolist() == codes.tolist()


def network(**options: object) -> tuple[nn.Module, waveq.Policy]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(20, 3))
    wq = waveq.attach(model, bits={"0": 5, "3": 3}, total_steps=1, **options)  # type: ignore[arg-type]
    wq.finalize()
    return model, wq.policy()


@pytest.mark.parametrize("options", [{"quantizer": "lsq", "granularity": "channel"}, {"quantizer": "dorefa"}])
def test_an_archive_holds_the_whole_network(options: dict[str, object], tmp_path: Path) -> None:
    model, policy = network(**options)
    made = waveq.export(model, policy, tmp_path / "net.npz", to="npz")
    for name, found in read_npz(tmp_path / "net.npz").items():
        assert torch.equal(found.weight(), model.get_submodule(name).weight)  # type: ignore[arg-type]
        assert found.bits == policy[name]
    with np.load(tmp_path / "net.npz") as archive:
        assert {"3.bias", "1.running_mean"} <= set(archive)
        assert "3.weight" not in archive
    assert made.float_bytes == 4 * (90 + 60)
    assert made.file_bytes == (tmp_path / "net.npz").stat().st_size
    scales = 4 * (5 + 3 if options.get("granularity") else 2)
    assert made.packed_bytes == -(-90 * 5 // 8) + -(-60 * 3 // 8) + scales
    assert "0: 5 bits packed; 3: 3 bits packed" in str(made)


def test_other_archives_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match=r"a\.npz: .*no archive that waveq\.export wrote \(it has no waveq\.json"):
        read_npz(tmp_path / "a.npz")


def test_codes_that_do_not_fit_are_told_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "net.npz"
    about = {"layers": {"0": {"bits": 5, "shape": [99], "offset": 0, "outputs": None, "dtype": "float32"}}}
    np.savez(path, **{"waveq.json": np.array(json.dumps(about)), "0:codes": np.zeros(3, np.uint8), "0:scale": 1.0})
    with pytest.raises(ValueError, match=r"net\.npz: damaged.*3 bytes of codes for shape \[99\] at 5 bits"):
        read_npz(path)


def test_nothing_is_written_where_the_policy_is_another_models(tmp_path: Path) -> None:
    model, _ = network(quantizer="lsq")
    with pytest.raises(ValueError, match="names layer 'conv1', which the model does not have"):
        waveq.export(model, {"conv1": 3}, tmp_path / "net.npz", to="npz")
    with pytest.raises(ValueError, match=r"to must be one of .*, not 'tflite'"):
        waveq.export(model, {"0": 5}, tmp_path / "net.npz", to="tflite")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())

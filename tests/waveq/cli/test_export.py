"""`waveq export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from waveq.cli.app import main
from waveq.exporting.c_check import find_compiler
from waveq.exporting.npz import read_npz


@pytest.mark.slow
def test_the_final_network_of_a_run(run_copy: Path, designed: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run_copy), "--to", "npz", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["path"] == str(run_copy / "model.npz")
    weights = torch.load(run_copy / "weights.pt", weights_only=True)
    found = read_npz(run_copy / "model.npz")
    assert {name: each.bits for name, each in found.items()} == dict(designed.run.policy)
    for name, each in found.items():
        assert torch.equal(each.weight(), weights[f"{name}.weight"])


@pytest.mark.slow
def test_onnx_says_sizes_and_the_difference(run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxscript", reason="needs waveq[export]")
    pytest.importorskip("onnxruntime", reason="needs waveq[export]")
    assert main(["export", str(run_copy), "--path", str(run_copy / "net.onnx")]) == 0
    text = capsys.readouterr().out
    for word in ("net.onnx", "packed", "in float32", "Carried by: conv1: int", "Largest difference from torch"):
        assert word in text
    assert main(["export", str(run_copy), "--opset", "11"]) == 2
    assert "opset must be 18 or more" in capsys.readouterr().err
    assert not (run_copy / "model.onnx").exists()


@pytest.mark.slow
def test_a_header_and_its_program(run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run_copy), "--to", "c"]) == 0
    compared = "was compiled by" if find_compiler() else "was not compared with torch: no C compiler was found"
    assert compared in capsys.readouterr().out
    assert '#include "model.h"' in (run_copy / "model.c").read_text()


@pytest.mark.slow
def test_torchao_is_a_program(run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torchao", reason="needs waveq[export]")
    capsys.readouterr()  # it says something when it is imported
    assert main(["export", str(run_copy), "--to", "torchao"]) == 0
    captured = capsys.readouterr()
    assert "in int8" in captured.out
    assert captured.err == ""
    torch.export.load(run_copy / "model.pt2")


@pytest.mark.slow
def test_hugging_face_is_for_its_own_models(run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers", reason="needs waveq[hf]")
    pytest.importorskip("compressed_tensors", reason="needs waveq[hf]")
    assert main(["export", str(run_copy), "--to", "hf"]) == 2
    assert "target 'hf' is for models of transformers" in capsys.readouterr().err
    assert not (run_copy / "model.hf").exists()


def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path), "--to", "onx"]) == 2
    error = capsys.readouterr().err
    assert "--to must be one of 'onnx', " in error
    assert "not 'onx'; did you mean 'onnx'?" in error
    assert main(["export", str(tmp_path)]) == 2
    assert "is no run folder" in capsys.readouterr().err

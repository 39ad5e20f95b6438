"""The final network of a run in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from waveq.codesign.deployed import Deployed, deploy
from waveq.train.trained_run import TrainedRun


@pytest.mark.slow
def test_onnx_runtime_has_the_accuracy_of_the_run(run_copy: Path, designed: Any) -> None:
    pytest.importorskip("onnxscript", reason="needs waveq[export]")
    pytest.importorskip("onnxruntime", reason="needs waveq[export]")
    made = deploy(TrainedRun(run_copy))
    assert made.accuracy == made.torch_accuracy == pytest.approx(designed.run.result["test_accuracy"])
    assert made.same == made.images == 359
    assert made.exported.file_bytes == (run_copy / "model.onnx").stat().st_size < made.float_file_bytes
    told = made.to_dict()
    assert told["exported"]["path"] == str(run_copy / "model.onnx")
    assert f"{made.exported.file_bytes:,} bytes, {made.float_file_bytes:,} with float32 weights" in str(made)
    assert "all 359 in the same class" in str(made)
    assert "358 of 359 in the same class" in str(Deployed(**{**vars(made), "same": 358}))

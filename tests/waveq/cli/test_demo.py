"""`waveq demo`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import waveq.codesign.pipeline
from waveq.cli.app import main
from waveq.cli.demo import demo_text


def test_demo_asks_for_the_whole_pipeline_on_digits(
    designed: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: dict[str, Any] = {}

    def note(config: Any, **options: Any) -> Any:
        asked.update(config=config, **options)
        return designed

    monkeypatch.setattr(waveq.codesign.pipeline, "codesign", note)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as if it were not installed
    assert main(["demo", "--run", str(tmp_path), "--seed", "2", "--bits", "2,3", "--json"]) == 0
    assert (asked["config"].dataset, asked["config"].seed, asked["config"].run_dir) == ("digits", 2, tmp_path)
    assert asked["choices"] == (2, 3)
    data = json.loads(capsys.readouterr().out)
    assert data["placement"] == designed.placement.summary()
    told = "model.onnx was left out: this target needs the package onnxruntime: pip install 'waveq[export]'"
    assert data["onnx"] == told
    assert main(["demo", "--run", str(tmp_path)]) == 0
    page = f"all of it as one page, to open in a browser or to mail: {designed.page}"
    assert f"{told}\n{page}\nnext, a network of your own: waveq train" in capsys.readouterr().out


def test_demo_prints_accuracy_costs_and_place(designed: Any) -> None:
    text = demo_text(designed)
    for words in ("float", "bits (mean of layers)", "less energy", "policies evaluated", "report.md"):
        assert words in text


def test_ctrl_c_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(_config: Any, **_options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(waveq.codesign.pipeline, "codesign", stop)
    assert main(["demo", "--run", str(tmp_path)]) == 130
    assert f"Everything so far is in {tmp_path}; the same command goes on" in capsys.readouterr().err

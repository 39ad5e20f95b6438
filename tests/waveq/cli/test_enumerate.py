"""`waveq enumerate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from waveq.cli.app import main
from waveq.codesign import protocol
from waveq.codesign import space as design_space


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_enumerate_agrees_with_the_pipeline(run_copy: Path, designed: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("enumeration.sqlite", "policies.csv"):
        (run_copy / name).unlink()
    out = run_copy / "export.csv"
    found = printed(capsys, "enumerate", str(run_copy), "--bits", "2,4", "--export", str(out))
    assert found["policies"] == len(designed.placement.frame)
    for path in (run_copy / "policies.csv", out):
        pd.testing.assert_frame_equal(pd.read_csv(path), designed.placement.frame, check_dtype=False)


def test_enumerate_through_worker_processes_gives_the_same(
    run_copy: Path, designed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (run_copy / "enumeration.sqlite").unlink()
    words = ["enumerate", str(run_copy), "--bits", "2,4", "--engine", "processes", "--workers", "1"]
    printed(capsys, *words)
    table = pd.read_csv(run_copy / "policies.csv")
    pd.testing.assert_frame_equal(table, designed.placement.frame, check_dtype=False)


@pytest.mark.slow
def test_ctrl_c_in_enumerate_says_how_to_go_on(
    run_copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (run_copy / "enumeration.sqlite").unlink()

    def stop(_self: Any, _policies: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(protocol.Evaluation, "__call__", stop)
    assert main(["enumerate", str(run_copy), "--bits", "2,4", "--quiet"]) == 130
    assert "enumeration.sqlite; the same command goes on from there" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["enumerate", "RUN", "--bits", "2,x"], "--bits must be numbers"),
        (["enumerate", "RUN", "--bits", "2,12"], "1..9"),
        (["enumerate", "RUN", "--engine", "rey"], "did you mean 'ray'?"),
        (["enumerate", "RUN", "--workers", "2"], "--workers needs --engine"),
        (["enumerate", "RUN", "--engine", "processes", "--address", "auto"], "--address needs --engine ray"),
        (["enumerate", "RUN", "--part", "tset"], "did you mean 'test'?"),
        (["enumerate", "RUN", "--bits", "2,4", "--export", "x.xls"], ".csv or .parquet"),
    ],
)
def test_bad_input(words: list[str], expected: str, run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word.replace("RUN", str(run_copy)) for word in words]) == 2
    assert expected in capsys.readouterr().err


def test_a_space_too_large_to_evaluate_is_refused(run_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(design_space, "_LARGEST_SPACE", 10)
    assert main(["enumerate", str(run_copy)]) == 2

"""`waveq enumerate`, `frontier` and `sensitivity` on a finished run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from waveq.cli.app import main
from waveq.codesign import protocol
from waveq.codesign import space as design_space
from waveq.policy import Policy


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


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


def test_ctrl_c_in_enumerate_says_how_to_go_on(
    run_copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (run_copy / "enumeration.sqlite").unlink()

    def stop(_self: Any, _policies: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(protocol.Evaluation, "__call__", stop)
    assert main(["enumerate", str(run_copy), "--bits", "2,4", "--quiet"]) == 130
    assert "enumeration.sqlite; the same command goes on from there" in capsys.readouterr().err


def test_frontier_of_a_run_places_its_policy(run_copy: Path, designed: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (run_copy / "frontier.png").unlink()
    found = printed(capsys, "frontier", str(run_copy))
    assert found["placement"] == designed.placement.summary()
    assert len(found["frontier"]) == len(designed.placement.front)
    assert (run_copy / "frontier.png").stat().st_size > 1000
    assert main(["frontier", str(run_copy)]) == 0
    text = capsys.readouterr().out
    assert "policies are efficient" in text
    assert "frontier:" in text or "on the frontier" in text


def test_frontier_of_any_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "table.csv"
    pd.DataFrame({"a": [2, 3, 4], "accuracy": [80.0, 90.0, 85.0], "cycles": [1, 2, 3]}).to_csv(table, index=False)
    found = printed(capsys, "frontier", str(table), "--sense", "accuracy=max,cycles=min")
    assert [row["a"] for row in found["frontier"]] == [2, 3]
    assert (tmp_path / "frontier.csv").exists()
    Policy({"a": 4}).save(tmp_path / "mine.json")
    words = ["--policy", str(tmp_path / "mine.json"), "--budget", "2.5"]
    assert main(["frontier", str(table), "--sense", "accuracy=max,cycles=min", *words]) == 0
    assert not (tmp_path / "frontier.html").exists()
    assert main(["frontier", str(table), "--sense", "accuracy=max,cycles=min", "--html", *words]) == 0
    assert "plotly" in (tmp_path / "frontier.html").read_text(encoding="utf-8")


def test_sensitivity_has_a_row_for_every_layer_and_step(
    run_copy: Path, designed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    found = printed(capsys, "sensitivity", str(run_copy))["sensitivity"]
    policy = dict(designed.run.policy)
    expected = {(name, bits + step) for name, bits in policy.items() for step in (-1, 1) if 1 <= bits + step <= 9}
    assert {(row["layer"], row["changed_bits"]) for row in found} == expected
    assert all(row["standard_error"] >= 0 for row in found)
    assert main(["sensitivity", str(run_copy), "--steps=-1"]) == 0
    assert "mean over layers of -1 bit" in capsys.readouterr().out


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
        (["frontier", "RUN", "--sense", "accuracy"], "COLUMN=max or COLUMN=min"),
        (["frontier", "RUN", "--sense", "accuracy=max,energy=min"], "energy"),
        (["frontier", "RUN/nothing.csv"], "is not there"),
        (["sensitivity", "RUN", "--steps", "one"], "whole numbers"),
    ],
)
def test_bad_input(words: list[str], expected: str, run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word.replace("RUN", str(run_copy)) for word in words]) == 2
    assert expected in capsys.readouterr().err


def test_a_space_too_large_to_evaluate_is_refused(run_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(design_space, "_LARGEST_SPACE", 10)
    assert main(["enumerate", str(run_copy)]) == 2

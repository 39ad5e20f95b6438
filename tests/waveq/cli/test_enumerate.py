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
def test_a_smaller_table_replaces_a_larger_one_only_when_told(
    run_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run_copy / "policies.csv").read_bytes()
    assert main(["enumerate", str(run_copy), "--bits", "2", "--quiet"]) == 2
    assert "has 17 policies, and 15 of them are not asked for now" in capsys.readouterr().err
    assert (run_copy / "policies.csv").read_bytes() == before
    assert printed(capsys, "enumerate", str(run_copy), "--bits", "2", "--replace")["policies"] == 2


@pytest.mark.slow
def test_another_machine_reprices_what_the_report_says(run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = json.loads((run_copy / "frontier.json").read_text())["own"]
    printed(capsys, "enumerate", str(run_copy), "--bits", "2,4", "--hardware", "loom")
    assert main(["report", str(run_copy)]) == 0
    own = json.loads((run_copy / "frontier.json").read_text())["own"]
    assert own["accuracy"] == old["accuracy"]
    assert own["energy_pj"] != old["energy_pj"]
    table = pd.read_csv(run_copy / "policies.csv")
    assert own["energy_pj"] in table["energy_pj"].tolist()
    assert f"| learned | {own['accuracy']:.2f} | {own['energy_pj'] / 1e6:.4g} |" in (run_copy / "report.md").read_text()
    table.iloc[:-1].to_csv(run_copy / "policies.csv", index=False)
    assert main(["report", str(run_copy)]) == 2
    assert "policies.csv is not the table that waveq enumerate left" in capsys.readouterr().err


@pytest.mark.slow
def test_other_pixels_with_the_same_labels_are_another_campaign(
    run_copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from waveq.zoo.datasets.splits import MemorySplit

    real = MemorySplit.batch
    monkeypatch.setattr(MemorySplit, "batch", lambda *given, **more: (lambda x, y: (-x, y))(*real(*given, **more)))
    assert main(["enumerate", str(run_copy), "--bits", "2,4", "--quiet"]) == 2
    assert "fingerprint.data.evaluated: stored" in capsys.readouterr().err


@pytest.mark.slow
def test_a_policy_that_fails_stays_out_until_it_is_tried_again(
    run_copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (run_copy / "enumeration.sqlite").unlink()
    whole, real = (run_copy / "policies.csv").read_bytes(), protocol.Evaluation.correct

    def fragile(evaluation: Any, policies: Any) -> Any:
        if (policies == 4).all(axis=1).any():
            raise ArithmeticError("diverged")
        return real(evaluation, policies)

    words = ["enumerate", str(run_copy), "--bits", "2,4", "--quiet"]
    with monkeypatch.context() as patch:
        patch.setattr(protocol.Evaluation, "correct", fragile)
        assert main([*words, "--replace"]) == 0
        assert "1 policy has failed and no result" in capsys.readouterr().err
    assert len(pd.read_csv(run_copy / "policies.csv")) == 16
    assert main(words) == 0
    assert len(pd.read_csv(run_copy / "policies.csv")) == 16
    assert main([*words, "--retry-failed"]) == 0
    assert (run_copy / "policies.csv").read_bytes() == whole


@pytest.mark.slow
def test_ctrl_c_in_enumerate_says_how_to_go_on(
    run_copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (run_copy / "enumeration.sqlite").unlink()

    def stop(_self: Any, _policies: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(protocol.Evaluation, "correct", stop)
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


@pytest.mark.slow
def test_enumerate_without_a_protocol_goes_on_with_the_runs_own(run_copy: Path, designed: Any) -> None:
    before = json.loads((run_copy / "enumeration.json").read_text())["protocol"]
    assert main(["enumerate", str(run_copy), "--bits", "2,4", "--quiet", "--replace"]) == 0
    assert json.loads((run_copy / "enumeration.json").read_text())["protocol"] == before

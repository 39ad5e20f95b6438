"""`waveq sweep`."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from waveq.cli.app import main
from waveq.codesign import sweep as sweeping

TINY = ["--recipe", "digits", "--set", "pretrain-epochs=0", "--set", "epochs=1", "--set", "validation=0.3"]


@pytest.mark.slow
def test_sweep_status_export_and_frontier(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = tmp_path / "sweep", tmp_path / "sweep.csv"
    words = ["--grid", "bits=2,4", "--grid", "precision=32", "--run", str(folder)]
    assert main(["sweep", *TINY, *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["points"], found["done"], found["failed"]) == (2, 2, [])
    assert [row["mean_bits"] for row in found["results"]] == [2, 4]
    assert main(["sweep", "--run", str(folder), "--status", "--export", str(out)]) == 0
    assert "2 of 2 runs done, 0 failed, 0 to go" in capsys.readouterr().out
    assert pd.read_csv(out)["accuracy"].tolist() == [row["accuracy"] for row in found["results"]]
    assert main(["frontier", str(out)]) == 0
    assert "of 2 policies are efficient" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--grid", "seed"], "--grid must be AXIS=VALUE,VALUE such as seed=0,1 or tiles=4,8, not 'seed'"),
        (["--set", "epochs"], "--set must be NAME=VALUE, such as epochs=12, not 'epochs'"),
        (["--grid", "seed=0,x"], "seed x: seed is 'x'"),
        (["--recipe", "digits", "--set", "lr=-1", "--grid", "seed=0,1"], "--set: lr is -1: input should be"),
        (["--recipe", "digits", "--set", "search_share=0.5", "--grid", "bits=4"], "bits 4, --set: search_share is"),
        (["--gpus", "0.5"], "--cpus and --gpus need --engine ray"),
        (["--status", "--grid", "seed=0"], "--status and --export alone read the sweep of --run"),
        (["--export", "a.txt"], "--export must end in .csv"),
        (["--run", "nowhere", "--status"], "nowhere holds no sweep"),
    ],
)
def test_wrong_words_are_refused(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", *words]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("seconds", "words"), [(30.0, "30 s"), (600.0, "10 min"), (9000.0, "2.5 h")])
def test_time_left_is_said(
    seconds: float, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweeping._seconds_left([100.0, 100.0 + seconds, 100.0 + seconds / 2], 2) == seconds
    found = sweeping.SweepStatus(
        points=[None, None],  # type: ignore[list-item]
        done=pd.Series([False, False]).to_numpy(),
        reasons={},
        begun=1,
        seconds_left=seconds,
    )
    monkeypatch.setattr(sweeping, "sweep_status", lambda _folder: found)
    assert main(["sweep", "--run", str(tmp_path), "--status"]) == 0
    assert f"2 to go (1 begun), some {words} at the pace so far" in capsys.readouterr().out

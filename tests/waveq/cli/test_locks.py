"""Every verb that writes into a run folder is refused while another process is in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from waveq.cli.app import main
from waveq.train.lock import LOCK_FILE, alone_in

VERBS = [
    ["train", "--run", "RUN", "--recipe", "digits"],
    ["enumerate", "RUN", "--bits", "2,4"],
    ["search", "RUN", "--bits", "2,4"],
    ["sensitivity", "RUN"],
    ["frontier", "RUN"],
    ["frontier", "RUN/policies.csv", "--sense", "accuracy=max,cycles=min"],
    ["frontier", "ELSEWHERE/policies.csv", "--out", "RUN"],
    ["report", "RUN"],
    ["export", "RUN", "--to", "npz"],
    ["rtl", "RUN", "--layer", "conv1"],
    ["score", "RUN", "--run", "RUN"],
    ["explore", "RUN", "--grid", "tiles=8,16", "--run", "RUN"],
]


@pytest.mark.slow
def test_a_folder_in_use_is_left_alone(run_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "policies.csv").write_bytes((run_copy / "policies.csv").read_bytes())
    before = {path: path.stat().st_mtime_ns for path in run_copy.rglob("*") if path.name != LOCK_FILE}
    with alone_in(run_copy):
        for words in VERBS:
            told = [word.replace("RUN", str(run_copy)).replace("ELSEWHERE", str(elsewhere)) for word in words]
            assert main(told) == 2, words
            assert f"{run_copy} is in use by process {os.getpid()}" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in run_copy.rglob("*") if path.name != LOCK_FILE} == before
    assert main(["frontier", str(run_copy), "--out", str(elsewhere), "--sense", "accuracy=max,cycles=min"]) == 0
    assert not (elsewhere / LOCK_FILE).exists()

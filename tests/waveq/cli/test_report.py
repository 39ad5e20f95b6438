"""`waveq report`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from waveq.cli.app import main


@pytest.mark.slow
def test_report_is_written_again(run_copy: Path, designed: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (run_copy / "report.md").unlink()
    (run_copy / "frontier.png").unlink()
    assert main(["report", str(run_copy)]) == 0
    assert (run_copy / "frontier.png").exists()
    ours, first = (run_copy / "report.md").read_text(), designed.report.read_text()
    assert ours.replace(str(run_copy), "RUN") == first.replace(str(designed.run.path), "RUN")


@pytest.mark.slow
def test_report_names_what_was_not_run(run_copy: Path) -> None:
    for name in ("score.txt", "policies.csv", "sensitivity.csv"):
        (run_copy / name).unlink()
    assert main(["report", str(run_copy)]) == 0
    text = (run_copy / "report.md").read_text()
    for command in ("waveq score", "waveq enumerate", "waveq sensitivity"):
        assert f"`{command} {run_copy}" in text

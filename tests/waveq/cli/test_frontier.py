"""`waveq frontier`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from waveq.cli.app import main
from waveq.policy import Policy


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
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


@pytest.mark.slow
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
    assert '"budgets":[2.5],"best":[1]' in (tmp_path / "frontier.html").read_text(encoding="utf-8")


def test_the_input_is_never_written_and_nothing_before_all_checks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "frontier.csv"
    table.write_text("a,accuracy,cycles\n2,80,1\n3,70,2\n")
    (tmp_path / "link").symlink_to(tmp_path)
    words = ["--sense", "accuracy=max,cycles=min"]
    for source in (table, tmp_path / "link" / "frontier.csv"):
        assert main(["frontier", str(source), *words]) == 2
        assert "is read, and would be written too; name another folder" in capsys.readouterr().err
    assert main(["frontier", str(table), *words, "--out", str(tmp_path / "out"), "--budget", "0.5"]) == 2
    assert "no front point has 'cycles' within it" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert table.read_text() == "a,accuracy,cycles\n2,80,1\n3,70,2\n"


@pytest.mark.slow
def test_out_moves_all_of_it(run_copy: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in run_copy.iterdir() if path.is_file() and path.name != ".lock"}
    assert main(["frontier", str(run_copy), "--out", str(tmp_path / "out")]) == 0
    assert {path: path.read_bytes() for path in before} == before
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"frontier.csv", "frontier.json", "frontier.png"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["frontier", "RUN", "--sense", "accuracy"], "COLUMN=max or COLUMN=min"),
        (["frontier", "RUN", "--sense", "accuracy=max,energy=min"], "energy"),
        (["frontier", "RUN/nothing.csv"], "is not there"),
    ],
)
def test_bad_input(words: list[str], expected: str, run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word.replace("RUN", str(run_copy)) for word in words]) == 2
    assert expected in capsys.readouterr().err

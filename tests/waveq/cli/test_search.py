"""`waveq search`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from waveq.cli.app import main


@pytest.mark.slow
def test_search_measures_few_and_goes_on_where_it_stopped(
    run_copy: Path, designed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("enumeration.sqlite", "policies.csv"):
        (run_copy / name).unlink()
    words = ["search", str(run_copy), "--bits", "2,3,4,8", "--quiet"]
    assert main([*words, "--evaluations", "20", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    table = pd.read_csv(run_copy / "search.csv")
    names = list(designed.run.policy)
    own = designed.run.policy
    assert len(table) == found["policies"] == 20
    assert (table[names] == [own[name] for name in names]).all(axis=1).any()
    assert (run_copy / "search.png").stat().st_size > 5000
    assert found["placement"]["efficient"] in (True, False)
    assert main([*words, "--evaluations", "25"]) == 0
    said = capsys.readouterr().out
    assert "of 25 measured policies are efficient" in said
    assert main([*words, "--evaluations", "10"]) == 0
    assert "nothing was measured" in capsys.readouterr().out
    assert main([*words, "--evaluations", "26", "--objective", "cycles"]) == 0
    assert main(["frontier", str(run_copy / "search.csv"), "--out", str(run_copy / "front")]) == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--objective", "energy"], "did you mean 'energy_pj'?"),
        (["--evaluations", "0"], "evaluations"),
        (["--engine", "serial", "--workers", "2"], "--workers needs --engine processes"),
    ],
)
def test_bad_input(words: list[str], expected: str, run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", str(run_copy), *words]) == 2
    assert expected in capsys.readouterr().err

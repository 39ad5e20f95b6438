"""`waveq sensitivity`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from waveq.cli.app import main


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_sensitivity_has_a_row_for_every_layer_and_step(
    run_copy: Path, designed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    found = printed(capsys, "sensitivity", str(run_copy))["sensitivity"]
    policy = dict(designed.run.policy)
    expected = {
        (name, bits + step) for name, bits in policy.items() for step in (-1, 1) if 2 <= bits + step <= 9
    }  # LSQ's
    assert {(row["layer"], row["changed_bits"]) for row in found} == expected
    assert all(row["standard_error"] >= 0 for row in found)
    assert main(["sensitivity", str(run_copy), "--steps=-1"]) == 0
    assert "mean over layers of -1 bit" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["sensitivity", "RUN", "--steps", "one"], "whole numbers"),
    ],
)
def test_bad_input(words: list[str], expected: str, run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word.replace("RUN", str(run_copy)) for word in words]) == 2
    assert expected in capsys.readouterr().err

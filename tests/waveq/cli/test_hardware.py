"""`waveq hardware`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from waveq.cli.app import main

LENET = ["--model", "lenet"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def scored(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    assert main(["score", *words, "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_hardware_lists_units_and_sources(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hardware", "stripes"]) == 0
    text = capsys.readouterr().out
    assert "clock_hz" in text
    assert "published:" in text
    assert main(["hardware", "stripes", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["parameters"]
    assert all(row["source"] for row in rows)


def test_hardware_reads_a_users_own_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "mine.toml").write_text('base = "stripes"\nname = "Mine"\ntiles = 4\n')
    assert scored(capsys, "4", *LENET, "--hardware", "mine.toml")["what"].startswith("Mine (")  # type: ignore[attr-defined]
    assert main(["hardware", "mine.toml"]) == 0
    assert "mine.toml" in capsys.readouterr().out

"""`waveq explore`."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from stripes_sim import Stripes, trace
from waveq.cli.app import main
from waveq.zoo import build


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_machines_are_scored_and_the_efficient_ones_shown(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["explore", "4", "--model", "lenet", "--grid", "tiles=1,4,16", "--grid", "rows=8,16", "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    folder = Path(found["run"])
    frame = pd.read_csv(folder / "explore.csv")
    assert found["machines"] == len(frame) == 6
    assert (folder / "explore.png").read_bytes()[:4] == b"\x89PNG"
    layers = trace(build("lenet"), (1, 28, 28))
    row = frame[(frame["tiles"] == 4) & (frame["rows"] == 8)].iloc[0]
    assert row["energy_pj"] == pytest.approx(Stripes(tiles=4, rows=8).run(layers, 4).energy_pj)
    for one in found["efficient"]:
        better = frame[(frame["area_mm2"] <= one["area_mm2"]) & (frame["energy_pj"] < one["energy_pj"])]
        assert better.empty


@pytest.mark.slow
def test_a_run_folder_needs_no_network(run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explore", str(run_copy), "--grid", "storage=packed,padded", "--sense", "cycles=min"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("2 machines, ")
    assert "assumed constants" in text
    assert (run_copy / "explore.csv").exists()


def test_switches_of_a_machine_are_swept_and_inputs_have_their_bits(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["explore", "4", "--model", "lenet", "--grid", "resident_weights=true,false", "--sense", "cycles=min"]
    cycles = []
    for extra in (["--activation-bits", "8"], ["--activation-bits", "4"]):
        assert main([*words, *extra, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["machines"] == 2
        assert [row["resident_weights"] for row in found["efficient"]] == [True]
        cycles.append(found["efficient"][0]["energy_pj"])
    assert cycles[0] > cycles[1]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--grid", "tils=1"], "did you mean 'tiles'?"),
        (["--grid", "tiles"], "PARAMETER=VALUE"),
        (["--grid", "tiles=0"], "tiles"),
        (["--sense", "area=min"], "area"),
        (["--batch", "0"], "--batch must be at least 1, but it is 0"),
    ],
)
def test_bad_input(words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explore", "4", "--model", "lenet", *words]) == 2
    assert expected in capsys.readouterr().err

"""table5 from end to end, on an encoder of random weights and a treebank of three words a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.paper.table5 import summary, verdicts
from benchmarks.treebank import runs
from benchmarks.treebank.settings import BUDGETS, ROWS
from tests.benchmarks.tiny_encoder import sentences, write_encoder
from waveq.zoo.datasets.conllu import read_conllu, write_conllu


def options(tmp_path: Path, *more: str) -> list[str]:
    if not (tmp_path / "tiny").exists():
        write_encoder(tmp_path / "tiny")
        write_conllu(tmp_path / "svo.conllu", sentences(120))
    return [
        "table5",
        "--budget",
        "tiny",
        "--encoder",
        str(tmp_path / "tiny"),
        "--treebanks",
        str(tmp_path / "svo.conllu"),
        "--folder",
        str(tmp_path / "folder"),
        "--out",
        str(tmp_path / "out"),
        "--device",
        "cpu",
        *more,
    ]


@pytest.mark.slow
def test_all_rows_are_trained_once_and_read_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = options(tmp_path, "--seeds", "0")
    assert main(given) == 0
    written = json.loads((tmp_path / "out" / "table5.json").read_text())
    assert [line[0] for line in written["table"]["lines"]] == list(ROWS)
    assert written["table"]["columns"] == ["row", "bits", "svo UPOS", "svo LAS"]
    assert "svo, W4,5/A8, wave less without" in written["verdicts"]
    rows = pd.DataFrame(written["rows"]["lines"], columns=written["rows"]["columns"]).set_index("row")
    assert rows.mean_bits["W8/A8"] == 8.0
    assert rows.bits["W4/A8"].split() == ["4"] * 12  # six linear layers in each of two, nothing else
    parsed = sorted((tmp_path / "folder" / "cpu").glob("*.conllu"))
    assert len(parsed) == len(ROWS)
    assert len(list((tmp_path / "folder" / "cpu").glob("float-*.pt"))) == 1
    assert all(word.upos in ("NOUN", "VERB") for sentence in read_conllu(parsed[0]) for word in sentence.words)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(runs, "_train", refuse)
    assert main([*given, "--minutes", "0"]) == 0
    assert json.loads((tmp_path / "out" / "table5.json").read_text())["rows"] == written["rows"]


@pytest.mark.slow
def test_a_row_is_the_same_again(tmp_path: Path) -> None:
    for folder in ("one", "other"):
        more = ("--seeds", "3", "--rows", "W4,5/A8, wave", "--folder", str(tmp_path / folder), "--name", folder)
        assert main(options(tmp_path, *more)) == 0
    one, other = (json.loads((tmp_path / "out" / f"{name}.json").read_text())["rows"] for name in ("one", "other"))
    seconds = one["columns"].index("seconds")
    assert [cell for i, cell in enumerate(one["lines"][0]) if i != seconds] == [
        cell for i, cell in enumerate(other["lines"][0]) if i != seconds
    ]


def test_no_time_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(options(tmp_path, "--minutes", "0")) == 2
    assert "no seed of any treebank was finished in time" in capsys.readouterr().err


def test_what_is_missing_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = options(tmp_path)
    given[given.index("--treebanks") + 1] = "fr-spoken"
    assert main([*given, "--data-dir", str(tmp_path)]) == 2
    assert "UD_French-Spoken" in capsys.readouterr().err


def test_runs_of_other_settings_have_other_names() -> None:
    first = runs.Run(treebank="a", encoder="b", row="float", seed=0, setting=BUDGETS["tiny"])
    assert first.key() == runs.Run(treebank="a", encoder="b", row="float", seed=0, setting=BUDGETS["tiny"]).key()
    others = [
        runs.Run(treebank="a", encoder="b", row="W8/A8", seed=0, setting=BUDGETS["tiny"]),
        runs.Run(treebank="a", encoder="b", row="float", seed=1, setting=BUDGETS["tiny"]),
        runs.Run(treebank="a", encoder="b", row="float", seed=0, setting=BUDGETS["quick"]),
    ]
    assert len({run.key() for run in (first, *others)}) == 4


def test_table_and_differences_by_hand() -> None:
    scores = {"W4/A8": (80.0, 50.0), "W5/A8": (84.0, 60.0), "W4,5/A8": (82.0, 54.0), "W4,5/A8, wave": (83.0, 57.0)}
    rows = pd.DataFrame(
        [
            {
                "treebank": "t",
                "seed": seed,
                "row": row,
                "upos": upos + seed,
                "las": las,
                "mean_bits": 4.0,
                "bits": f"{3 + seed} 4",
            }
            for row, (upos, las) in scores.items()
            for seed, bits in ((0, "3 4"), (1, "4 4"))
        ]
    )
    assert summary(rows).loc["W5/A8"].tolist() == ["4.00, 3 to 4", "84.50 (0.50)", "60.00 (0.00)"]
    assert verdicts(rows) == {
        "t, W4,5/A8, wave less without": "UPOS 1.00 (0.00), LAS 3.00 (0.00)",
        "t, W4,5/A8, wave less the middle of W4/A8 and W5/A8": "UPOS 1.00 (0.00), LAS 2.00 (0.00)",
    }


def test_the_rate_rises_and_falls() -> None:
    shape = [runs._warm_then_cosine(step, 50) for step in range(51)]
    assert shape[0] == pytest.approx(0.2)
    assert shape[4] == shape[5] == 1.0
    assert shape[-1] == pytest.approx(0.0)
    assert torch.tensor(shape[5:]).diff().le(0).all()

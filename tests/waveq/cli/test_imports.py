"""`--import`: a user's own quantizer, network and data, from training to every verb on the run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docs_blocks import first_python_block
from waveq.cli.app import main


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_new: Callable[[], None]) -> Path:
    """A folder outside the repository with the two files of the documentation."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_methods.py").write_text(first_python_block("quantizers.md", "A new method"))
    (tmp_path / "my_zoo.py").write_text(first_python_block("training.md", "Networks and data of your own"))
    return tmp_path


TRAIN = ["--model", "pair", "--dataset", "sides", "--quantizer", "three-sigma", "--bits", "3", "--epochs", "2"]
TRAIN += ["--pretrain-epochs", "2", "--batch-size", "40", "--threads", "1", "--run", "run", "--quiet"]


@pytest.mark.slow
def test_a_run_with_everything_of_ones_own(
    here: Path, as_new: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--import", "my_methods", "--import", "my_zoo", *TRAIN, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["test_accuracy"] > 0.8
    assert json.loads((here / "run" / "config.json").read_text())["imports"] == ["my_methods", "my_zoo"]
    assert json.loads((here / "run" / "policy.json").read_text())["quantizer"] == "three-sigma"
    for words in (
        ["score", "run"],
        ["enumerate", "run", "--bits", "2,3", "--engine", "processes", "--workers", "1", "--quiet"],
        ["sensitivity", "run"],
        ["report", "run"],
        ["train", "--recipe", "run/config.json", "--run", "run", "--quiet"],
    ):
        as_new()  # each verb is a process of its own, which knows the run folder alone
        assert main(words) == 0, capsys.readouterr().err
    assert "three-sigma" in (here / "run" / "report.md").read_text()


@pytest.mark.slow
def test_verbs_without_a_run_take_modules_too(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "4", "--import", "my_zoo", "--model", "pair"]) == 0
    assert "total" in capsys.readouterr().out
    assert main(["explore", "4", "--import", "my_zoo", "--model", "pair", "--grid", "tiles=1,2"]) == 0
    assert main(["data", "--import", "my_zoo", "--json"]) == 0
    capsys.readouterr()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["data", "--import", "my_zo"], "no module 'my_zo' in the current folder"),
        (["data", "--import", "my_zoo.py"], "a module's name is expected"),
        (["train", "--set", "imports=my_zoo"], "imports"),
        (["train", "--import", "my_zoo", "--model", "pear", "--dataset", "sides"], "did you mean 'pair'?"),
        (["train", *TRAIN], "nothing is called 'pair'"),
        (
            ["train", "--import", "my_zoo", *TRAIN, "--set", "validation=0.5"],
            "unknown quantizer 'three-sigma'",
        ),
    ],
)
@pytest.mark.usefixtures("here")
def test_bad_input(words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert expected in error

"""The command line as a whole: exit codes, one sentence per error, help that does not wait for torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from waveq import cli
from waveq.cli import app
from waveq.cli.common import Interrupted

VERBS = [
    "data",
    "demo",
    "enumerate",
    "frontier",
    "hardware",
    "report",
    "score",
    "sensitivity",
    "train",
]


def registered() -> list[str]:
    return sorted(command.name or "" for command in app.app.registered_commands)


def test_every_verb_is_listed_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    listed = capsys.readouterr().out
    assert set(VERBS) <= set(registered())
    for verb in registered():
        assert f"  {verb} " in listed


@pytest.mark.parametrize("verb", registered())
def test_help_of_a_verb_shows_an_example_and_json(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"Example: waveq {verb}" in text
    assert "--json" in text


def test_help_imports_nothing_heavy() -> None:
    heavy = ("torch", "numpy", "pandas", "matplotlib", "numba", "lightning", "pydantic")
    code = (
        "import sys; from waveq.cli import main; main(['--help']); "
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["scor"], "Did you mean 'score'?"),
        (["score"], "Missing argument"),
        (["hardware", "--jsn"], "--json"),
        (["hardware", "stripe"], "did you mean 'stripes'?"),
        (["demo", "--seed", "one"], "--seed must be a whole number, not 'one'"),
        (["report", "no/such/folder"], "no run folder"),
        (["train", "--dataset", "fashion-mnits"], "did you mean 'fashion-mnist'?"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.strip().splitlines()) == 1
    assert expected in captured.err


def test_no_arguments_print_the_help_and_fail(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "Commands:" in capsys.readouterr().err


def _app_that_raises(error: BaseException) -> typer.Typer:
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command("go")
    def go() -> None:
        """Raise."""
        raise error

    @app.command("stay")
    def stay() -> None:
        """Stay."""

    return app


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (RuntimeError("the pump broke"), 1, "the pump broke (RuntimeError"),
        (ValueError("bits is 12"), 2, "bits is 12\n"),
        (FileNotFoundError(2, "No such file or directory", "x.json"), 2, "x.json: No such file"),
        (
            OSError(28, "No space left on device", "a/score.csv"),
            1,
            "a/score.csv: No space left on device\n",
        ),
        (
            KeyboardInterrupt(),
            130,
            "stopped. What was there is as it was; the same command begins again, or goes on.\n",
        ),
        (Interrupted("The same command goes on."), 130, "The same command goes on."),
    ],
)
def test_errors_become_exit_codes(
    error: BaseException,
    code: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(app, "app", _app_that_raises(error))
    monkeypatch.delenv("WAVEQ_DEBUG", raising=False)
    assert cli.main(["go"]) == code
    captured = capsys.readouterr()
    assert words in captured.err
    assert "Traceback" not in captured.err + captured.out


def test_debug_variable_lets_the_error_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "app", _app_that_raises(ValueError("bits is 12")))
    monkeypatch.setenv("WAVEQ_DEBUG", "1")
    with pytest.raises(ValueError, match="bits is 12"):
        cli.main(["go"])


@pytest.mark.slow
def test_python_dash_m_is_the_same_command() -> None:
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-m", "waveq", "hardware", "--json"], capture_output=True, text=True, cwd=root, check=True
    )
    assert "stripes" in json.loads(done.stdout)["hardware"]


@pytest.mark.slow
def test_a_closed_pipe_is_no_error() -> None:
    root = Path(__file__).resolve().parents[3]
    command = f"{sys.executable} -m waveq hardware stripes | true"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, cwd=root, check=False)
    assert done.stderr == ""


def test_names_from_files_steer_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.csv"
    path.write_text("name,kind,in_channels,out_channels\nfc\x1b[2J,linear,3,2\n")
    assert app.main(["score", "4", "--workload", str(path)]) == 0
    assert "fc\\x1b[2J" in capsys.readouterr().out


@pytest.mark.slow
def test_a_locale_without_greek_ends_nothing() -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    words = [sys.executable, "-m", "waveq", "score", "\u03b2"]
    done = subprocess.run(words, env=os.environ | plain, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "codec" not in done.stderr

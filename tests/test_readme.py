"""The README does what it says: its Python runs, its commands print what stands below them, its verbs exist.

Blocks marked `python` are executed. In blocks marked `console` every line that begins with "$ waveq" is run in this
process, and what it prints on standard output must be what follows ("..." stands for anything). Blocks marked `text`
show long runs: only their commands are checked for options that do not exist.
"""

from __future__ import annotations

import doctest
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from waveq.cli.app import app, main

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(kind: str) -> list[str]:
    return [body for found, body in FENCE.findall(README) if found == kind]


def commands(kind: str) -> list[tuple[str, str]]:
    """(command, expected output) of every "$ ..." line."""
    found = []
    for block in blocks(kind):
        for piece in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = piece.partition("\n")
            while command.endswith("\\"):
                more, _, output = output.partition("\n")
                command = command[:-1] + more.strip()
            found.append((command, output.strip()))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python_blocks_run_as_scripts(number: int, tmp_path: Path) -> None:
    # a process of its own, where nothing is imported but what the block imports
    subprocess.run(
        [sys.executable, "-W", "error", "-"], input=blocks("python")[number], text=True, check=True, cwd=tmp_path
    )


@pytest.mark.parametrize(("command", "expected"), [c for c in commands("console") if c[0].startswith("waveq ")])
def test_console_blocks_print_what_they_show(
    command: str,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(command)[1:]) == 0
    shown = capsys.readouterr().out.strip()
    same = doctest.OutputChecker().check_output(
        expected + "\n", shown + "\n", doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )
    assert same, f"README shows\n{expected}\nbut {command!r} prints\n{shown}"


def options_of(verb: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    assert main([verb, "--help"]) == 0
    return set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))


@pytest.mark.parametrize("command", [c for c, _ in commands("text") + commands("console") if c.startswith("waveq ")])
def test_commands_have_verbs_and_options_that_exist(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    verb, *words = shlex.split(command)[1:]
    used = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert used <= options_of(verb, capsys)


def test_every_verb_stands_in_the_table() -> None:
    for command in app.registered_commands:
        assert f"| `waveq {command.name}`" in README


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = [command.split()[1] for command, _ in commands("console") if command.startswith("make ")]
    assert targets[:2] == ["demo", "test"]
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_linked_files_exist() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in link:
            assert (ROOT / link).exists(), link


def test_pictures_are_small() -> None:
    for picture in (ROOT / "docs" / "pictures").glob("*.png"):
        assert picture.stat().st_size < 150_000, picture

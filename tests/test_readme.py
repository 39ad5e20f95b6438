"""The README does what it says: its Python runs, its commands print what stands below them, its verbs exist.

The block marked `python` is executed as a script. In blocks marked `console` every line that begins with "$ waveq" is
run in this process, and what it prints on standard output must be what follows ("..." stands for anything). Blocks
marked `text` show long runs: only their commands are checked for options that do not exist, on all pages.
"""

from __future__ import annotations

import doctest
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs_blocks import DOCS, ROOT, blocks, commands, verb_and_options
from waveq.cli.app import app, main

README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")
SHOWN = [README, *(page for page in sorted(DOCS.glob("*.md")) if "$ waveq" in page.read_text(encoding="utf-8"))]


@pytest.mark.slow
def test_the_block_of_python_runs_as_a_script(tmp_path: Path) -> None:
    # a process of its own, where nothing is imported but what the block imports
    [block] = [each.code for each in blocks(README) if each.kind == "python"]
    (tmp_path / "block.py").write_text(block, encoding="utf-8")
    subprocess.run([sys.executable, "-W", "error", "block.py"], check=True, cwd=tmp_path)


@pytest.mark.parametrize(
    ("command", "expected"),
    sorted({each for page in (README, DOCS / "index.md") for each in commands(page, "console") if "waveq" in each[0]}),
)
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
    assert same, f"the page shows\n{expected}\nbut {command!r} prints\n{shown}"


@pytest.mark.parametrize("page", SHOWN, ids=lambda page: page.stem)
def test_commands_have_verbs_and_options_that_exist(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command, _ in commands(page, "console") + commands(page, "text"):
        if command.startswith("waveq "):
            verb, used = verb_and_options(command)
            assert main([verb, "--help"]) == 0
            offered = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))
            assert used <= offered, command


def test_it_is_short() -> None:
    assert len(TEXT.splitlines()) < 160


def test_every_verb_stands_in_the_table_of_its_page() -> None:
    page = (DOCS / "command_line.md").read_text(encoding="utf-8")
    for command in app.registered_commands:
        assert f"| `waveq {command.name}`" in page


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = [command.split()[1] for command, _ in commands(README, "console") if command.startswith("make ")]
    assert targets[:2] == ["demo", "test"]
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_linked_files_exist() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", TEXT):
        if "://" not in link:
            assert (ROOT / link).exists(), link


def test_pictures_are_small() -> None:
    for picture in (ROOT / "docs" / "pictures").glob("*.png"):
        assert picture.stat().st_size < 150_000, picture

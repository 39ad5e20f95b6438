"""Code that stands in the documentation, for tests that run it."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    kind: str
    code: str
    line: int
    """Of the page, counted from 1; the first line of the code."""
    heading: str
    shown: str | None
    """The block of text that follows a block of Python at once: what it prints."""


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = list(_FENCE.finditer(text))
    after = [*found[1:], None][: len(found)]
    return [
        Block(
            kind=each[1],
            code=each[2],
            line=text.count("\n", 0, each.start(2)) + 1,
            heading=(re.findall(r"^#+ (.*)$", text[: each.start()], re.MULTILINE) or [""])[-1],
            shown=next_[2] if next_ and next_[1] == "text" and not text[each.end() : next_.start()].strip() else None,
        )
        for each, next_ in zip(found, after, strict=True)
    ]


def commands(page: Path, kind: str) -> list[tuple[str, str]]:
    """(command, expected output) of every "$ ..." line in a page's blocks of a kind."""
    found = []
    for block in blocks(page):
        for piece in re.split(r"^\$ ", block.code, flags=re.MULTILINE)[1:] if block.kind == kind else ():
            command, _, output = piece.partition("\n")
            while command.endswith("\\"):
                more, _, output = output.partition("\n")
                command = command[:-1] + more.strip()
            found.append((command, output.strip()))
    return found


def verb_and_options(command: str) -> tuple[str, set[str]]:
    """The verb of a command line of waveq, and the options that it gives."""
    verb, *words = shlex.split(command, comments=True)[1:]
    return verb, {word.partition("=")[0] for word in words if word.startswith("--")}


def first_python_block(page: str, heading: str) -> str:
    """The first ```python block below a heading of a page of docs/."""
    return first_block(page, heading, "python")


def first_block(page: str, heading: str, kind: str) -> str:
    """The first block of a kind below a heading of a page of docs/."""
    section = (DOCS / page).read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found = re.search(rf"^```{kind}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert found, f"{page}, {heading}: no {kind} block"
    return found[1]

"""Code that stands in the documentation, for tests that run it."""

from __future__ import annotations

import re
from pathlib import Path

_DOCS = Path(__file__).resolve().parents[1] / "docs"


def first_python_block(page: str, heading: str) -> str:
    """The first ```python block below a heading of a page of docs/."""
    return first_block(page, heading, "python")


def first_block(page: str, heading: str, kind: str) -> str:
    """The first block of a kind below a heading of a page of docs/."""
    section = (_DOCS / page).read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found = re.search(rf"^```{kind}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert found, f"{page}, {heading}: no {kind} block"
    return found[1]

"""The site leaves no page out, and the pages of the API no public name."""

from __future__ import annotations

import importlib
import inspect
import re

import pytest

from tests.docs_blocks import DOCS, ROOT

MADE = [f"notebooks/{script.stem}.md" for script in sorted((ROOT / "notebooks").glob("*.py"))]


def test_every_page_and_notebook_stands_in_the_navigation() -> None:
    shown = re.findall(r"[: -] ([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    kept = [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md") if path.parent.name != "notebooks"]
    assert len(MADE) == 3
    assert sorted(shown) == sorted(kept + MADE)


@pytest.mark.parametrize("package", ["waveq", "stripes_sim", "pareto"])
def test_every_public_name_is_on_the_page_of_its_package(package: str) -> None:
    page = (DOCS / "api" / f"{package}.md").read_text(encoding="utf-8")
    listed = re.findall(r"^::: (.+)\.(\w+)$", page, re.MULTILINE)
    public = importlib.import_module(package)
    described = [name for name in public.__all__ if not inspect.ismodule(getattr(public, name))]
    assert sorted(name for _, name in listed) == sorted(described)
    for module, name in listed:  # griffe finds what a package imports, and says nothing where it finds something else
        assert getattr(importlib.import_module(module), name) is getattr(public, name)

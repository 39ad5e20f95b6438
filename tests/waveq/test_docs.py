"""The Python that stands in docs/ runs.

A block marked `python` is executed after the page's earlier blocks, with what `tests/docs_names.py` gives to all pages.
If a block marked `text` follows it at once, that is what it prints. Notebooks are executed by `make docs`.
"""

from __future__ import annotations

import ast
import contextlib
import doctest
import importlib.util
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import waveq
from stripes_sim.dataflows import registry as dataflows
from tests.docs_blocks import DOCS, Block, blocks
from tests.docs_names import finalised_state, given
from waveq.zoo.datasets.conllu import Sentence, Word, write_conllu

PAGES = sorted(path for path in DOCS.glob("*.md") if any(each.kind == "python" for each in blocks(path)))
OPTIONAL = ("accelerate", "sklearn", "torchao", "transformers")
ELSEWHERE = {  # blocks that tests of their own run
    ("pareto.md", "Campaigns: results that are never lost"): "its function must be importable by other processes",
    ("rtl.md", "Writing it"): "tests/stripes_sim/rtl/test_rtl.py",
}


def missing(code: str) -> list[str]:
    """Optional packages that a block imports and that are not there."""
    nodes = list(ast.walk(ast.parse(code)))
    named = [each.name for node in nodes if isinstance(node, ast.Import) for each in node.names]
    named += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return [name for name in named if name in OPTIONAL and importlib.util.find_spec(name) is None]


def run(page: Path, block: Block, names: dict[str, Any]) -> None:
    printed = io.StringIO()
    code = "\n" * (block.line - 1) + block.code  # so that an error names the page's own line
    with contextlib.redirect_stdout(printed):
        exec(compile(code, str(page), "exec"), names)
    if block.shown is not None:
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        assert doctest.OutputChecker().check_output(block.shown, printed.getvalue(), flags), printed.getvalue()


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What blocks read: a machine, a workload, weights, a treebank, in the folder that they run in."""
    monkeypatch.chdir(tmp_path)
    for page in PAGES:
        for block in blocks(page):
            if block.kind in ("toml", "csv"):
                (tmp_path / {"toml": "chip.toml", "csv": "net.csv"}[block.kind]).write_text(block.code)
    torch.save(finalised_state(), "weights.pt")
    bank = tmp_path / "UD_French-GSD"
    bank.mkdir()
    sentence = Sentence(words=tuple(Word(form=form, head=head) for form, head in (("oui", 0), ("et", 1), ("non", 1))))
    for part in ("train", "dev", "test"):
        write_conllu(bank / f"fr_gsd-ud-{part}.conllu", [sentence])


@pytest.fixture
def attach_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages show several ways to attach one model: the one before is taken off."""
    first, handles = waveq.attach, dict[int, Any]()

    def attach(model: Any, **options: Any) -> Any:
        with contextlib.suppress(KeyError, RuntimeError):  # RuntimeError: it was finalised
            handles.pop(id(model)).remove()
        handles[id(model)] = first(model, **options)
        return handles[id(model)]

    monkeypatch.setattr(waveq, "attach", attach)


@pytest.fixture
def machines_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataflows, "_REGISTERED", dict(dataflows._REGISTERED))


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
@pytest.mark.filterwarnings("ignore::UserWarning")  # a network of three steps is not a good one
@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec:FutureWarning")  # Lightning's own use of torch
@pytest.mark.usefixtures("files", "attach_again", "machines_forgotten")
def test_blocks_of_python_run(page: Path, as_new: Callable[[], None]) -> None:
    kept: dict[str, Any] = {"__name__": "page"}
    for block in blocks(page):
        if block.kind == "python" and (page.name, block.heading) not in ELSEWHERE and not missing(block.code):
            before = given(block.code)
            names = before | kept
            run(page, block, names)
            kept |= {name: value for name, value in names.items() if name not in before}

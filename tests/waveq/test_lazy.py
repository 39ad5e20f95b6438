"""A missing package of an extra is one sentence that names the extra, as pyproject.toml has it."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

from waveq._lazy import _ALSO, _EXTRAS, lazy_names, missing_sentence, pip_line
from waveq.cli.app import main

PROJECT = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def packages(requirements: list[str]) -> set[str]:
    names = {re.split(r"[<>=!\[; ]", line)[0] for line in requirements}
    return {name.replace("-", "_") for name in names} - {"waveq"}


def test_the_table_is_that_of_pyproject() -> None:
    developers = {"all", "docs", "models", "test"}
    users = {extra: packages(lines) for extra, lines in EXTRAS.items() if extra not in developers}
    told = {extra: {name for name, its in _EXTRAS.items() if its == extra} for extra in users}
    assert told == users
    assert EXTRAS["all"] == [f"waveq[{','.join(users)}]"]
    assert not packages(PROJECT["dependencies"]) & set(_EXTRAS)


@pytest.fixture
def needs(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package that is not there, and a module `needs_PACKAGE` with a function that imports it."""
    package: str = request.param
    (tmp_path / f"needs_{package}.py").write_text(f"def net():\n    import {package}\n\nclass Net: ...\n")
    (tmp_path / f"begins_with_{package}.py").write_text(f"import {package}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    return package


@pytest.mark.parametrize("needs", [*_EXTRAS, *_ALSO], indirect=True)
def test_a_missing_package_is_one_sentence(needs: str, capsys: pytest.CaptureFixture[str]) -> None:
    sentence = f"needs {needs}, which is not installed: {pip_line(needs)}"
    get, _ = lazy_names("waveq", {"anything": f"begins_with_{needs}"})
    with pytest.raises(ModuleNotFoundError, match=re.escape(f"waveq.anything {sentence}") + "$"):
        get("anything")
    assert main(["score", "4", "--model", f"needs_{needs}:net"]) == 1
    assert capsys.readouterr().err == f"this {sentence}\n"


def test_what_no_extra_brings_is_told_as_it_is() -> None:
    get, _ = lazy_names("waveq", {"anything": "no_such_module"})
    with pytest.raises(ModuleNotFoundError, match="No module named 'no_such_module'"):
        get("anything")
    assert missing_sentence(ModuleNotFoundError("No module named 'antigravity'", name="antigravity")) is None
    assert missing_sentence(ImportError("cannot import name 'x' from 'torch'", name="torch")) is None

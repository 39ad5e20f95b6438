from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.lab.job import Where
from benchmarks.lab.settings import Setting, setting

TINY = ("--budget", "tiny", "--dataset", "digits", "--processes", "0")


@pytest.fixture(scope="session")
def lab_folder(tmp_path_factory) -> Path:
    """One for all tests: the float networks of a seed are trained once."""
    return tmp_path_factory.mktemp("lab")


@pytest.fixture
def where(lab_folder) -> Where:
    return Where(folder=lab_folder / "cpu")


@pytest.fixture(scope="session")
def tiny() -> Setting:
    return setting("digitsnet", "tiny", dataset="digits")


@pytest.fixture
def options(lab_folder, tmp_path) -> list[str]:
    """The options with which an experiment takes seconds; its tables and pictures go to ``tmp_path``."""
    return [*TINY, "--folder", str(lab_folder), "--out", str(tmp_path)]

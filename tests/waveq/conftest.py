"""A finished run that the tests of the steps after training share."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest


def tiny_config(folder: Path, **changes: Any) -> Any:
    """Training of a few seconds: real stages on real digits, too short to be good."""
    from waveq.train.config import load_recipe

    short = {"pretrain_epochs": 2, "epochs": 3, "batch_size": 64, "validation": 0.3, "threads": 1, "progress": False}
    return load_recipe("digits", run_dir=folder, **{**short, **changes})


@pytest.fixture(scope="session")
def designed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The whole pipeline, once for a test session; tests must not write into its folder."""
    from waveq.codesign.pipeline import codesign

    return codesign(tiny_config(tmp_path_factory.mktemp("runs") / "tiny"), choices=(2, 4))


@pytest.fixture
def run_copy(designed: Any, tmp_path: Path) -> Path:
    """A copy of the finished run's folder, for tests that write into it."""
    return Path(shutil.copytree(designed.run.path, tmp_path / "run"))

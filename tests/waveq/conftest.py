"""A finished run that the tests of the steps after training share."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
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


@pytest.fixture
def as_new() -> Iterator[Callable[[], None]]:
    """What a test registers and imports is gone after it, and whenever it calls this: as in a new process."""
    from waveq.quantizers import registry
    from waveq.zoo.datasets import sources
    from waveq.zoo.networks import models

    registries = [registry._WEIGHTS, registry._ACTIVATIONS, models._NETWORKS, sources.SOURCES]
    kept = [(dict(each._things), dict(each._makers)) for each in registries]
    modules, path = set(sys.modules), list(sys.path)

    def forget() -> None:
        for each, (things, makers) in zip(registries, kept, strict=True):
            each._things, each._makers = dict(things), dict(makers)
        for name in set(sys.modules) - modules:
            if name.startswith("my_"):
                del sys.modules[name]
        sys.path[:] = path

    forget()
    yield forget
    forget()

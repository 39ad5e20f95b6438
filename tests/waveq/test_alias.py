"""`waveq.sim` and `waveq.pareto` have what `stripes_sim` and `pareto` export."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest

import pareto
import stripes_sim
import waveq


@pytest.mark.parametrize(("alias", "package"), [("sim", stripes_sim), ("pareto", pareto)])
def test_names_are_the_same_under_both(alias: str, package: ModuleType) -> None:
    module = importlib.import_module(f"waveq.{alias}")
    assert getattr(waveq, alias) is module
    assert module.__all__ == package.__all__
    for name in package.__all__:  # `trace` and `search` among them, which are functions and modules too
        assert getattr(module, name) is getattr(package, name)


@pytest.mark.parametrize("inside", ["sim.hardware", "pareto.store"])
def test_no_module_is_loaded_a_second_time_under_another_name(inside: str) -> None:
    with pytest.raises(ModuleNotFoundError, match="is not a package"):
        importlib.import_module(f"waveq.{inside}")

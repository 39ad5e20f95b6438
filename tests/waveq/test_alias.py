"""`waveq.sim` and `waveq.pareto` are the packages themselves."""

from __future__ import annotations

import importlib
import importlib.util
import pickle
import subprocess
import sys

import pytest

import pareto
import stripes_sim
import waveq


@pytest.mark.parametrize(("alias", "package"), [("waveq.sim", stripes_sim), ("waveq.pareto", pareto)])
def test_an_alias_is_the_package_with_all_that_lies_inside(alias: str, package: object) -> None:
    assert importlib.import_module(alias) is package
    assert getattr(waveq, alias.removeprefix("waveq.")) is package
    own = {"waveq.sim": "stripes_sim", "waveq.pareto": "pareto"}[alias]
    for inside in {"waveq.sim": ("trace", "dataflows.base"), "waveq.pareto": ("store", "frontier")}[alias]:
        module = importlib.import_module(f"{alias}.{inside}")
        assert module is importlib.import_module(f"{own}.{inside}")
        assert module.__spec__ is not None
        assert module.__spec__.name == module.__name__ == f"{own}.{inside}"


def test_names_and_pickles_are_the_same_under_both() -> None:
    from waveq.sim.hardware import Stripes

    from waveq.pareto import DesignSpace

    assert Stripes is stripes_sim.Stripes
    assert DesignSpace is pareto.DesignSpace
    assert pickle.loads(pickle.dumps(Stripes(tiles=2))) == stripes_sim.Stripes(tiles=2)


def test_functions_keep_their_names_when_modules_of_those_names_are_imported() -> None:
    code = "\n".join(
        f"before = {package}.{name}\nimport {alias}.{name}\nassert {package}.{name} is before, {name!r}"
        for alias, package in (("waveq.sim", "stripes_sim"), ("waveq.pareto", "pareto"))
        for name in importlib.import_module(package).__all__
        if importlib.util.find_spec(f"{package}.{name}")
    )
    assert "stripes_sim.trace" in code
    code = "import pareto, stripes_sim, waveq\n" + code
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_what_is_not_inside_is_not_there() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"waveq\.sim\.no_such_module"):
        importlib.import_module("waveq.sim.no_such_module")

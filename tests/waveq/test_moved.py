"""Old public paths give the modules at their new ones."""

from __future__ import annotations

import importlib

import pytest

from waveq._moved import MOVED


@pytest.mark.parametrize("old", MOVED)
def test_an_old_path_gives_the_module_of_the_new_one(old: str) -> None:
    before = importlib.import_module(f"waveq.{old}")
    now = [importlib.import_module(f"waveq.{new}") for new in MOVED[old].split()]
    if len(now) == 1:
        assert before is now[0]
        assert now[0].__spec__ is not None
        assert now[0].__spec__.name == now[0].__name__
    for module in now:
        for name in module.__all__:
            assert getattr(before, name) is getattr(module, name)
    assert not hasattr(before, "no_such_name")


def test_what_never_was_is_not_there() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"waveq\.no_such_module"):
        importlib.import_module("waveq.no_such_module")

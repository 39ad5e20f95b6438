"""Modules of the user's own are found by name, in the current folder last."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from waveq.train.user_modules import import_modules, user_object


@pytest.mark.usefixtures("as_new")
def test_a_file_of_the_current_folder_is_found_after_everything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_own.py").write_text("seen = True\n")
    (tmp_path / "json.py").write_text("raise RuntimeError('not the json that everybody means')\n")
    import_modules(["my_own", "json"])
    assert sys.modules["my_own"].seen
    assert sys.path[-1] == str(tmp_path)


def test_without_modules_nothing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    import_modules(())
    import_modules(None)
    assert sys.path == before


@pytest.mark.parametrize("name", ["my_own.py", "lab/my_own", "", ".", "my own", "../my_own"])
def test_paths_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a module's name is expected"):
        import_modules([name])


def test_what_a_module_misses_itself_is_told_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_new: Callable[[], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_own.py").write_text("import no_such_library\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        import_modules(["my_own"])
    with pytest.raises(ValueError, match=r"no module 'my_other\.part' in the current folder"):
        import_modules(["my_other.part"])


def test_an_object_of_ones_own_is_a_function_of_a_module() -> None:
    assert user_object("json:loads")("[1]") == [1]
    for name, message in (
        ("json", "named as PACKAGE.MODULE:FUNCTION, not 'json'"),
        ("json:", "named as PACKAGE.MODULE:FUNCTION, not 'json:'"),
        ("json:__doc__", "json:__doc__ must be a function"),
        ("json:dunps", "did you mean 'dumps'"),
    ):
        with pytest.raises(ValueError, match=message):
            user_object(name)

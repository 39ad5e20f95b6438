"""Modules of the user's own are found by name, in the current folder last."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from waveq.train.user_modules import import_modules, user_call, user_object


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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_library\n", "import my_own raises ModuleNotFoundError: No module named 'no_such_library' ("),
        ("def net(: pass\n", "import my_own raises SyntaxError: invalid syntax (my_own.py, line 1)"),
        ("import sys\nsys.exit(3)\n", "import my_own raises SystemExit: 3 ("),
    ],
)
def test_what_is_wrong_with_a_module_is_told_with_its_line(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_new: Callable[[], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_own.py").write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        import_modules(["my_own"])
    with pytest.raises(ValueError, match=r"no module 'my_other\.part' in the current folder"):
        import_modules(["my_other.part"])


def test_a_package_that_an_extra_brings_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_new: Callable[[], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "qonnx", None)
    (tmp_path / "my_own.py").write_text("import qonnx\n")
    with pytest.raises(ModuleNotFoundError, match="qonnx"):
        import_modules(["my_own"])


@pytest.mark.usefixtures("as_new")
def test_paths_and_hidden_files_lead_to_the_module_that_was_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_lab").mkdir()
    (tmp_path / "my_lab" / "nets.py").touch()
    (tmp_path / "json.py").touch()
    for name, message in (
        ("my_lab/nets.py:net", "not 'my_lab/nets.py'; did you mean 'my_lab.nets'?"),
        (f"{__file__}:net", "change to the folder of"),
        ("json:net", "json.py of the current folder is hidden by a module of that name ("),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            user_object(name)


def test_an_object_of_ones_own_is_what_a_module_has_under_that_name() -> None:
    assert user_object("json:loads")("[1]") == [1]
    assert user_call("json:JSONDecoder.__name__") == "JSONDecoder"
    for name, message in (
        ("json", "named as PACKAGE.MODULE:FUNCTION, not 'json'"),
        ("json:", "named as PACKAGE.MODULE:FUNCTION, not 'json:'"),
        ("json:dunps", "did you mean 'dumps'"),
        ("json:JSONDecoder.decodes", "json:JSONDecoder has no 'decodes'; did you mean 'decode'?"),
    ):
        with pytest.raises(ValueError, match=message):
            user_object(name)

"""A file is the old one or the new one: after an error, after a kill, through a link, in any locale."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest

import pareto._files
import stripes_sim._files
from waveq import _files
from waveq._files import whole, whole_folder, write_json, write_text


@pytest.mark.parametrize(
    ("name", "other"),
    [("whole", stripes_sim._files), ("write_text", stripes_sim._files), ("whole", pareto._files)],
)
def test_all_packages_write_alike(name: str, other: ModuleType) -> None:
    for part in (name, "_to_disk"):
        assert inspect.getsource(getattr(other, part)) == inspect.getsource(getattr(_files, part))


def interrupted(path: Path) -> None:
    with whole(path) as draft:
        draft.write_text("half")
        raise KeyboardInterrupt


def test_an_error_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_text(path, "old")
    with pytest.raises(KeyboardInterrupt):
        interrupted(path)
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    code = (
        "import os, sys\nfrom waveq._files import whole\n"
        "with whole(sys.argv[1]) as draft:\n    draft.write_text('half')\n    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == -9
    assert path.read_text() == "old"


def test_the_draft_is_on_the_disk_before_it_takes_the_place_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    to_disk, replace = _files._to_disk, os.replace

    def note_sync(path: Path) -> None:
        to_disk(path)
        done.append("folder" if path.is_dir() else f"file {path.read_text()}")

    def note_replace(source: Path, target: Path) -> None:
        replace(source, target)
        done.append("replaced")

    monkeypatch.setattr(_files, "_to_disk", note_sync)
    monkeypatch.setattr(os, "replace", note_replace)
    write_text(tmp_path / "a.txt", "new")
    assert done == ["file new", "replaced", "folder"]


def test_a_link_goes_on_pointing_to_its_file(tmp_path: Path) -> None:
    target, link = tmp_path / "there" / "a.txt", tmp_path / "link.txt"
    write_text(target, "old")
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_new_files_have_the_modes_of_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain.txt").touch()
    write_text(tmp_path / "a.txt", "")
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "plain.txt").stat().st_mode


def test_errors_name_the_file_and_not_the_draft(tmp_path: Path) -> None:
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(IsADirectoryError) as error:
        write_text(tmp_path / "folder.txt", "new")
    assert error.value.filename == str(tmp_path / "folder.txt")
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=str(tmp_path / "file")):  # NotADirectoryError or FileExistsError
        write_text(tmp_path / "file" / "a.txt", "new")
    with pytest.raises(OSError, match="File name too long") as error:
        write_text(tmp_path / ("x" * 250), "new")  # the name fits, the draft's does not
    assert error.value.filename == str(tmp_path / ("x" * 250))
    with pytest.raises(FileNotFoundError, match="elsewhere"), whole(tmp_path / "a.txt"):
        (tmp_path / "elsewhere").read_text()


def test_two_threads_may_write_one_file(tmp_path: Path) -> None:
    path, texts = tmp_path / "a.txt", [letter * 100_000 for letter in "abcd"]
    threads = [threading.Thread(target=lambda text=text: [write_text(path, text) for _ in range(5)]) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in texts
    assert list(tmp_path.iterdir()) == [path]


def test_text_is_utf8_in_any_locale(tmp_path: Path) -> None:
    code = "import sys; from waveq._files import write_text; write_text(sys.argv[1], '\\xb5J \\u03b2\\n')"
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.txt")],
        env=os.environ | plain,
        cwd=Path(__file__).parents[2],
        check=True,
    )
    assert (tmp_path / "a.txt").read_bytes() == "µJ β\n".encode()


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def half(path: Path) -> None:
        with whole_folder(path) as draft:
            (draft / "a.txt").write_text("half")
            assert not path.exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half(tmp_path / "made" / "new")
    assert list(tmp_path.rglob("*")) == [tmp_path / "made"]
    with whole_folder(tmp_path / "new") as draft:
        (draft / "inner").mkdir()
        (draft / "inner" / "a.txt").write_text("all")
    assert (tmp_path / "new" / "inner" / "a.txt").read_text() == "all"


def test_a_folder_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "file").touch()
    for name in (".", "link", "file"):
        with pytest.raises(FileExistsError, match="exists already"), whole_folder(tmp_path / name):
            pytest.fail("never entered")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "link"]

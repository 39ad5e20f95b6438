"""Every unreadable file ends in one sentence that names it; both packages' readers say the same."""

from __future__ import annotations

import inspect
import os
from pathlib import Path

import pytest

import stripes_sim._reading
from waveq import _reading


def test_only_regular_files_of_a_bounded_size_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, message in [
        (tmp_path / "pipe", "not a regular"),
        (Path("/dev/zero"), "not a regular"),
        (tmp_path, "folder"),
    ]:
        with pytest.raises(ValueError, match=f"{path}: .*{message}"):
            _reading.read_text(path)
    (tmp_path / "large").write_bytes(b"a" * 11)
    with pytest.raises(ValueError, match="large: 11 bytes are more"):
        _reading.read_text(tmp_path / "large", most_bytes=10)
    with pytest.raises(ValueError, match="no name of a file"):
        _reading.read_text("a\0b")
    with pytest.raises(FileNotFoundError):
        _reading.read_text(tmp_path / "none")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1, "a": 2}', "the key 'a' is given twice"),
        (b'{"b": {"a": 1, "a": 1}}', "the key 'a' is given twice"),
        (b"[NaN]", "NaN is no finite number"),
        (b"[-Infinity]", "-Infinity is no finite number"),
        (b"[1e999]", "1e999 is no finite number"),
        (b"1" * 5000, "4300 digits"),
        (b"[" * 100_000, "nested too deeply"),
        (b"{", "not valid JSON"),
        (b"", "not valid JSON"),
        (b"\xff{}", "not UTF-8"),
        ("{}".encode("utf-16"), "not UTF-8"),
    ],
)
def test_json_says_one_thing_in_finite_numbers(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        _reading.read_json(path)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value)) < 400


def test_an_object_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"a\.json: damaged: a JSON object is expected, not list"):
        _reading.read_object(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('\ufeff{"a": 1.5}', encoding="utf-8")
    assert _reading.read_object(tmp_path / "a.json") == {"a": 1.5}
    assert _reading.read_object(tmp_path / "a.json").get("b") is None


def test_a_missing_field_is_told_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": {"b": 1}}')
    found = _reading.read_object(tmp_path / "a.json")
    with pytest.raises(ValueError, match=r"a\.json: damaged: field 'c' is missing"):
        found["c"]
    with pytest.raises(ValueError, match=r"a\.json: damaged: field 'c' is missing"):
        found["a"]["c"]


@pytest.mark.parametrize("name", stripes_sim._reading.__all__)
def test_both_packages_read_alike(name: str) -> None:
    theirs, ours = getattr(stripes_sim._reading, name), getattr(_reading, name)
    assert theirs == ours if isinstance(ours, int) else inspect.getsource(theirs) == inspect.getsource(ours)

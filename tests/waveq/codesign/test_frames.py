"""Tables from files: what pandas would rename or shift is refused, with the file's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from waveq.codesign.frames import read_frame


def test_a_table(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("layer,bits\nfc,3\n")
    assert read_frame(tmp_path / "a.csv").to_dict("records") == [{"layer": "fc", "bits": 3}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b,a\n1,2,3\n", "the column 'a' is given twice"),
        (b"a,b\n1,2,3\n", "more cells than its header"),
        (b"a,b\n1,2\n1,2,3\n", "is no table"),
        (b"", "is no table"),
        (b"\xff\xfe", "not UTF-8"),
        (b'a\n"1\n', "is no table"),
    ],
)
def test_what_is_no_table(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_frame(tmp_path / "a.csv")
    assert str(caught.value).startswith(str(tmp_path / "a.csv"))

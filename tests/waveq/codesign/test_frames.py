"""Tables from files: what pandas would rename or shift is refused, with the file's name."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from waveq.codesign.frames import read_frame, write_frame


def test_a_table(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("layer,bits\nfc,3\n")
    assert read_frame(tmp_path / "a.csv").to_dict("records") == [{"layer": "fc", "bits": 3}]


def test_no_name_is_a_formula_and_all_come_back(tmp_path: Path) -> None:
    names = ["=1+1", "+a", "-a", "@a", "'=a", "'a", "a"]
    table = pd.DataFrame({"-layer": names, "change": range(-3, 4), "share": [-0.5] * 7})
    write_frame(tmp_path / "a.csv", table)
    pd.testing.assert_frame_equal(read_frame(tmp_path / "a.csv"), table, check_dtype=False)
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines[:4] == ["'-layer,change,share", "'=1+1,-3,-0.5", "'+a,-2,-0.5", "'-a,-1,-0.5"]
    assert table["-layer"].tolist() == names


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("step,beta/a\n1,2.5\n", "a.csv: damaged: the column 'change' is missing"),
        ("step,change,beta/a\n1,x,2.5\n", "change is 'x' in line 2, a finite number is expected"),
        ("step,change,beta/a\n1,1,\n1.5,1,1\n", "step is '1.5' in line 3, a whole number is expected"),
        ("step,change,beta/a\n1,inf,\n", "change is 'inf' in line 2"),
        ("step,change,beta/a\n1,,\n", "change is 'nan' in line 2"),
        ("step,change,beta/a\n1,True,\n", "change is 'True' in line 2"),
        ("step,change,beta/a\n1,1,\n1,1,many\n", "beta/a is 'many' in line 3"),
    ],
)
def test_columns_hold_the_numbers_that_are_asked_for(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_frame(tmp_path / "a.csv", numbers=("change",), wholes=("step",), prefixes=("beta/",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b,a\n1,2,3\n", "the column 'a' is given twice"),
        (b"'=a,=a\n1,2\n", "the column '=a' is given twice"),
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

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stripes_sim import LayerShape, Stripes, read_workload, write_workload
from tests.stripes_sim.strategies import convolutions

FLAT = [
    LayerShape(name="fc, 1", kind="linear", in_channels=5, out_channels=7, tokens=3),
    LayerShape(name="qk", kind="matmul", in_channels=5, out_channels=7, tokens=3, copies=12),
    LayerShape(
        name="up", kind="conv_transpose", in_channels=4, out_channels=6, kernel_size=3, input_size=(5, 6), stride=2
    ),
]
HEAD = "name,kind,in_channels,out_channels,kernel_size,input_size\n"


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".csv", ".json"])
@given(layers=st.lists(convolutions(), min_size=0, max_size=3))
def test_a_workload_comes_back_as_it_was_written(suffix, layers, tmp_path_factory):
    file = tmp_path_factory.mktemp("workload") / f"net{suffix}"
    write_workload(file, layers + FLAT)
    assert read_workload(file) == layers + FLAT


@pytest.mark.parametrize("suffix", [".csv", ".json"])
@pytest.mark.parametrize("name", ["=1+1", "+a", "-a", "@a", "'=a", "''-a", "'a", "a=b"])
def test_no_name_is_a_formula_and_all_come_back(name, suffix, tmp_path):
    layer = LayerShape(name=name, kind="linear", in_channels=5, out_channels=7)
    file = tmp_path / f"net{suffix}"
    write_workload(file, [layer])
    assert read_workload(file) == [layer]
    assert re.search(r"(^|,)[=+@-]", file.read_text(), flags=re.MULTILINE) is None


def test_a_workload_is_written_whole_or_not_at_all(tmp_path):
    file = tmp_path / "net.json"
    write_workload(file, FLAT)
    before = file.read_text()
    with pytest.raises(OSError, match=re.escape(str(file))):
        write_workload(file / "below.json", FLAT)
    assert file.read_text() == before
    assert list(tmp_path.iterdir()) == [file]


def test_blank_lines_and_spaces_do_no_harm(tmp_path):
    file = tmp_path / "net.csv"
    file.write_text(HEAD + "\nc1, conv ,3,8,3x3, 32x32\n\n,,,,,\nfc,linear,8,10,,\n\n")
    layers = read_workload(file)
    assert [layer.name for layer in layers] == ["c1", "fc"]
    assert Stripes().run(layers, 4).compute_cycles > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "c1,conv,3,8,3y3,32x32\n", "net.csv, line 2: kernel_size must be a whole number or sizes such as 3x3"),
        (HEAD + "c1,conv,three,8,3,32\n", "net.csv, line 2: in_channels must be a whole number"),
        (HEAD + "c1,conv,,8,3,32\n", "net.csv, line 2: in_channels is empty"),
        (HEAD + "c1,convolution,3,8,3,32\n", "net.csv, line 2: layer 'c1': kind must be one of"),
        (HEAD + "c1,conv,3,8,3,32,5\n", "net.csv, line 2: more cells than the header has columns (6)"),
        (HEAD + "c1,conv,3,8,40,32x32\n", "net.csv, line 2: layer 'c1': the kernel (40, 40) does not fit"),
        ("name,kind,in_channels,out_chanels\n", "header: unknown column 'out_chanels'; did you mean 'out_channels'?"),
        ("name,kind,in_channels\n", "net.csv, header: column 'out_channels' is missing"),
        (HEAD, "net.csv: no layers in it"),
        ("", "net.csv, header: column 'name' is missing"),
    ],
)  # fmt: skip
def test_a_bad_csv_is_named_with_its_line(tmp_path, text, message):
    file = tmp_path / "net.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        read_workload(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "net.json: damaged: not valid JSON"),
        ("{}", "net.json: must be a list of objects"),
        ('[{"name": "a", "kind": "linear", "in_channels": 3}]', "net.json, layer 1: column 'out_channels' is missing"),
        (
            '[{"name": "a", "kind": "linear", "in_channels": 3.5, "out_channels": 2}]',
            "net.json, layer 1: layer 'a': in_channels must be an integer, but it is 3.5",
        ),
    ],
)
def test_a_bad_json_is_named_with_its_layer(tmp_path, text, message):
    file = tmp_path / "net.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        read_workload(file)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must end in .csv or .json"):
        write_workload(tmp_path / "net.txt", FLAT)
    (tmp_path / "net.txt").write_text("x")
    with pytest.raises(ValueError, match=r"must end in .csv or .json"):
        read_workload(tmp_path / "net.txt")
    with pytest.raises(ValueError, match="cannot be read"):
        read_workload(tmp_path / "none.csv")

"""The table of docs/quantizers.md that says what each grid costs, held to the code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import waveq
import waveq.exporting.c_file
from waveq.exporting.carriers import carrier_for, whole_codes
from waveq.exporting.held import MOST_BITS
from waveq.exporting.integers import Integers
from waveq.quantizers.registry import quantizer_class, quantizer_names

PAGE = Path(__file__).resolve().parents[3] / "docs" / "quantizers.md"
OURS = [name for name in quantizer_names() if quantizer_class(name).__module__.startswith("waveq.")]
"""Other tests register grids of their own."""
HEAD = ["quantizer", "zero", "symmetric", "offset", "whole numbers", "`onnx` at 2 3 4 5 8 bits"]


def table() -> dict[str, list[str]]:
    section = PAGE.read_text(encoding="utf-8").split("\n## What a grid costs in hardware\n")[1].split("\n## ")[0]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    assert lines[0] == [*HEAD, "`qonnx`", "`c` and `npz`", "`hf` and `torchao`"]
    return {line[0].strip("`"): line[1:] for line in lines[2:]}


def test_every_method_has_a_row() -> None:
    assert set(table()) == {*OURS, "any, 1 bit"}


def found(method: str, bits: int) -> Integers:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64))
    with torch.no_grad():
        model[0].weight[0, :2] = torch.tensor([3.0, -3.0])  # the lowest and the highest level are taken
    wq = waveq.attach(model, quantizer=method, bits=bits, total_steps=1, skip=())
    wq.finalize()
    return waveq.integers(model, wq.policy())["0"]


def row(each: Integers) -> list[str]:
    """What the code says, in the table's words."""
    codes, _, bits = whole_codes(each)
    whole = {0: "B bits", 1: "B + 1 bits"}[bits - each.bits]
    low, high = int(codes.min()), int(codes.max())
    symmetric = "yes" if low == -high else f"{-low - high} more below"
    return ["yes" if each.offset == 0.0 else "no", symmetric, "0" if each.offset == 0.0 else "1/2", whole]


@pytest.mark.slow
@pytest.mark.parametrize("method", [name for name in OURS if name not in ("lqnets", "ttq")])
def test_rows_of_even_grids(method: str) -> None:
    cells = table()[method]
    types = []
    for bits in (2, 3, 4, 5, 8):
        each = found(method, bits)
        assert row(each) == cells[:4]
        types.append(str(carrier_for(whole_codes(each)[2], None).bits))
    assert cells[4] == f"INT{', '.join(types)}"
    most = max(bits for bits in range(2, 10) if whole_codes(found(method, bits))[2] <= MOST_BITS)
    assert cells[5:] == [cells[3], "B bits", f"B to {most}"]


@pytest.mark.slow
def test_the_row_of_one_bit() -> None:
    for method in ("dorefa", "wrpn", "midrise", "pact"):
        each = found(method, 1)
        codes, _, bits = whole_codes(each)
        assert (sorted(set(codes.reshape(-1).tolist())), bits) == ([-1, 1], 2)
        carried = f"INT{carrier_for(2, None).bits}"
        assert table()["any, 1 bit"] == ["no", "yes", "1/2", "2 bits", carried, "2 bits", "1 bit", "yes"]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lqnets", "ttq"])
def test_rows_of_learned_levels(method: str, tmp_path: Path) -> None:
    assert table()[method] == ["", "", "", "none", *["refused"] * 4]
    model: Any = nn.Sequential(nn.Linear(8, 8))
    wq = waveq.attach(model, quantizer=method, bits=2, total_steps=1, skip=())
    wq.finalize()
    for to in ("onnx", "qonnx", "c", "npz", "hf", "torchao"):
        with pytest.raises(ValueError, match=rf"'{method}' are learned one by one and not evenly spaced"):
            waveq.export(model, wq.policy(), tmp_path / "net.h", to=to, sample=torch.randn(2, 8))  # type: ignore[arg-type]


@pytest.mark.slow
def test_c_and_npz_keep_the_bits_of_a_half_step_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waveq.exporting.c_file, "find_compiler", lambda: None)
    model = nn.Sequential(nn.Linear(8, 8))
    wq = waveq.attach(model, quantizer="dorefa", bits=8, total_steps=1, skip=())
    wq.finalize()
    for to, name in (("npz", "net.npz"), ("c", "net.h")):
        made = waveq.export(model, wq.policy(), tmp_path / name, to=to, sample=torch.randn(2, 8))  # type: ignore[arg-type]
        assert made.carriers == {"0": "8 bits packed"}

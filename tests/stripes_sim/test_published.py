"""The published numbers that the model reproduces, by the same functions that print them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.paper import published, validate

# Stripes over DaDianNao on convolutional layers, with tails: the simulator's figures for the same precision profiles
SPEEDUPS = {"AlexNet": 2.15, "NiN": 1.82, "GoogLeNet": 1.70, "VGG_M": 2.18, "VGG_S": 1.97, "VGG_19": 1.35}


def test_speedups_of_stripes_over_dadiannao():
    rows = published.stripes_over_dadiannao()
    assert {row["network"]: round(row["speedup"], 2) for row in rows} == SPEEDUPS
    # Bit-Pragmatic (MICRO 2017) measured 1.85x
    assert published.geometric_mean([row["speedup"] for row in rows]) == pytest.approx(1.85, abs=0.02)
    assert all(row["speedup"] <= row["ideal"] for row in rows)


def test_bitfusion_needs_at_least_the_cycles_of_its_array():
    for row in published.bitfusion_cycles():
        assert row["compute_cycles"] <= row["cycles"]
        assert 0.55 < row["cycles_32_bit_outputs"] / row["theirs"] <= 1


def test_the_two_savings_of_the_paper_have_different_baselines():
    rows = {(row["network"], row["baseline_bits"]): row for row in published.learned_bits()}
    assert rows["AlexNet", 8]["compute_cycles_ratio"] == pytest.approx(2.08, abs=0.01)
    for network in ("AlexNet", "ResNet-18"):
        assert 1 - 1 / rows[network, 16]["energy_pj_ratio"] == pytest.approx(0.775, abs=0.02)
        assert 1 - 1 / rows[network, 8]["energy_pj_ratio"] < 0.6


@pytest.mark.slow
def test_validation_passes_and_writes_its_table(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(validate, "NETWORKS", ("alexnet",))
    cases = shared_data / "dnnsim" / "static_cases.json"
    assert validate.main(["--cases", str(cases), "--json", str(tmp_path / "out.json")]) == 0
    assert "9 x more than 2 groups" in capsys.readouterr().out
    written = json.loads((tmp_path / "out.json").read_text())
    assert all(row["equal_compat"] == row["cases"] for row in written["table"])
    assert validate.main(["--cases", str(tmp_path / "none.json")]) == 2

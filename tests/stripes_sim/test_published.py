"""The published numbers that the model reproduces, by the same functions that print them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks._networks import fully_connected_layers
from benchmarks.paper import bitfusion, machines, published, validate, values
from stripes_sim import BitFusion, hardware_names
from stripes_sim.energy import area_mm2

# Stripes over DaDianNao on convolutional layers, with tails: the simulator's figures for the same precision profiles
SPEEDUPS = {"AlexNet": 2.15, "NiN": 1.82, "GoogLeNet": 1.70, "VGG_M": 2.18, "VGG_S": 1.97, "VGG_19": 1.35}


def test_speedups_of_stripes_over_dadiannao():
    rows = published.stripes_over_dadiannao()
    assert {row["network"]: round(row["speedup"], 2) for row in rows} == SPEEDUPS
    # Bit-Pragmatic (MICRO 2017) measured 1.85x
    assert published.geometric_mean([row["speedup"] for row in rows]) == pytest.approx(1.85, abs=0.02)
    assert all(row["speedup"] <= row["ideal"] for row in rows)


@pytest.mark.slow
def test_bitfusion_lies_between_its_bound_and_its_simulators_tilings():
    rows = bitfusion.bitfusion_rows()
    for row in rows:
        assert row["compute_cycles"] <= row["closed"] <= row["search"] <= row["theirs_own_outputs"] <= row["theirs"]
        # its search charges whole tiles at borders, and the first tile's way in
        assert row["theirs_own_outputs"] < 1.1 * row["search"]
        assert row["closed_bytes"] <= row["search_bytes"] <= row["theirs_bytes"]
        assert row["search_bytes"] < 2 * row["closed_bytes"]
        assert row["seconds"] < 5
    assert "search / theirs" in bitfusion.bitfusion_text(rows)


@pytest.mark.slow
def test_our_reading_of_bitfusions_search_gives_its_published_layers():
    assert bitfusion.repeated() == {"layers": 61, "cycles": 61, "dram_bits": 61}


def test_the_two_savings_of_the_paper_have_different_baselines():
    rows = {(row["network"], row["baseline_bits"]): row for row in published.learned_bits()}
    assert rows["AlexNet", 8]["compute_cycles_ratio"] == pytest.approx(2.08, abs=0.01)
    for network in ("AlexNet", "ResNet-18"):
        assert 1 - 1 / rows[network, 16]["energy_pj_ratio"] == pytest.approx(0.775, abs=0.02)
        assert 1 - 1 / rows[network, 8]["energy_pj_ratio"] < 0.6


@pytest.fixture(scope="module")
def rows() -> dict[tuple[str, str], dict[str, object]]:
    return {(row["machine"], row["what"]): row for row in machines.machine_rows(1.84, 2.08)}


@pytest.mark.slow
def test_every_machine_that_ships_has_a_row(rows):
    sensing = values.value_rows()
    every = [*rows.values(), *sensing]
    shipped = {name.removesuffix("_activations").replace("_", " ") for name in hardware_names()}
    assert {row["machine"].split(",")[0].lower() for row in every} == shipped
    # a figure without a source is not printed
    assert all((row["ours"] is None) == (row["published"] is None) for row in every)
    assert all(row["source"] for row in every)
    dynamic, pragmatic, ahead, encoded, laconic, _ = (row["ours"] for row in sensing)
    assert 1 <= dynamic < 1.41  # 256 values of a small network have one that needs all bits
    assert 2 < pragmatic < ahead < encoded < 4.31
    assert 15 < laconic < 40


def test_dadiannao_multiplies_and_holds_what_is_published(rows):
    for what in ("products per cycle when full", "on-chip memory, MiB"):
        row = rows["DaDianNao", what]
        assert row["ours"] == row["published"]


def test_loom_gains_by_both_precisions_and_in_connected_layers_by_the_weights_alone(rows):
    for row in machines.loom_over_parallel():
        # 128 filters at once leave rows of narrow layers idle
        assert 0.65 * row["ideal"] < row["convolutions"] <= row["ideal"]
        if row["fully_connected"] is not None:
            assert row["fully_connected"] == pytest.approx(row["fully_connected_ideal"], rel=0.03)
    layers = fully_connected_layers("AlexNet")
    base = machines.PARALLEL.run(layers, 16, 16).compute_cycles
    speedups = [[base / machines.LOOM.run(layers, w, a).compute_cycles for w in (2, 4, 8)] for a in (4, 8, 16)]
    assert all(row == pytest.approx([8, 4, 2], rel=0.02) for row in speedups)
    row = rows["Loom", "speed-up over 128 multipliers, convolutions"]
    # its mean includes precisions trimmed at run time, so ours is below
    assert 2.2 < row["ours"] < row["published"]


def test_bitfusion_has_the_area_and_about_the_energy_of_its_synthesis(rows):
    row = rows["BitFusion", "area of the array, mm2 at 45 nm"]
    assert row["ours"] == pytest.approx(row["published"])
    assert area_mm2(BitFusion())["array"] == pytest.approx(0.888, abs=0.001)
    row = rows["BitFusion", "energy of the full array, pJ per cycle"]
    assert row["ours"] / row["published"] == pytest.approx(1.22, abs=0.01)  # a unit alone; they share more in an array
    assert 0.5 < rows["BitFusion", "cycles over its simulator's, mean of 8"]["ours"] < 1


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

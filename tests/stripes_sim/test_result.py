from __future__ import annotations

import re

import pytest

from stripes_sim import BitFusion, DaDianNao, LayerShape, Stripes

NET = [
    LayerShape(
        name="conv", kind="conv", in_channels=64, out_channels=64, kernel_size=3, input_size=(56, 56), padding=1
    ),
    LayerShape(name="scores", kind="matmul", in_channels=64, out_channels=49, tokens=49, copies=8),
    LayerShape(name="fc", kind="linear", in_channels=512, out_channels=1000),
]


def run(conv=4, fc=6, activation_bits=8, **changes):
    return Stripes(**changes).run(NET, {"conv": conv, "fc": fc}, activation_bits)


def test_totals_are_sums_of_the_frame():
    result = run()
    frame = result.frame
    assert result.cycles == frame["cycles"].sum()
    assert result.compute_cycles == frame["compute_cycles"].sum()
    assert result.energy_pj == pytest.approx(frame["energy_pj"].sum())
    parts = [f"{part}_pj" for part in result.breakdown_pj]
    assert frame["energy_pj"].to_numpy() == pytest.approx(frame[parts].sum(axis=1).to_numpy())
    assert result.weight_bytes == (64 * 64 * 9 * 4 + 512_000 * 6) / 8
    assert result.seconds == result.cycles / 980e6
    assert result.score["energy_pj"] == result.energy_pj
    assert all(type(value) is float for value in result.score.values())


def test_the_frame_has_the_promised_columns_in_order():
    columns = list(run().frame.columns)
    promised = ["name", "macs", "weight_bits", "activation_bits", "compute_cycles", "cycles", "utilisation"]
    assert [column for column in columns if column in promised] == promised
    frame = run().frame
    assert frame["weight_bits"].tolist() == [4, 8, 6]
    assert frame["activation_bits"].tolist() == [8, 8, 8]
    assert frame["utilisation"].between(0, 1).all()
    assert frame["array_utilisation"].between(0, 1).all()


def test_a_product_of_activations_needs_no_weight_bits_and_refuses_them():
    with pytest.raises(ValueError, match="names 'scores', which is no layer"):
        Stripes().run(NET, {"conv": 4, "fc": 6, "scores": 4})


def test_array_utilisation_of_a_layer_that_fills_the_array_is_one():
    full = LayerShape(name="c", kind="conv", in_channels=16, out_channels=256, kernel_size=1, input_size=(4, 4))
    assert Stripes().run([full], 5, 8).frame["array_utilisation"].tolist() == [1.0]


def test_savings_name_their_baselines_and_are_ratios_to_them():
    result = run()
    sixteen, eight = result.savings
    assert sixteen.baseline == "Stripes (serial weights) with all weights at 16 bits, activations at 8 bits"
    assert eight.baseline == "Stripes (serial weights) with all weights at 8 bits, activations at 8 bits"
    same = Stripes().run(NET, 16, 8)
    assert sixteen.speedup == same.cycles / result.cycles
    assert sixteen.energy_ratio == same.energy_pj / result.energy_pj
    assert sixteen.energy_saving == pytest.approx(1 - result.energy_pj / same.energy_pj)
    assert result.at(16).saving(16).speedup == 1
    other = DaDianNao().run(NET, 16, 8)
    assert "DaDianNao (bit-parallel)" in result.saving(other).baseline


def test_it_prints_as_a_table_with_layers_totals_savings_and_what_is_left_out():
    text = str(run())
    assert repr(run()) == text
    assert text.splitlines()[0] == (
        "Stripes (serial weights) with weights at 4 to 6 bits (mean of layers 5.00), activations at 8 bits"
    )
    for needle in (
        "conv",
        "scores",
        "fc",
        "total",
        "with all weights at 16 bits",
        "with all weights at 8 bits",
        "not counted",
    ):
        assert needle in text
    cells = re.search(r"^total +([\d.,]+) +([\d,]+) ", text, re.MULTILINE)
    assert cells is not None
    assert cells.group(2) == f"{run().compute_cycles:,}"
    wide = run().table(breakdown=True)
    assert "weight buffer uJ" in wide
    assert "leakage uJ" in wide


def test_bad_arguments_of_a_run_are_named():
    with pytest.raises(ValueError, match="layers is empty"):
        Stripes().run([], 4)
    with pytest.raises(TypeError, match="layers must be LayerShape objects"):
        Stripes().run(["conv"], 4)
    with pytest.raises(ValueError, match="batch must be a whole number of samples, at least 1, but it is 0"):
        Stripes().run(NET, 4, batch=0)
    with pytest.raises(ValueError, match="activation_bits must be from 1 to 16, but it is 17"):
        Stripes().run(NET, 4, 17)


def test_assumed_numbers_are_noted_where_they_matter():
    fc = LayerShape(name="fc", kind="linear", in_channels=4096, out_channels=4096)
    slow = Stripes().run([fc], 8)
    assert slow.bound == "DRAM"
    bandwidth = "assumed: dram_bytes_per_s = 25600000000.0 (two 32-bit LPDDR4-3200 channels)"
    assert slow.notes == (bandwidth, "assumed: dram = lpddr4 (mobile memory)")
    assert bandwidth in str(slow)
    # a number of the user's own is no assumption of ours, and what does not bind is not named
    mine = {"dram_bytes_per_s": 1e9, "dram": "hbm2"}
    assert Stripes(**mine, leakage="off").run([fc], 8).notes == ()
    (leaks,) = Stripes(**mine).run([fc], 8).notes
    assert leaks.startswith("assumed: leakage = density (0.02 W/mm2")
    busy = LayerShape(
        name="c", kind="conv", in_channels=256, out_channels=256, kernel_size=3, input_size=(14, 14), padding=1
    )
    assert not [note for note in Stripes(resident_weights=True).run([busy] * 3, 16).notes if "dram" in note]
    depthwise = LayerShape(
        name="d", kind="conv", in_channels=32, out_channels=32, kernel_size=3, input_size=(14, 14), groups=32
    )
    assert any("depthwise" in note for note in BitFusion().run([depthwise], 8, 8).notes)
    assert not any("depthwise" in note for note in Stripes().run([depthwise], 8, 8).notes)

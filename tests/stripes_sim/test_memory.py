from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stripes_sim import LayerShape, Stripes
from tests.stripes_sim.strategies import convolutions

CONV = LayerShape(name="c", kind="conv", in_channels=32, out_channels=64, kernel_size=3, input_size=(16, 16), padding=1)
MIDDLE = [
    dataclasses.replace(CONV, name="a", out_channels=32),
    CONV,
    dataclasses.replace(CONV, name="z", in_channels=64),
]
WEIGHTS, INPUTS, OUTPUTS = 9 * 32 * 64, 32 * 256, 64 * 256


def dram_bits(hw, layers=MIDDLE, weight_bits=4, activation_bits=8, name="c", **run):
    frame = hw.run(layers, weight_bits, activation_bits, **run).frame.set_index("name")
    return frame.loc[name, "dram_bytes"] * 8


def test_what_fits_stays_on_chip_but_weights_come_once():
    assert dram_bits(Stripes()) == WEIGHTS * 4
    assert dram_bits(Stripes(), batch=3) == WEIGHTS * 4
    assert dram_bits(Stripes(resident_weights=True)) == 0


def test_the_network_reads_its_first_input_and_writes_its_last_output():
    assert dram_bits(Stripes(), name="a") == 9 * 32 * 32 * 4 + INPUTS * 8
    assert dram_bits(Stripes(), name="z") == 9 * 64 * 64 * 4 + 64 * 256 * 8


def test_activations_that_do_not_fit_move_once_past_resident_weights():
    small = Stripes(activation_buffer_bytes=8 * 1024)
    assert dram_bits(small) == WEIGHTS * 4 + (INPUTS + OUTPUTS) * 8


def test_a_strided_shortcut_reads_only_what_it_meets():
    sizes = {"kind": "conv", "in_channels": 64, "out_channels": 128, "input_size": (56, 56), "stride": 2}
    shortcut = LayerShape(name="c", kernel_size=1, **sizes)
    hw = Stripes(activation_buffer_bytes=1024)
    whole, weights, outputs = 64 * 56 * 56 * 8, 64 * 128 * 4, 128 * 28 * 28 * 8
    assert dram_bits(hw, [shortcut]) == whole // 4 + weights + outputs
    block = LayerShape(name="c", kernel_size=2, **sizes)
    assert dram_bits(hw, [block]) == whole + 4 * weights + outputs


def test_when_nothing_fits_the_least_of_three_ways_is_taken():
    tight = Stripes(activation_buffer_bytes=2 * 1024, weight_buffer_bytes=2304)
    inputs, weights, sums = INPUTS * 8, WEIGHTS * 4, OUTPUTS * 32
    # 4 parts of the weights, 4 of the inputs, 32 of the sums
    assert (weights / (8 * 2304), inputs / (8 * 2048), sums / (8 * 2048)) == (4, 4, 32)
    weights_still = 4 * inputs + weights
    inputs_still = inputs + 4 * weights
    outputs_still = 2 * (inputs * weights * 32) ** 0.5
    assert weights_still < inputs_still < outputs_still
    assert dram_bits(tight) == pytest.approx(weights_still + OUTPUTS * 8)
    # with little room for sums and filters, a mix of both is least: 2 sqrt(8 * 2) times weights, or inputs, and sums
    even = LayerShape(name="c", kind="linear", in_channels=512, out_channels=512, tokens=512)
    one = 512 * 512 * 8
    hw = Stripes(activation_buffer_bytes=one // 8 // 4, weight_buffer_bytes=one // 8 // 16)
    ways = (2 * (one * 2 * 4 * one * 16) ** 0.5 - 8 * one + one, 4 * one + one, 2 * (16 * one * one) ** 0.5)
    assert dram_bits(hw, [even], 8, 8) == pytest.approx(min(ways) + one)


def test_a_wide_layer_over_many_samples_keeps_its_sums_or_inputs():
    fc = LayerShape(name="fc", kind="linear", in_channels=4096, out_channels=4096)
    hw = Stripes(activation_buffer_bytes=32 * 1024, weight_buffer_bytes=64 * 1024)
    inputs, weights, outputs = 16 * 4096 * 4, 4096 * 4096 * 4, 16 * 4096
    assert inputs == 8 * 32 * 1024
    assert dram_bits(hw, [fc], 4, 4, name="fc", batch=16) == inputs + weights + outputs * 4


def test_padded_storage_takes_whole_words_and_packed_the_bits():
    packed, padded = Stripes(), Stripes(storage="padded", data_width_bits=8)
    assert dram_bits(packed, weight_bits=3) == WEIGHTS * 3
    assert dram_bits(padded, weight_bits=3) == WEIGHTS * 8
    assert dram_bits(padded, weight_bits=9) == WEIGHTS * 16
    assert padded.run([CONV], 3).weight_bytes == WEIGHTS


def test_the_slowest_level_is_named_and_sets_the_cycles():
    def bound(**settings):
        frame = Stripes(**settings).run(MIDDLE, 4).frame.set_index("name")
        return frame.loc["c", "bound"], frame.loc["c", "cycles"]

    assert bound() == ("compute", 16 * 18 * 4)
    assert bound(dram_bytes_per_s=980e6) == ("DRAM", WEIGHTS * 4 / 8)
    # 16 sets of windows pass the weights, 18 positions of 256 windows read 32 channels
    assert bound(weight_buffer_bits_per_cycle=8) == ("weight buffer", WEIGHTS * 4 * 16 / 8)
    reads, writes = 256 * 9 * 32 * 16, OUTPUTS * 16
    assert bound(activation_buffer_bits_per_cycle=64) == ("activation buffer", (reads + writes) / 64)


def test_a_lookup_reads_its_rows_only():
    words = LayerShape(name="e", kind="embedding", in_channels=30_000, out_channels=64, tokens=10)
    result = Stripes().run(
        [words, LayerShape(name="f", kind="linear", in_channels=64, out_channels=8, tokens=10)], 4, 8
    )
    row = result.frame.iloc[0]
    assert row["dram_bytes"] == 10 * 64
    assert row["compute_cycles"] == row["compute_pj"] == 0


@pytest.mark.slow
@given(convolutions(), st.integers(1, 15), st.sampled_from([256, 4096, 2**20]), st.sampled_from(["packed", "padded"]))
def test_more_bits_never_move_less(layer, bits, buffer, storage):
    hw = Stripes(activation_buffer_bytes=buffer, weight_buffer_bytes=buffer, storage=storage)
    for low, high in (((bits, 8), (bits + 1, 8)), ((8, bits), (8, bits + 1))):
        less, more = hw.run([layer], *low).frame.iloc[0], hw.run([layer], *high).frame.iloc[0]
        for column in ("dram_bytes", "weight_bytes", "cycles", "energy_pj"):
            assert more[column] >= less[column]


@pytest.mark.parametrize("dram", ["lpddr4", "ddr3", "hbm2"])
def test_off_chip_energy_follows_the_technology(dram):
    per_bit = {"lpddr4": 8.0, "ddr3": 70.0, "hbm2": 3.9}[dram]
    result = Stripes(dram=dram).run(MIDDLE, 4, 8)
    assert result.breakdown_pj["dram"] == pytest.approx(result.frame["dram_bytes"].sum() * 8 * per_bit)


def test_a_transposed_layer_whose_taps_meet_no_output_costs_its_traffic():
    sizes = {"kernel_size": 2, "input_size": (1,), "stride": 2, "padding": 1, "dilation": 2}
    up = LayerShape(name="up", kind="conv_transpose", in_channels=2, out_channels=1, **sizes)
    result = Stripes().run([up], 8, 8)
    assert result.compute_cycles == 0
    assert result.frame["dram_bytes"].tolist() == [2 * 2 + 2 + 1]

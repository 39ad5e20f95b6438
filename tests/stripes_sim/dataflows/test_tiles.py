from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stripes_sim import DaDianNao, LayerShape, Loom, Stripes
from tests import reference_stripes as slow
from tests.stripes_sim.strategies import bit_counts, convolutions, machines, sampled_axes

COUNTERS = {
    "compute_cycles": "compute_cycles",
    "scheduled_pes": "scheduled_PEs",
    "idle_pes": "idle_PEs",
    "dram_weight_reads": "dram_wgt_reads",
    "buffer_weight_reads": "gbuffer_wgt_reads",
}
CONV = LayerShape(
    name="conv", kind="conv", in_channels=64, out_channels=64, kernel_size=3, input_size=(56, 56), padding=1
)


def dnnsim_cases(folder: Path) -> list[dict]:
    return json.loads((folder / "dnnsim" / "static_cases.json").read_text())["cases"]


def rebuilt(case: dict, compat: str | None):
    shape, hw = case["layer"], case["hw"]
    sizes = {"name": shape["name"], "in_channels": shape["C"], "out_channels": shape["K"]}
    if shape["type"] == "fc":
        layer = LayerShape(kind="linear", **sizes)
    else:
        layer = LayerShape(
            kind="conv",
            kernel_size=(shape["R"], shape["S"]),
            input_size=(shape["H"], shape["W"]),
            stride=shape["stride"],
            padding=shape["pad"],
            groups=shape["groups"],
            **sizes,
        )
    array = {key: hw[key] for key in ("lanes", "columns", "rows", "tiles")}
    settings = dict(**array, pe_width_bits=hw["pe_width"], data_width_bits=case["data_width"], compat=compat)
    if hw["architecture"] == "DaDianNao":
        return layer, DaDianNao(**settings)
    return layer, Stripes(serial="activations", **settings)


@pytest.mark.slow
def test_every_dnnsim_case_matches_in_all_counters(shared_data):
    for case in dnnsim_cases(shared_data):
        layer, hw = rebuilt(case, "dnnsim")
        row = hw.run([layer], case["wgt_prec"], case["act_prec"]).frame.iloc[0]
        assert {ours: row[ours] for ours in COUNTERS} == {ours: case[theirs] for ours, theirs in COUNTERS.items()}, (
            case["id"]
        )
        assert row["utilisation"] == pytest.approx(case["pe_utilisation"], abs=1e-6)


@pytest.mark.slow
def test_without_compat_only_layers_of_more_than_two_groups_differ(shared_data):
    differing = []
    for case in dnnsim_cases(shared_data):
        layer, hw = rebuilt(case, None)
        row = hw.run([layer], case["wgt_prec"], case["act_prec"]).frame.iloc[0]
        if any(row[ours] != case[theirs] for ours, theirs in COUNTERS.items()):
            differing.append(case)
    assert differing
    assert all(case["layer"]["groups"] > 2 for case in differing)


@pytest.mark.slow
@given(convolutions(), machines(), bit_counts, bit_counts)
def test_closed_form_counts_what_stepping_through_counts(layer, hw, weight_bits, activation_bits):
    row = hw.run([layer], weight_bits, activation_bits).frame.iloc[0]
    expected = slow.step_through(layer, hw, weight_bits, activation_bits)
    assert {key: row[key] for key in expected} == expected


@given(st.integers(1, 60), st.integers(1, 60), machines(), bit_counts, bit_counts)
def test_fully_connected_layer_counts_what_following_the_columns_counts(
    inputs, outputs, hw, weight_bits, activation_bits
):
    layer = LayerShape(name="fc", kind="linear", in_channels=inputs, out_channels=outputs)
    expected = slow.fully_connected(layer, hw, weight_bits, activation_bits)
    shared = slow.step_through(
        LayerShape(name="fc", kind="conv", in_channels=inputs, out_channels=outputs, kernel_size=1, input_size=1),
        hw,
        weight_bits,
        activation_bits,
    )["compute_cycles"]
    assert hw.run([layer], weight_bits, activation_bits).compute_cycles == min(expected, shared)


def test_columns_beyond_the_word_of_the_buffer_wait_in_every_round():
    # 6 steps in rounds of 5 and 1 columns: 4 planes of 5 columns, 4 a cycle, then 4 planes of one
    hw = Stripes(lanes=1, columns=5, rows=4, tiles=1, pe_width_bits=4)
    layer = LayerShape(name="fc", kind="linear", in_channels=2, out_channels=5)
    assert hw.run([layer], 5, 1).compute_cycles == 5 + 4


@pytest.mark.parametrize("bits", range(1, 17))
def test_a_layer_that_fills_the_array_takes_a_countable_number_of_cycles(bits):
    # 56 * 56 windows / 16 columns, one step of 64 filters over 4 of the 16 tiles, 9 taps of 64 / 16 channels
    assert Stripes().run([CONV], bits).compute_cycles == 196 * 9 * 4 * bits
    assert Stripes(serial="activations").run([CONV], 3, bits).compute_cycles == 196 * 9 * 4 * bits
    assert DaDianNao().run([CONV], bits, bits).compute_cycles == 3136 * 9 * 4


def test_serial_machines_at_16_bits_take_what_the_parallel_baseline_takes():
    baseline = DaDianNao().run([CONV], 16, 16).compute_cycles
    assert Stripes().run([CONV], 16, 16).compute_cycles == baseline
    assert Stripes(serial="activations").run([CONV], 16, 16).compute_cycles == baseline
    # 256 filters per tile step: 64 filters leave three quarters of Loom's rows idle, 4096 fill them
    wide = LayerShape(name="w", kind="conv", in_channels=64, out_channels=4096, kernel_size=1, input_size=(8, 8))
    assert Loom().run([wide], 16, 16).compute_cycles == DaDianNao().run([wide], 16, 16).compute_cycles


@pytest.mark.slow
@given(convolutions(), machines(), st.integers(1, 15))
def test_more_bits_never_take_fewer_cycles(layer, hw, bits):
    assert hw.run([layer], bits + 1).compute_cycles >= hw.run([layer], bits).compute_cycles
    assert hw.run([layer], 8, bits + 1).compute_cycles >= hw.run([layer], 8, bits).compute_cycles


def test_groups_are_really_grouped_by_default():
    grouped = LayerShape(
        name="g", kind="conv", in_channels=64, out_channels=64, kernel_size=3, input_size=(8, 8), padding=1, groups=4
    )
    # four groups of 16 filters over 16 channels, one after the other
    assert Stripes().run([grouped], 8).compute_cycles == 4 * 4 * 9 * 8
    # the simulator runs one group of 64 filters over 16 channels: a quarter of the work is missing from its cycles
    assert Stripes(compat="dnnsim").run([grouped], 8).compute_cycles == 4 * 9 * 8


def test_only_one_kernel_axis_decides_a_folded_output_in_compat_mode():
    # 9 + 0 padding, kernel 4, stride 4: two windows per axis; the simulator counts ceil(9/4) - ceil(4/4) + 1 = 3
    image = LayerShape(name="c", kind="conv", in_channels=3, out_channels=8, kernel_size=4, input_size=(9, 9), stride=4)
    assert image.output_size == (2, 2)
    small = {"columns": 1, "lanes": 16, "rows": 16, "tiles": 1}
    assert Stripes(**small).run([image], 1).compute_cycles == 4 * 3
    assert Stripes(compat="dnnsim", **small).run([image], 1).compute_cycles == 9 * 3


def test_a_first_layer_can_stay_unfolded():
    image = LayerShape(
        name="c", kind="conv", in_channels=3, out_channels=96, kernel_size=11, input_size=(227, 227), stride=4
    )
    folded, plain = Stripes().run([image], 1), Stripes(space_to_depth=False).run([image], 1)
    assert folded.compute_cycles == 190 * 9 * 3
    assert plain.compute_cycles == 190 * 121


def test_tokens_share_weights_like_windows_or_go_one_by_one_whichever_is_shorter():
    def cycles(serial, tokens, weight_bits=8, activation_bits=8):
        layer = LayerShape(name="fc", kind="linear", in_channels=64, out_channels=64, tokens=tokens)
        return Stripes(serial=serial).run([layer], weight_bits, activation_bits).compute_cycles

    assert cycles("weights", 16) == 4 * 8  # one set of 16 windows, 4 steps, 8 bits
    assert cycles("weights", 1) == 8  # the 4 steps in 4 columns at once
    assert cycles("weights", 3) == 3 * 8
    assert cycles("activations", 1) == 4 + 8 - 1
    assert cycles("activations", 2) == 2 * (4 + 8 - 1)
    assert cycles("activations", 16) == 4 * 8


def test_copies_batch_and_attention_products_multiply_the_work():
    once = Stripes().run([CONV], 4).compute_cycles
    assert Stripes().run([replace(CONV, copies=3)], 4).compute_cycles == 3 * once
    assert Stripes().run([CONV], 4, batch=5).compute_cycles == 5 * once
    heads = LayerShape(name="qk", kind="matmul", in_channels=64, out_channels=32, tokens=16, copies=12)
    # both operands are activations of 16 bits: 12 heads of one window set, 4 steps, 16 cycles each
    assert Stripes().run([heads], {}, 16).compute_cycles == 12 * 4 * 16
    assert Stripes().run([heads], {}, 4, batch=2).compute_cycles == 2 * 12 * 4 * 4


def test_a_transposed_convolution_takes_the_taps_of_each_phase():
    up = LayerShape(
        name="up",
        kind="conv_transpose",
        in_channels=64,
        out_channels=64,
        kernel_size=3,
        input_size=(32, 32),
        stride=2,
        padding=1,
        output_padding=1,
    )
    # 64 sets of 16 outputs in each of four phases, with 1 + 2 + 2 + 4 taps of 4 steps of 16 channels
    assert Stripes().run([up], 4).compute_cycles == 64 * (1 + 2 + 2 + 4) * 4 * 4 == 9216
    # every product of an input and a weight that is not cropped away is done once
    assert Stripes().run([up], 4).frame["scheduled_pes"][0] == up.macs // 16
    # a stride beyond the kernel leaves phases without a tap
    sparse = replace(up, kernel_size=1, stride=3, padding=0, output_padding=0)
    assert Stripes().run([sparse], 1).compute_cycles == 64 * 4


@pytest.mark.slow
@given(sampled_axes("conv_transpose"), machines(), bit_counts, bit_counts)
def test_phases_count_what_collecting_the_taps_of_every_output_counts(layer, hw, weight_bits, activation_bits):
    row = hw.run([layer], weight_bits, activation_bits).frame.iloc[0]
    expected = slow.step_through(layer, hw, weight_bits, activation_bits)
    assert {key: row[key] for key in expected} == expected


def test_transposed_convolution_multiplies_by_no_inserted_zero():
    up = LayerShape(
        name="up",
        kind="conv_transpose",
        in_channels=16,
        out_channels=16,
        kernel_size=4,
        input_size=(8, 8),
        stride=2,
        padding=1,
    )
    assert up.output_size == (16, 16)
    # four phases of 8 x 8 outputs, 2 x 2 taps each
    assert Stripes().run([up], 1).compute_cycles == 4 * 4 * 4
    slots = 4 * 4 * 4 * 16 * 16 * 16
    assert slots == up.macs


def test_operands_that_need_more_pes_than_there_are_say_so():
    with pytest.raises(ValueError, match=re.escape("layer 'conv': 16-bit activations need more than one PE of 8 bits")):
        DaDianNao(pe_width_bits=8).run([CONV], 8, 16)
    with pytest.raises(ValueError, match="rows=1"):
        Stripes(pe_width_bits=4, rows=1).run([CONV], 8, 4)

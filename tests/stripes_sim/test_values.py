"""Machines that look at values: cases worked out by hand, slow twins, closed forms, and what they refuse."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.paper import validate
from stripes_sim import (
    Accelerator,
    DynamicStripes,
    Laconic,
    LayerShape,
    Loom,
    Pragmatic,
    Stripes,
    cost_table,
    explore,
    plot_roofline,
    roofline,
)
from tests import reference_values
from tests.stripes_sim.strategies import convolutions, sampled_axes

TILE = {"lanes": 2, "columns": 2, "rows": 1, "tiles": 1}
# three windows of one tap and one chunk of two channels; three filters are three filter steps
SMALL = LayerShape(name="conv", kind="conv", in_channels=2, out_channels=3, kernel_size=(1,), input_size=(3,))
TOKEN = LayerShape(name="fc", kind="linear", in_channels=4, out_channels=2)


def cycles(hw: Accelerator, layer: LayerShape, activations: object, weights: object = None, bits: int = 8) -> int:
    found = None if weights is None else {layer.name: np.array(weights)}
    return hw.run([layer], bits, 8, activations={layer.name: np.array(activations)}, weights=found).compute_cycles


def by_window(*windows: tuple[int, ...]) -> np.ndarray:
    """(channels, windows) from one tuple of channels for each window."""
    return np.array(windows).T


@pytest.mark.parametrize(
    ("hw", "windows", "expected"),
    [
        # windows 0 and 1 together need the 3 bits of 5, window 2 the 4 bits of 9; each three times
        (DynamicStripes(**TILE), [(5, 1), (0, 0), (9, 0)], (3 + 4) * 3),
        # all zero still takes a cycle
        (DynamicStripes(**TILE), [(0, 0), (0, 0), (0, 0)], (1 + 1) * 3),
        # a negative value anywhere: every precision has a sign bit. 5 takes 4, -8 takes 4, 9 takes 5
        (DynamicStripes(**TILE), [(5, 1), (-8, 0), (9, 0)], (4 + 5) * 3),
        # groups of one column, planes without ones left out: 12 = 1100 takes 2, 1 takes 1; 8 takes 1
        (DynamicStripes(trim_zeros=True, **TILE), [(12, 0), (1, 0), (8, 0)], (2 + 1) * 3),
        # both columns as one group: 1100 or 0001 is 1101, so 4
        (DynamicStripes(trim_zeros=True, group_columns=2, **TILE), [(12, 0), (1, 0), (8, 0)], (4 + 1) * 3),
        # one register: column 0 has costs 1 1 1, then 4 4 4; column 1 has 4 4 4, then no window. No step begins before
        # all columns are through with the last but one. Column 1 ends at 4 8 12; column 0 at 1 2 5 (begun at 4), then
        # at 12 (begun at 8), 16 and 20
        (DynamicStripes(column_registers=1, **TILE), [(1, 0), (9, 0), (9, 0)], 20),
        # 1001 and 0110 share no place: 4 cycles; 9 alone takes 2 places
        (Pragmatic(first_stage_bits=0, **TILE), [(9, 6), (0, 0), (9, 0)], (4 + 2) * 3),
        # lanes may be 1 place apart: places 0 and 1, then 2 and 3
        (Pragmatic(first_stage_bits=1, **TILE), [(9, 6), (0, 0), (9, 0)], (2 + 2) * 3),
        # 10001 and 00100: 0, then 2 (4 is 2 away), then 4; with 4 places of reach 0 and 2, then 4
        (Pragmatic(first_stage_bits=1, **TILE), [(17, 4), (0, 0), (0, 0)], (3 + 1) * 3),
        (Pragmatic(first_stage_bits=2, **TILE), [(17, 4), (0, 0), (0, 0)], (2 + 1) * 3),
        # the sign of -7 costs nothing: three ones; recoded 8 - 1
        (Pragmatic(**TILE), [(-7, 0), (0, 0), (0, 0)], (3 + 1) * 3),
        (Pragmatic(booth=True, **TILE), [(-7, 0), (0, 0), (0, 0)], (2 + 1) * 3),
    ],
)
def test_steps_worked_out_by_hand(hw: Accelerator, windows: list[tuple[int, ...]], expected: int) -> None:
    assert cycles(hw, SMALL, by_window(*windows)) == expected


def test_loom_multiplies_precisions_of_both_operands() -> None:
    # activations of 3 and 4 bits in digits of 2: 2 and 2 digits for each of 4 weight planes, three filters
    windows = by_window((5, 1), (0, 0), (9, 0))
    assert cycles(Loom(serial_bits=2, **TILE), SMALL, windows, bits=4) == (2 + 2) * 4 * 3
    # weights of each filter: 1 and -2 take 2 bits, 3 takes 3, 0 takes 2 (the layer has a sign)
    weights = np.array([[1, -2], [3, 0], [0, 0]])[:, :, None]
    hw = Loom(serial_bits=2, dynamic_weights=True, **TILE)
    assert cycles(hw, SMALL, windows, weights, bits=4) == (2 + 2) * (2 + 3 + 2)


def test_laconic_takes_the_slowest_product_of_terms() -> None:
    windows = by_window((7, 1), (1, 0), (0, 0))
    weights = np.array([[3, 15], [-1, 0], [0, 0]])[:, :, None]
    # windows 0 and 1: max(3 * 2, 1 * 4), then 3 * 1, then nothing but a cycle; window 2: a cycle each
    assert cycles(Laconic(booth=False, **TILE), SMALL, windows, weights) == 6 + 3 + 1 + 3
    # recoded 7 = 8 - 1 and 15 = 16 - 1: max(2 * 2, 1 * 2), 2 * 1, 1
    assert cycles(Laconic(**TILE), SMALL, windows, weights) == 4 + 2 + 1 + 3


def test_a_token_goes_to_the_columns_in_turn() -> None:
    # two filter steps of two chunks: words of 4, 1, 4 and 1 bits to columns 0, 1, 0 and 1. Column 0 is free at 4, so
    # that the third begins there and ends at 8; the last begins at 5
    assert cycles(DynamicStripes(**TILE), TOKEN, [9, 0, 1, 0]) == 8
    shape = LayerShape(name="fc", kind="linear", in_channels=6, out_channels=2)
    values = [9, 0, 1, 0, 1, 0]
    # words 4 1 1 and 4 1 1; the fourth begins in column 1 at 5, and the last one there when it is done, at 9
    assert cycles(DynamicStripes(**TILE), shape, values) == 10
    # that simulator would lose the input of a filter step whose first column is not 0: 4 1 1 and 1 1 1
    assert cycles(DynamicStripes(compat="dnnsim", **TILE), shape, values) == 8


def test_a_depthwise_layer_keeps_one_tile_busy_on_the_diagonal() -> None:
    layer = LayerShape(
        name="dw", kind="conv", in_channels=3, out_channels=3, kernel_size=(1,), input_size=(2,), groups=3
    )
    hw = {"lanes": 2, "columns": 2, "rows": 2, "tiles": 4}
    values = [[1, 2], [4, 0], [8, 8]]
    # channels 0 and 1 together need 3 bits, channel 2 alone 4
    assert cycles(DynamicStripes(**hw), layer, values) == 3 + 4
    # terms: a 1 1, b 1, c 1; weights 3, 1 and 7 meet their own channel alone: 2, then 3
    weights = np.array([3, 1, 7])[:, None, None]
    assert cycles(Laconic(booth=False, **hw), layer, values, weights) == 2 + 3


def test_wide_values_take_several_columns_with_a_digit_each() -> None:
    # PEs of 4 bits: 0x93 is the digits 3 (2 bits) and 9 (4 bits), one window at a time in two columns
    hw = DynamicStripes(pe_width_bits=4, lanes=2, columns=2, rows=2, tiles=1)
    layer = LayerShape(name="conv", kind="conv", in_channels=2, out_channels=1, kernel_size=(1,), input_size=(2,))
    got = hw.run([layer], 4, 8, activations={"conv": by_window((0x93, 0), (0x03, 0))}).compute_cycles
    assert got == 4 + 2


def test_runs_are_averaged_and_samples_of_one_run_share_columns() -> None:
    two = np.stack([by_window((1, 0), (1, 0), (1, 0)), by_window((9, 0), (9, 0), (9, 0))])
    hw = DynamicStripes(**TILE)
    # (1 + 1) * 3 and (4 + 4) * 3
    assert hw.run([SMALL], 8, 8, activations={"conv": two}).compute_cycles == (6 + 24) / 2
    # six windows in three sets: (1, 1), (1, 9), (9, 9)
    assert hw.run([SMALL], 8, 8, activations={"conv": two}, batch=2).compute_cycles == (1 + 4 + 4) * 3


@st.composite
def sensing_machines(draw: st.DrawFn) -> Accelerator:
    serial = draw(st.sampled_from(["dynamic", "both", "pragmatic", "laconic"]))
    settings = {
        "lanes": draw(st.integers(1, 6)),
        "columns": draw(st.integers(2, 7)),
        "rows": draw(st.integers(2, 5)),
        "tiles": draw(st.integers(1, 3)),
    }
    if serial in ("dynamic", "both"):
        settings |= {"group_columns": draw(st.integers(1, 5)), "trim_zeros": draw(st.booleans())}
    if serial == "both":
        settings |= {"dynamic_weights": draw(st.booleans()), "serial_bits": draw(st.integers(1, 3))}
    if serial in ("dynamic", "pragmatic"):
        settings |= {"column_registers": draw(st.integers(0, 3))}
    if serial in ("pragmatic", "laconic"):
        settings |= {"booth": draw(st.booleans())}
    if serial == "pragmatic":
        settings |= {"first_stage_bits": draw(st.integers(0, 4))}
    return Stripes(serial=serial, **settings)


def drawn(rng: np.random.Generator, shape: tuple[int, ...], bits: int, *, signed: bool) -> np.ndarray:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if signed else (0, 2**bits)
    return rng.integers(low, high, shape) * rng.integers(0, 2, shape)


@pytest.mark.slow
@settings(max_examples=60)
@given(
    st.one_of(convolutions(), sampled_axes("conv"), sampled_axes("conv_transpose")),
    sensing_machines(),
    st.integers(0, 2**31),
    st.integers(1, 8),
    st.integers(2, 8),
    st.booleans(),
)
def test_convolutions_equal_the_slow_twin(layer, hw, seed, activation_bits, weight_bits, signed):
    rng = np.random.default_rng(seed)
    x = drawn(rng, (layer.in_channels, *layer.input_size), activation_bits, signed=signed)
    if layer.kind == "conv_transpose":
        shape = (layer.in_channels, layer.out_channels // layer.groups, *layer.kernel_size)
    else:
        shape = (layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size)
    w = drawn(rng, shape, weight_bits, signed=True)
    result = hw.run([layer], weight_bits, activation_bits, activations={layer.name: x}, weights={layer.name: w})
    assert result.compute_cycles == reference_values.convolution(layer, hw, x, w, weight_bits)


@pytest.mark.slow
@settings(max_examples=60)
@given(
    sensing_machines(), st.integers(0, 2**31), st.integers(1, 8), st.booleans(), st.integers(1, 30), st.integers(1, 30)
)
def test_tokens_equal_the_slow_twin(hw, seed, bits, signed, inputs, outputs):
    rng = np.random.default_rng(seed)
    layer = LayerShape(name="fc", kind="linear", in_channels=inputs, out_channels=outputs)
    x, w = drawn(rng, (inputs,), bits, signed=signed), drawn(rng, (outputs, inputs), 8, signed=True)
    found = hw.run([layer], 8, bits, activations={"fc": x}, weights={"fc": w}).compute_cycles
    # side by side it would be a convolution of one window, over an input that is not depthwise
    alone = LayerShape(
        name="fc", kind="conv", in_channels=inputs, out_channels=outputs, kernel_size=(1,), input_size=(1,)
    )
    as_window = reference_values.convolution(alone, hw, x[:, None], w[:, :, None], 8)
    assert found == min(as_window, reference_values.token(layer, hw, x, w, 8))


@pytest.mark.slow
@settings(max_examples=25)
@given(convolutions(), st.integers(1, 8), st.sampled_from(["dynamic", "both", "pragmatic", "laconic"]))
def test_full_values_take_as_long_as_their_bits(layer, bits, serial):
    layer = LayerShape(**{field: getattr(layer, field) for field in ("name", "kind", "in_channels", "out_channels",
                       "kernel_size", "input_size", "stride", "groups")})  # fmt: skip
    hw = Stripes(serial=serial, lanes=4, columns=3, rows=4, tiles=2)
    x = np.full((layer.in_channels, *layer.input_size), 2**bits - 1)
    w = np.full((layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size), 127)
    closed = {"dynamic": "activations", "pragmatic": "activations", "both": "both", "laconic": "activations"}[serial]
    folded = max(layer.stride) > 1 and layer.in_channels == 3 and layer.groups == 1
    expected = Stripes(serial=closed, lanes=4, columns=3, rows=4, tiles=2).run([layer], 8, bits)
    result = hw.run([layer], 8, bits, activations={layer.name: x}, weights={layer.name: w})
    if serial == "laconic":
        assert result.compute_cycles == 7 * expected.compute_cycles or folded  # a folded kernel is filled up with zeros
    else:
        assert result.compute_cycles == expected.compute_cycles
    columns = ["scheduled_pes", "idle_pes", "dram_weight_reads", "buffer_weight_reads", "dram_bytes"]
    assert result.frame[columns].equals(expected.frame[columns])


@pytest.mark.slow
@settings(max_examples=25)
@given(st.integers(0, 2**31))
def test_more_freedom_never_takes_longer(seed):
    rng = np.random.default_rng(seed)
    layer = LayerShape(name="c", kind="conv", in_channels=9, out_channels=5, kernel_size=2, input_size=(5, 4))
    x = {"c": drawn(rng, (9, 5, 4), 8, signed=False)}
    w = {"c": drawn(rng, (5, 9, 2, 2), 8, signed=True)}
    tile = {"lanes": 4, "columns": 3, "rows": 2, "tiles": 2}

    def of(hw: Accelerator) -> int:
        return hw.run([layer], 8, 8, activations=x, weights=w).compute_cycles

    static = Stripes(serial="activations", **tile).run([layer], 8, 8).compute_cycles
    assert of(Pragmatic(**tile)) <= of(DynamicStripes(**tile)) <= static
    assert of(Pragmatic(**tile)) <= of(Pragmatic(first_stage_bits=0, **tile))
    assert of(DynamicStripes(column_registers=2, **tile)) <= of(DynamicStripes(column_registers=1, **tile))
    assert of(DynamicStripes(column_registers=1, **tile)) <= of(DynamicStripes(**tile))
    assert of(DynamicStripes(trim_zeros=True, **tile)) <= of(DynamicStripes(trim_zeros=True, group_columns=3, **tile))
    assert of(Loom(**tile, dynamic_weights=True)) <= of(Loom(**tile))
    assert of(Laconic(**tile)) <= of(Laconic(**tile, booth=False)) <= 64 * static


@pytest.mark.slow
def test_full_values_agree_with_the_simulators_cases_of_stripes() -> None:
    path = Path(__file__).resolve().parents[3] / "shared" / "data" / "dnnsim" / "static_cases.json"
    if not path.exists():
        pytest.skip("no reference data beside the checkout")
    cases = [
        case
        for case in json.loads(path.read_text())["cases"]
        if case["hw"]["architecture"] == "Stripes" and not case["layer"].get("pad") and case["layer"]["K"] < 600
    ]
    assert len(cases) > 40
    for case in cases:
        layer, hw = validate.layer(case), validate.machine(case, "dnnsim")
        settings = {key: getattr(hw, key) for key in ("lanes", "columns", "rows", "tiles", "pe_width_bits", "compat")}
        x = np.full((layer.in_channels, *layer.input_size), 2 ** case["act_prec"] - 1)
        found = DynamicStripes(**settings).run([layer], case["wgt_prec"], case["act_prec"], activations={layer.name: x})
        # that simulator loses inputs of further filter steps of a linear layer, which Stripes does not look at
        if layer.kind == "conv" and "space_to_depth_first_layer" not in case["flags"]:
            assert found.compute_cycles == case["compute_cycles"], case["id"]


NET = [SMALL, TOKEN]
GIVEN = {"conv": np.ones((2, 3), dtype=int), "fc": np.ones(4, dtype=int)}


@pytest.mark.parametrize(
    ("hw", "message"),
    [
        (
            DynamicStripes(),
            "Dynamic Stripes computes with the values of its layers, so it has no cycles without them: give run() "
            "activations of stripes_sim.capture(model, inputs), or waveq score --activations validation",
        ),
        (Laconic(), "give run() activations and weights of stripes_sim.capture"),
        (Loom(dynamic_weights=True), "give run() activations and weights of stripes_sim.capture"),
    ],
)
def test_without_values_a_machine_says_how_to_get_them(hw, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        hw.run(NET, 8, 8)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"fc": None}, "activations has no values of layer 'fc'"),
        ({"cnov": 1}, "activations names 'cnov', which is no layer of this workload; did you mean 'conv'?"),
        ({"fc": np.ones(4)}, "layer 'fc': activations must be an array of integers, but its type is float64"),
        ({"fc": np.full(4, 256)}, "layer 'fc': activations of 8 bits lie from 0 to 255, but there is 256"),
        ({"fc": np.array([-129, 0, 0, 0])}, "activations of 8 bits lie from -128 to 127, but there is -129"),
        ({"conv": np.ones((3, 2), dtype=int)}, "must have the shape (samples, 2, 3) with a multiple of batch=1"),
        ({"fc": np.ones((2, 4), dtype=int)}, "layer 'fc': activations of 2 samples, but those before have 1"),
    ],
)
def test_activations_that_are_missing_or_do_not_fit_are_named(changed, message):
    given = {name: x for name, x in {**GIVEN, **changed}.items() if x is not None}
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        Pragmatic().run(NET, 8, 8, activations=given)


def test_values_that_nobody_looks_at_and_weights_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"Stripes .serial weights. takes the same time for all values: leave"):
        Stripes().run(NET, 8, 8, activations=GIVEN)
    with pytest.raises(ValueError, match="Pragmatic needs the values of activations, not of weights alone"):
        Pragmatic().run(NET, 8, 8, weights=GIVEN)
    with pytest.raises(ValueError, match="weights has no values of layer 'conv', which this machine looks at, too"):
        Laconic().run(NET, 8, 8, activations=GIVEN)
    with pytest.raises(ValueError, match=r"'conv': weights must have the shape \(3, 2, 1\), but they have \(2, 3, 1\)"):
        Laconic().run(NET, 8, 8, activations=GIVEN, weights={"conv": np.ones((2, 3, 1), dtype=int)})
    with pytest.raises(ValueError, match=r"a multiple of batch=2 samples, but they have \(2, 3\)"):
        Pragmatic().run(NET, 8, 8, activations=GIVEN, batch=2)


def test_a_name_that_stands_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="layer 'conv' stands in the workload 2 times with different shapes"):
        DynamicStripes().run([SMALL, SMALL], 8, 8, activations={"conv": GIVEN["conv"]})


def test_options_of_other_machines_are_refused() -> None:
    with pytest.raises(ValueError, match="booth=True says nothing of a machine with serial='dynamic': leave it out"):
        DynamicStripes(booth=True)
    with pytest.raises(ValueError, match="column_registers must be at least 0 steps, but it is -1"):
        Pragmatic(column_registers=-1)


def test_tables_and_explorations_say_that_values_are_needed() -> None:
    for ask in (lambda: cost_table(NET, Pragmatic()), lambda: explore(NET, 8, {"tiles": (1, 2)}, hardware=Pragmatic())):
        with pytest.raises(ValueError, match="it has no cycles without them"):
            ask()


def test_energy_and_utilisation_follow_what_the_values_take() -> None:
    tall = by_window((255, 255), (255, 255), (255, 255))
    few = DynamicStripes(**TILE).run([SMALL], 8, 8, activations={"conv": by_window((1, 1), (1, 1), (1, 1))})
    many = DynamicStripes(**TILE).run([SMALL], 8, 8, activations={"conv": tall})
    assert many.breakdown_pj["compute"] == pytest.approx(8 * few.breakdown_pj["compute"])
    static = Stripes(serial="activations", **TILE).run([SMALL], 8, 8)
    assert many.breakdown_pj["compute"] == pytest.approx(static.breakdown_pj["compute"])
    assert many.frame["array_utilisation"][0] == static.frame["array_utilisation"][0]
    assert "assumed: Stripes' lanes" in " ".join(many.notes)
    assert many.saving(16).speedup == many.at(16).cycles / many.cycles


def test_the_roof_of_the_array_is_that_of_the_values() -> None:
    result = DynamicStripes(**TILE).run([SMALL], 8, 8, activations={"conv": by_window((1, 1), (3, 3), (7, 7))})
    # steps of 2 and 3 cycles for 4 lanes
    row = roofline(result).iloc[0]
    assert row["array_macs_per_s"] == pytest.approx(4 / 2.5 * result.hardware.clock_hz)
    with pytest.raises(ValueError, match="the array of Dynamic Stripes has another roof for the values of every layer"):
        plot_roofline(result)


def test_products_without_values_count_all_their_bits_and_say_so() -> None:
    scores = LayerShape(name="scores", kind="matmul", in_channels=4, out_channels=3, tokens=2, copies=2)
    result = DynamicStripes(**TILE).run([*NET, scores], 8, 8, activations=GIVEN)
    assert result.frame["compute_cycles"][2] == Stripes(serial="activations", **TILE).run([scores], 8, 8).compute_cycles
    assert result.notes[-1] == "no values of 1 products of activations: all their bits count (scores)"
    given = DynamicStripes(**TILE).run([scores], 8, 8, activations={"scores": np.ones((2, 2, 4), dtype=int)})
    assert given.compute_cycles < result.frame["compute_cycles"][2]


def test_values_are_not_changed() -> None:
    frozen = {name: x.copy() for name, x in GIVEN.items()}
    for x in frozen.values():
        x.setflags(write=False)
    Pragmatic().run(NET, 8, 8, activations=frozen)
    assert all((frozen[name] == x).all() for name, x in GIVEN.items())


@pytest.mark.slow
@settings(max_examples=40)
@given(
    st.one_of(sampled_axes("conv"), sampled_axes("conv_transpose")),
    sensing_machines(),
    st.integers(0, 2**31),
    st.integers(2, 4),
)
def test_a_batch_is_one_more_axis_of_windows(layer, hw, seed, batch):
    rng = np.random.default_rng(seed)
    x = drawn(rng, (batch, layer.in_channels, *layer.input_size), 6, signed=True)
    matrix = (layer.out_channels, layer.in_channels // layer.groups)
    if layer.kind == "conv_transpose":
        matrix = (layer.in_channels, layer.out_channels // layer.groups)
    w = drawn(rng, (*matrix, *layer.kernel_size), 8, signed=True)
    ones = {"kernel_size": 1, "input_size": batch, "stride": 1, "padding": 0, "dilation": 1, "output_padding": 0}
    # windows are worked on first axis first, sample after sample
    lifted = dataclasses.replace(layer, **{key: (*getattr(layer, key), one) for key, one in ones.items()})
    together = hw.run([layer], 8, 6, activations={layer.name: x}, weights={layer.name: w}, batch=batch)
    x, w = np.moveaxis(x, 0, -1), w[..., None]
    assert (
        together.compute_cycles
        == hw.run([lifted], 8, 6, activations={layer.name: x}, weights={layer.name: w}).compute_cycles
    )


@pytest.mark.slow
@settings(max_examples=40)
@given(sampled_axes("conv"), sensing_machines(), st.integers(0, 2**31), st.data())
def test_padding_of_any_two_sides_is_zeros_around_the_input(layer, hw, seed, data):
    rng = np.random.default_rng(seed)
    sides = tuple((data.draw(st.integers(0, 3)), data.draw(st.integers(0, 3))) for _ in layer.input_size)
    x = drawn(rng, (layer.in_channels, *layer.input_size), 6, signed=False)
    w = drawn(rng, (layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size), 8, signed=True)
    around = np.pad(x, ((0, 0), *sides))
    found = [
        hw.run([each], 8, 6, activations={"conv": values}, weights={"conv": w}).compute_cycles
        for each, values in (
            (dataclasses.replace(layer, padding=sum(sides, ())), x),
            (dataclasses.replace(layer, padding=0, input_size=around.shape[1:]), around),
        )
    ]
    assert found[0] == found[1]

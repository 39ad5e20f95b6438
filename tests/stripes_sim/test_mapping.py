"""The search over tilings against a twin that walks them, and the laws that it keeps."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stripes_sim import BitFusion, DaDianNao, LayerShape, Stripes, cost_table, explore
from tests.reference_memory import best_tiling
from tests.stripes_sim.strategies import convolutions, sampled_axes

CONV = LayerShape(name="c", kind="conv", in_channels=32, out_channels=64, kernel_size=3, input_size=(16, 16), padding=1)
FC = LayerShape(name="fc", kind="linear", in_channels=1024, out_channels=1024)
SCORES = LayerShape(name="qk", kind="matmul", in_channels=64, out_channels=256, tokens=256, copies=4)


@st.composite
def small(draw: st.DrawFn) -> LayerShape:
    """Layers of a few values, whose tilings can all be walked."""
    kind = draw(st.sampled_from(["conv", "conv_transpose", "linear", "matmul"]))
    if kind in ("linear", "matmul"):
        sizes = {key: draw(st.integers(1, 5)) for key in ("in_channels", "out_channels", "tokens")}
        return LayerShape(name=kind, kind=kind, copies=1 if kind == "linear" else draw(st.integers(1, 2)), **sizes)
    groups, axes = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    kernel = tuple(draw(st.integers(1, 3)) for _ in range(axes))
    return LayerShape(
        name=kind,
        kind=kind,
        in_channels=groups * draw(st.integers(1, 3)),
        out_channels=groups * draw(st.integers(1, 4)),
        kernel_size=kernel,
        input_size=tuple(k + draw(st.integers(0, 2)) for k in kernel),
        stride=draw(st.integers(1, 2)),
        padding=draw(st.integers(0, 1)) if kind == "conv" else 0,
        groups=groups,
    )


@st.composite
def tight(draw: st.DrawFn) -> Stripes:
    """A machine whose buffers hold some values."""
    machine = draw(st.sampled_from([Stripes, BitFusion]))
    return machine(
        mapping="search",
        space_to_depth=False,
        pe_width_bits=8,
        lanes=draw(st.integers(1, 4)),
        rows=draw(st.integers(2, 4)),
        columns=draw(st.integers(2, 4)),
        tiles=draw(st.integers(1, 2)),
        weight_buffer_bytes=draw(st.integers(4, 40)),
        activation_buffer_bytes=draw(st.integers(4, 40)),
        output_buffer_bytes=draw(st.sampled_from([0, 12, 30])),
        buffers=draw(st.sampled_from(["whole", "double"])),
        weight_buffer_bits_per_cycle=64,
        activation_buffer_bits_per_cycle=512,
        dram_bytes_per_s=draw(st.sampled_from([4e9, 4e10])),
    )


def binds(hw, layer, batch):
    """Whether 8-bit inputs and outputs do not stay on chip together."""
    half = 2 if hw.buffers == "double" else 1
    inputs, outputs = half * batch * layer.input_count, half * batch * layer.output_count
    if hw.output_buffer_bytes:
        return inputs > hw.activation_buffer_bytes or outputs > hw.output_buffer_bytes
    return inputs + outputs > hw.activation_buffer_bytes


@pytest.mark.slow
@settings(max_examples=30)
@given(small(), tight(), st.integers(1, 8), st.integers(1, 2))
def test_the_best_tiling_is_the_twins(layer, hw, weight_bits, batch):
    if not binds(hw, layer, batch):
        return
    cycles, bits = best_tiling(layer, hw, weight_bits, 8, batch)
    if not np.isfinite(cycles):
        with pytest.raises(ValueError, match=f"layer '{layer.name}': no tile of it fits the buffers"):
            hw.run([layer], weight_bits, 8, batch=batch)
        return
    row = hw.run([layer], weight_bits, 8, batch=batch).frame.iloc[0]
    assert row["cycles"] == cycles
    assert row["dram_bytes"] * 8 == pytest.approx(bits, rel=1e-12)


def both(hw, layers, *bits, **run):
    """One run with the closed form and one with the search."""
    return [dataclasses.replace(hw, mapping=mapping).run(layers, *bits, **run) for mapping in ("closed", "search")]


@st.composite
def roomy(draw: st.DrawFn) -> Stripes:
    machine = draw(st.sampled_from([Stripes, BitFusion, DaDianNao]))
    return machine(
        weight_buffer_bytes=2 ** draw(st.integers(8, 12)),
        activation_buffer_bytes=2 ** draw(st.integers(8, 12)),
        output_buffer_bytes=draw(st.sampled_from([0, 2**8, 2**10])),
        buffers=draw(st.sampled_from(["whole", "double"])),
        halo=draw(st.sampled_from(["read", "kept"])),
        dram_burst_bits=draw(st.sampled_from([1, 64, 512])),
        resident_weights=draw(st.booleans()),
    )


any_layer = st.one_of(
    convolutions(),
    sampled_axes("conv"),
    sampled_axes("conv_transpose"),
    small(),
    st.sampled_from(
        [
            SCORES,
            dataclasses.replace(SCORES, stored_before=4 * 64 * 256),
            dataclasses.replace(SCORES, stored_before=4 * 64 * 300),
            # a matrix that is called several times, and experts
            LayerShape(name="recurrent", kind="linear", in_channels=64, out_channels=96, copies=6),
            LayerShape(name="experts", kind="linear", in_channels=64, out_channels=96, copies=6, matrices=3, tokens=2),
            LayerShape(name="scaled", kind="linear", in_channels=64, out_channels=96, scales=7, tokens=40),
        ]
    ),
)


@pytest.mark.slow
@given(any_layer, roomy(), st.integers(1, 16), st.sampled_from([1, 3]))
def test_the_closed_form_is_a_lower_bound(layer, hw, weight_bits, batch):
    closed, search = both(hw, [layer], weight_bits, 8, batch=batch)
    assert search.cycles >= closed.cycles
    assert search.compute_cycles == closed.compute_cycles
    for column in ("dram_bytes", "energy_pj", "weight_buffer_pj", "activation_buffer_pj"):
        assert search.frame[column].iloc[0] >= closed.frame[column].iloc[0] * (1 - 1e-12)


@pytest.mark.slow
@given(any_layer, roomy(), st.sampled_from(["weight", "activation", "output"]), st.integers(1, 3))
def test_a_larger_buffer_is_never_worse(layer, hw, which, factor):
    hw = dataclasses.replace(hw, mapping="search", output_buffer_bytes=hw.output_buffer_bytes or 2**9)
    field = f"{which}_buffer_bytes"
    larger = dataclasses.replace(hw, **{field: getattr(hw, field) * 2**factor})
    assert larger.run([layer], 4, 8).cycles <= hw.run([layer], 4, 8).cycles


@pytest.mark.slow
@given(any_layer, roomy(), st.integers(1, 16))
def test_where_everything_fits_both_are_the_same(layer, hw, weight_bits):
    hw = dataclasses.replace(hw, weight_buffer_bytes=2**24, activation_buffer_bytes=2**24, output_buffer_bytes=2**24)
    closed, search = both(hw, [layer], weight_bits, 8)
    assert search.frame.equals(closed.frame)
    assert not search.costs.moved.tiles


def test_a_layer_whose_operands_fit_one_by_one_moves_once():
    # inputs of 8 KiB fit, outputs of 16 KiB beside them do not: they leave as they come, past resident inputs
    hw = Stripes(activation_buffer_bytes=12 * 1024, weight_buffer_bytes=2 * 1024, tiles=1, rows=8)
    closed, search = both(hw, [CONV], 4, 8)
    assert search.frame["dram_bytes"].tolist() == closed.frame["dram_bytes"].tolist() == [9216 + 8192 + 16384]
    tile = search.costs.moved.tiles[0]
    assert (tile.weights, tile.inputs, tile.sums) == (1, 1, 0)


def test_halo_is_what_two_tiles_meet():
    # a kernel one wide: columns of whole height share nothing, and move once
    tall = LayerShape(name="c", kind="conv", in_channels=8, out_channels=1, kernel_size=(3, 1), input_size=(18, 64))
    once = tall.input_count + tall.output_count + tall.weight_count
    hw = Stripes(mapping="search", activation_buffer_bytes=4096 + 512)
    result = hw.run([tall], 8, 8)
    assert result.frame["dram_bytes"].tolist() == [once]
    assert result.costs.moved.tiles[0].windows[1] == 16
    # 16 x 16 windows in two halves: each meets 9 rows of the 16
    square = dataclasses.replace(CONV, out_channels=1)
    hw = dataclasses.replace(hw, activation_buffer_bytes=3400, columns=64)
    read, kept = (dataclasses.replace(hw, halo=halo).run([square], 8, 8) for halo in ("read", "kept"))
    assert read.costs.moved.tiles[0].windows == (1, 8, 16)
    outputs = 16 * 16 + 9 * 32
    assert read.frame["dram_bytes"].tolist() == [2 * 32 * 9 * 16 + outputs]
    assert kept.frame["dram_bytes"].tolist() == [32 * 16 * 16 + outputs]


def test_bursts_cost_short_runs_more():
    hw = BitFusion(dram_burst_bits=512)
    short = dataclasses.replace(CONV, in_channels=3, groups=1)
    for layer in (CONV, short, FC, SCORES):
        plain, bursts = BitFusion().run([layer], 4, 4, batch=4), hw.run([layer], 4, 4, batch=4)
        assert bursts.frame["dram_bytes"].iloc[0] >= plain.frame["dram_bytes"].iloc[0]
        assert bursts.frame["dram_bytes"].iloc[0] % 64 == 0 or layer is not FC
    # one value of 4 bits comes as a whole burst
    one = LayerShape(name="one", kind="linear", in_channels=1, out_channels=1)
    assert hw.run([one], 4, 4).frame["dram_bytes"].tolist() == [3 * 64]


def test_the_chosen_tiles_are_told():
    result = BitFusion().run([CONV, FC, SCORES], 8, 8, batch=2)
    tiles = result.tiles.set_index("name")
    assert tiles.loc["c", "windows"] == "1 x 16 x 16"
    assert set(tiles.columns) >= {"windows", "channels", "filters", "weights", "inputs", "sums"}
    assert BitFusion(mapping="closed").run([CONV], 8, 8).tiles.empty


def test_a_machine_without_room_for_one_value_is_named():
    hw = Stripes(mapping="search", activation_buffer_bytes=1)
    with pytest.raises(ValueError, match=r"layer 'fc': no tile of it fits the buffers of Stripes, .*mapping='closed'"):
        hw.run([FC], 4, 8)


@pytest.mark.slow
def test_tables_and_grids_hold_what_runs_cost():
    layers = [CONV, FC, SCORES]
    table = cost_table(layers, BitFusion(), bits=(2, 4, 8), activation_bits=4)
    for bits in table.bits:
        result = BitFusion().run(layers, bits, 4)
        assert table.score([[bits, bits]])["cycles"].tolist() == [result.cycles]
    grid = {
        "mapping": ("closed", "search"),
        "buffers": ("whole", "double"),
        "output_buffer_bytes": (0, 4096),
        "weight_buffer_bytes": (2048, 65536),
        "dram_burst_bits": (1, 256),
    }
    frame = explore(layers, 4, grid, hardware=BitFusion(), activation_bits=4)
    assert len(frame) == 32
    for row in frame.to_dict("records"):
        hw = BitFusion(**{key: row[key] for key in grid})
        result = hw.run(layers, 4, 4)
        assert (row["cycles"], row["energy_pj"]) == (result.cycles, result.energy_pj)

from __future__ import annotations

import math

import pytest

from stripes_sim import BitFusion, DaDianNao, LayerShape, Loom, Stripes, plot_roofline, roofline
from stripes_sim.roofline import peak_macs_per_s

FULL = LayerShape(name="full", kind="conv", in_channels=16, out_channels=256, kernel_size=1, input_size=(64, 64))
WIDE = LayerShape(name="wide", kind="linear", in_channels=4096, out_channels=4096)
TABLE = LayerShape(name="table", kind="embedding", in_channels=100, out_channels=16, tokens=4)


def test_the_peak_is_lanes_over_cycles_of_a_product():
    lanes = 16**4
    assert peak_macs_per_s(Stripes(), 5) == pytest.approx(lanes / 5 * 980e6)
    assert peak_macs_per_s(Stripes(serial="activations"), 5, 3) == pytest.approx(lanes / 3 * 980e6)
    assert peak_macs_per_s(Loom(), 5, 3) == pytest.approx(16 * lanes / 15 * 980e6)
    assert peak_macs_per_s(DaDianNao(), 2) == peak_macs_per_s(DaDianNao(), 16) == pytest.approx(4096 * 980e6)
    # 512 units of 8 bits, each four products of 4 bits; 5 bits cost what 8 do
    assert peak_macs_per_s(BitFusion(), 4, 4) == pytest.approx(2048 * 500e6)
    assert peak_macs_per_s(BitFusion(), 5, 4) == pytest.approx(1024 * 500e6)
    with pytest.raises(ValueError, match="weight_bits"):
        peak_macs_per_s(Stripes(), 17)


def test_a_layer_that_fills_the_array_lies_on_its_ceiling():
    # fast memory, so that only the array limits: 256 filters, 16 channels, 4096 windows use every lane
    machine = Stripes(dram_bytes_per_s=1e15, weight_buffer_bits_per_cycle=2**30, activation_buffer_bits_per_cycle=2**30)
    point = roofline(machine.run([FULL], 4)).iloc[0]
    assert point["bound"] == "compute"
    assert point["macs_per_s"] == pytest.approx(point["array_macs_per_s"]) == pytest.approx(16**4 / 4 * 980e6)


def test_a_layer_that_waits_for_dram_lies_on_the_slope():
    result = Stripes().run([WIDE], 4)
    point = roofline(result).iloc[0]
    moved = result.frame["dram_bytes"][0]
    assert point["bound"] == "DRAM"
    assert point["macs_per_byte"] == pytest.approx(4096 * 4096 / moved)
    assert point["macs_per_s"] == pytest.approx(point["dram_macs_per_s"], rel=1e-4)


@pytest.mark.parametrize("machine", [Stripes(), Stripes(serial="activations"), DaDianNao(), Loom(), BitFusion()])
def test_no_point_lies_above_a_roof(machine):
    found = roofline(machine.run([FULL, WIDE], 4, 8))
    assert (found["macs_per_s"] <= found[["array_macs_per_s", "dram_macs_per_s"]].min(axis=1) * (1 + 1e-12)).all()


def test_lookups_have_no_point_and_still_memory_an_infinite_intensity():
    machine = Stripes(resident_weights=True)
    middle = roofline(machine.run([FULL, FULL, TABLE, FULL], 4)).iloc[1]
    assert math.isinf(middle["macs_per_byte"])
    assert len(roofline(machine.run([FULL, TABLE], 4))) == 1
    with pytest.raises(ValueError, match="nothing to draw"):
        plot_roofline(machine.run([TABLE], 4))


@pytest.mark.slow
def test_every_layer_is_drawn_and_each_number_of_bits_has_a_ceiling():
    result = Stripes().run([FULL, WIDE], {"full": 3, "wide": 5})
    axes = plot_roofline(result, bits=(8,), title="t").axes[0]
    assert sum(len(points.get_offsets()) for points in axes.collections) == 2
    ceilings = sorted(float(line.get_ydata()[0]) for line in axes.lines[1:])
    assert ceilings == pytest.approx([16**4 / bits * 980e6 for bits in (8, 5, 3)])
    assert {text.get_text() for text in axes.texts} >= {"8-bit weights", "full (3 bit)", "wide (5 bit)"}
    assert axes.get_legend().get_texts()[-1].get_text() == "DRAM"
    alike = plot_roofline(BitFusion().run([FULL, WIDE], {"full": 3, "wide": 4}, 8)).axes[0]
    assert "3-bit weights = 4-bit weights" in {text.get_text() for text in alike.texts}

from __future__ import annotations

import pytest

from stripes_sim import LayerShape, Stripes
from stripes_sim.text import aligned


@pytest.mark.parametrize(
    ("inputs", "outputs", "units"),
    [(4, 2, ("MAC", "pJ", "ns")), (512, 1000, ("kMAC", "nJ", "ns")), (25_000, 40_000, ("MMAC", "uJ", "us"))],
)
def test_units_fit_the_size_of_the_network(inputs, outputs, units):
    net = [LayerShape(name="fc", kind="linear", in_channels=inputs, out_channels=outputs)]
    text = Stripes(resident_weights=True, tiles=1).run(net, 4).table()
    head = text.splitlines()[2].split()
    assert (head[1], head[-1]) == units[:2]
    assert f" {units[2]} at 980 MHz" in text


def test_columns_are_as_wide_as_their_widest_cell():
    table = aligned(("a", "long head"), [("x", "1"), ("longer", "22")])
    assert table.splitlines() == ["a       long head", "x               1", "longer         22"]
    assert aligned(("a", "b"), [], left=2) == "a  b"


def test_more_bits_than_a_baseline_read_as_more():
    net = [LayerShape(name="fc", kind="linear", in_channels=512, out_channels=1000)]
    sixteen, eight = Stripes().run(net, 12).savings
    assert "x fewer cycles" in str(sixteen)
    assert "% less energy" in str(sixteen)
    assert str(eight).startswith("1.50x more cycles, ")
    assert "% more energy" in str(eight)

"""Counts are exact or refused, whatever the sizes; no total ever wraps around."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stripes_sim import BitFusion, DaDianNao, LayerShape, Loom, Stripes, cost_table, explore
from tests.stripes_sim.strategies import bit_counts

MACHINES = [Stripes(), Stripes(serial="activations"), DaDianNao(), Loom(), BitFusion()]


def linear(inputs: int, outputs: int, **sizes: int) -> LayerShape:
    return LayerShape(name="fc", kind="linear", in_channels=inputs, out_channels=outputs, **sizes)


@pytest.mark.parametrize("hw", MACHINES, ids=lambda hw: f"{hw.name}-{hw.serial}")
def test_a_trillion_channels_are_refused_by_name(hw):
    with pytest.raises(ValueError, match=r"layer 'fc': 1e\+24 multiply-accumulates are more than can be counted"):
        hw.run([linear(10**12, 10**12)], 8)
    with pytest.raises(ValueError, match="layer 'fc'"):
        cost_table([linear(10**12, 10**12)], hw)
    with pytest.raises(ValueError, match="layer 'fc'"):
        explore([linear(10**12, 10**12)], 8, {"tiles": (1,)}, hardware=hw)


@pytest.mark.parametrize("hw", MACHINES, ids=lambda hw: f"{hw.name}-{hw.serial}")
def test_a_large_layer_over_many_tokens_keeps_its_figures(hw):
    few, many = linear(8192, 28672, tokens=2**10), linear(8192, 28672, tokens=2**26)
    small, large = hw.run([few], 16), hw.run([many], 16)
    assert large.compute_cycles == 2**16 * small.compute_cycles
    assert large.utilisation == pytest.approx(small.utilisation, rel=0.05)
    assert large.frame["macs"][0] == many.macs
    assert 0 < small.energy_pj < large.energy_pj


@pytest.mark.slow
@given(st.integers(1, 2**40), st.integers(1, 2**40), st.integers(1, 2**40), bit_counts, st.sampled_from([1, 3, 2**20]))
def test_cycles_are_those_of_pythons_integers_or_refused(inputs, outputs, tokens, bits, batch):
    layer = linear(inputs, outputs, tokens=tokens)

    def up(a: int, b: int) -> int:
        return -(-a // b)

    steps = up(up(outputs, 16), 16) * up(inputs, 16)
    windows = up(tokens * batch, 16) * steps * bits
    one_by_one = tokens * batch * max(up(steps, 16) * bits, up(steps * bits, 16))
    try:
        assert Stripes().run([layer], bits, batch=batch).compute_cycles == min(windows, one_by_one)
    except ValueError:
        assert min(windows, one_by_one) * 2**16 >= 2**53


def test_totals_over_layers_do_not_wrap_either():
    layers = [linear(2**22, 2**22, tokens=31)] * 1200
    result = Stripes(lanes=1, columns=1, rows=1, tiles=1).run(layers, 15)
    assert result.compute_cycles == 1200 * 31 * 2**44 * 15 > 2**63
    assert f"{result.compute_cycles:,}" in str(result)


def test_sizes_that_float64_cannot_hold_are_refused():
    with pytest.raises(ValueError, match=r"in_channels must be at most 2\^53, but it is 1000000"):
        linear(10**400, 1)
    with pytest.raises(ValueError, match=r"tiles must be at most 2\^53 tiles"):
        Stripes(tiles=2**60)
    with pytest.raises(ValueError, match=r"batch must be at most 2\^53"):
        Stripes().run([linear(1, 1)], 4, batch=2**60)


def test_what_no_call_looks_at_is_checked_all_the_same():
    layers = [linear(512, 10)]
    for bits in (0, 99):
        with pytest.raises(ValueError, match=f"default_bits must be from 1 to 16, but it is {bits}"):
            Stripes().run(layers, {"fc": 4}, default_bits=bits)
        with pytest.raises(ValueError, match=f"weight_bits must be from 1 to 16, but it is {bits}"):
            Stripes().run(layers, 4).saving(bits)
    with pytest.raises(ValueError, match="batch must be a whole number of samples, at least 1, but it is 0"):
        cost_table(layers, Stripes(), batch=0)


def test_an_enormous_machine_has_finite_costs():
    hw = Stripes(tiles=2**40, rows=2**10, lanes=2**30, columns=2**20)
    result = hw.run([linear(512, 10)], 4)
    assert result.compute_cycles == 4
    assert math.isfinite(result.energy_pj)
    assert 0 <= result.utilisation < 1

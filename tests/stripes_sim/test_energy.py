from __future__ import annotations

import numpy as np
import pytest

from stripes_sim import BitFusion, DaDianNao, LayerShape, Loom, Stripes, explore
from stripes_sim.dataflows import dataflow_named
from stripes_sim.energy import CONSTANTS, area_mm2, buffer_pj_per_bit, leakage_w

CONV = LayerShape(name="c", kind="conv", in_channels=64, out_channels=64, kernel_size=3, input_size=(56, 56), padding=1)


def one_mac(hw, weight_bits, activation_bits):
    bits = np.array(float(weight_bits)), np.array(float(activation_bits))
    return float(dataflow_named(hw.serial).mac_pj(hw, *bits))


def test_every_constant_says_what_it_is_and_how_far_to_trust_it():
    for key, constant in CONSTANTS.items():
        assert constant.what, key
        assert constant.source, key
        assert constant.status in ("measured", "published", "assumed")
        assert constant.value > 0


def test_the_multiplier_fit_gives_horowitz_numbers():
    def multiply(bits):
        return CONSTANTS["multiply_square"].value * bits**2 + CONSTANTS["multiply_linear"].value * bits

    assert multiply(8) == pytest.approx(0.2, rel=1e-6)
    assert multiply(32) == pytest.approx(3.1, rel=1e-6)
    assert CONSTANTS["add_per_bit"].value * 32 == pytest.approx(0.1)


def test_a_parallel_multiplier_costs_the_same_at_any_bits():
    assert one_mac(DaDianNao(), 2, 2) == one_mac(DaDianNao(), 16, 16) == pytest.approx(0.7833333 + 0.1, rel=1e-6)


def test_a_serial_lane_costs_in_proportion_to_the_serial_bits():
    for hw in (Stripes(), Loom()):
        assert one_mac(hw, 8, 8) == pytest.approx(8 * one_mac(hw, 1, 8))
    assert one_mac(Stripes(serial="activations"), 8, 6) == pytest.approx(6 * one_mac(Stripes(), 1, 8))
    # the measured PE, eight lanes of 8 bits, moved from 28 to 45 nm
    eight = Stripes(lanes=8)
    assert 8 * one_mac(eight, 1, 8) == pytest.approx(0.28125 * 1.5 * 45 / 28)


def test_a_fusion_unit_is_shared_by_the_products_that_it_holds():
    assert one_mac(BitFusion(), 8, 8) == pytest.approx(0.56)
    assert one_mac(BitFusion(), 2, 2) == pytest.approx(0.56 / 16)
    assert one_mac(BitFusion(), 3, 4) == one_mac(BitFusion(), 4, 4) == pytest.approx(0.56 / 4)
    assert one_mac(BitFusion(), 16, 8) == pytest.approx(2 * 0.56)


def test_buffers_follow_the_cacti_sweep():
    assert buffer_pj_per_bit(Stripes(buffer_bank_bytes=16384), "read") == pytest.approx(2.495 / 8)
    assert buffer_pj_per_bit(Stripes(buffer_bank_bytes=128), "write") == pytest.approx(0.231 / 8)
    between = buffer_pj_per_bit(Stripes(buffer_bank_bytes=3000), "read")
    assert 0.476 / 8 < between < 0.857 / 8
    assert buffer_pj_per_bit(Stripes(buffer_bank_bytes=4 * 16384), "read") == pytest.approx(2 * 2.495 / 8)


def test_node_and_supply_scale_by_the_stated_rules():
    small = Stripes(node_nm=22.5, supply_v=0.45)
    assert one_mac(small, 4, 8) == pytest.approx(one_mac(Stripes(), 4, 8) / 2 / 4)
    assert area_mm2(small)["total"] == pytest.approx(area_mm2(Stripes())["total"] / 4)
    assert leakage_w(small) == pytest.approx(leakage_w(Stripes()) / 4)
    # DRAM is another chip
    assert small.run([CONV], 4).breakdown_pj["dram"] == Stripes().run([CONV], 4).breakdown_pj["dram"]


def test_leakage_of_bitfusion_is_that_of_its_synthesis_and_its_banks_of_sram():
    hw = BitFusion()
    logic = 512 * 1733.13e-6 * 949.24e-6 / 27752.83558e-6
    banks = (hw.weight_buffer_bytes + hw.activation_buffer_bytes + hw.output_buffer_bytes) / 2048
    assert leakage_w(hw) == pytest.approx(logic + banks * 3.23e-3)
    # the density that is quoted for logic, W/mm2
    assert CONSTANTS["leakage_logic"].value == pytest.approx(0.0342, abs=5e-5)
    assert leakage_w(BitFusion(leakage="density")) < leakage_w(hw) / 5


def test_banks_of_sram_leak_by_their_size_and_large_ones_in_proportion():
    def buffers_w(bank_bytes):
        machine = DaDianNao(leakage="measured", buffer_bank_bytes=bank_bytes, weight_buffer_bytes=2**24)
        return leakage_w(machine) - leakage_w(DaDianNao(leakage="measured", buffer_bank_bytes=bank_bytes))

    difference = 2**24 - DaDianNao().weight_buffer_bytes
    assert buffers_w(4096) == pytest.approx(difference / 4096 * 7.302e-3)
    assert buffers_w(16384) == pytest.approx(difference / 16384 * 27.127e-3)
    assert buffers_w(2**20) == pytest.approx(buffers_w(16384))


def test_leakage_is_off_or_one_of_two():
    quiet = Stripes(leakage="off").run([CONV], 4)
    loud = Stripes().run([CONV], 4)
    assert quiet.breakdown_pj["leakage"] == 0
    assert quiet.energy_pj == pytest.approx(loud.energy_pj - loud.breakdown_pj["leakage"])
    assert leakage_w(Stripes()) == pytest.approx(0.02 * (16 * 3.05 + 65.2) * 45 / 65)
    with pytest.raises(ValueError, match=r"leakage must be one of .*'mesured'; did you mean 'measured'"):
        Stripes(leakage="mesured")
    found = explore([CONV], 4, {"leakage": ["density", "off"], "tiles": [8, 16]})
    assert found["energy_pj"].tolist() == [
        Stripes(leakage=leakage, tiles=tiles).run([CONV], 4).energy_pj
        for leakage in ("density", "off")
        for tiles in (8, 16)
    ]


def test_area_gives_back_the_chips_that_it_was_taken_from():
    assert area_mm2(DaDianNao(node_nm=65))["total"] == pytest.approx(90.0)
    assert area_mm2(Stripes(node_nm=65))["array"] == pytest.approx(16 * 3.05)


def test_dadiannao_at_full_use_draws_about_its_recalled_power():
    hw = DaDianNao()
    array = 4096 * one_mac(hw, 16, 16)
    buffer = 65536 * buffer_pj_per_bit(hw, "read")
    leakage = leakage_w(hw) / hw.clock_hz * 1e12
    recalled = 18.8 / 980e6 * 1e12 * 45 / 65
    assert (array + buffer + leakage) / recalled == pytest.approx(0.9, abs=0.05)


def test_energy_of_a_run_is_the_sum_of_its_parts_by_hand():
    hw = Stripes()
    result = hw.run([CONV], 4, 8)
    weights, inputs, outputs = 36864 * 4, 64 * 3136 * 8, 64 * 3136 * 8
    read, write = buffer_pj_per_bit(hw, "read"), buffer_pj_per_bit(hw, "write")
    parts = {
        "compute": CONV.macs * one_mac(hw, 4, 8),
        "weight_buffer": weights * 196 * read + weights * write,
        "activation_buffer": 3136 * 9 * 64 * 8 * read + (inputs + outputs) * write,
        "dram": (weights + inputs + outputs) * 8.0,
        "leakage": result.cycles / 980e6 * leakage_w(hw) * 1e12,
    }
    assert result.breakdown_pj == pytest.approx(parts)
    assert result.energy_pj == pytest.approx(sum(parts.values()))


@pytest.mark.parametrize("hw", [Stripes(), Stripes(serial="activations"), Loom(), BitFusion(), DaDianNao()])
def test_energy_never_falls_with_bits(hw):
    energies = [hw.run([CONV], bits, 8).energy_pj for bits in range(1, 17)]
    assert energies == sorted(energies)
    energies = [hw.run([CONV], 8, bits).energy_pj for bits in range(1, 17)]
    assert energies == sorted(energies)

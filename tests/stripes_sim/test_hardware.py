from __future__ import annotations

import dataclasses

import pytest

from stripes_sim import BitFusion, DaDianNao, Loom, Stripes


def test_the_family_shares_its_peak_at_16_bits():
    assert [hw.macs_per_cycle for hw in (Stripes(), Stripes(serial="activations"), DaDianNao(), Loom())] == [4096] * 4
    assert BitFusion().macs_per_cycle == 512


def test_machines_are_frozen_and_compare_by_value():
    assert Stripes(lanes=16) == Stripes()
    with pytest.raises(dataclasses.FrozenInstanceError):
        Stripes().lanes = 3

from __future__ import annotations

import dataclasses
import re

import pytest

from stripes_sim import Accelerator, Stripes
from stripes_sim.parameters import UNITS


def test_every_parameter_has_a_unit_and_a_meaning():
    assert list(UNITS) == [field.name for field in dataclasses.fields(Accelerator)]
    assert all(meaning for _, meaning in UNITS.values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clock_hz": -1}, "clock_hz must be more than 0 Hz, but it is -1"),
        ({"clock_hz": float("nan")}, "clock_hz must be more than 0 Hz, but it is nan"),
        ({"lanes": 0}, "lanes must be more than 0 products, but it is 0"),
        ({"serial": "weight"}, "'pragmatic', 'laconic'), but it is 'weight'; did you mean 'weights'?"),
        ({"dram": "ddr5"}, "dram must be one of ('lpddr4', 'ddr3', 'hbm2'), but it is 'ddr5'; did you mean 'ddr3'?"),
        ({"compat": "dnn"}, "compat must be one of ('dnnsim', None)"),
    ],
)  # fmt: skip
def test_values_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Stripes(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lanes": 2.5}, "lanes must be a whole number of products, but it is 2.5"),
        ({"lanes": "16"}, "lanes must be a number of products, but it is '16'"),
        ({"tiles": True}, "tiles must be a number of tiles, but it is True"),
        ({"space_to_depth": 1}, "space_to_depth must be a bool, but it is 1"),
        ({"name": None}, "name must be a str, but it is None"),
    ],
)
def test_values_of_a_wrong_type_are_named(settings, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        Stripes(**settings)

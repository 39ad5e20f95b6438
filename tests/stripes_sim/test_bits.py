from __future__ import annotations

import re

import numpy as np
import pytest

from stripes_sim import LayerShape
from stripes_sim.bits import resolve_bits, streamed_bits

NAMES = ["conv1", "conv2", "fc"]


def test_an_int_holds_for_all_and_a_mapping_by_name():
    assert resolve_bits(NAMES, 4, argument="weight_bits").tolist() == [4, 4, 4]
    assert resolve_bits(NAMES, {"fc": 8, "conv1": np.uint8(2), "conv2": 3}, argument="weight_bits").tolist() == [
        2,
        3,
        8,
    ]
    assert resolve_bits(["a", "a"], {"a": 5}, argument="weight_bits").tolist() == [5, 5]
    assert resolve_bits(NAMES, {"fc": 8}, argument="weight_bits", default_bits=16).tolist() == [16, 16, 8]


@pytest.mark.parametrize(
    ("bits", "message"),
    [
        (0, "weight_bits must be from 1 to 16, but it is 0"),
        (17, "weight_bits must be from 1 to 16, but it is 17"),
        ({"conv1": 4, "conv2": 17, "fc": 4}, "weight_bits of layer 'conv2' must be from 1 to 16, but it is 17"),
        ({"conv1": 4, "fc": 4}, "weight_bits has no bits for layer 'conv2'; add them, or give default_bits"),
        (
            {"conv1": 4, "cnov2": 4, "fc": 4},
            "weight_bits names 'cnov2', which is no layer of this workload; did you mean 'conv2'?",
        ),
        ({"conv1": 4, "conv2": 4, "fc": 4, "extra": 1}, "names 'extra', which is no layer of this workload"),
    ],
)
def test_bad_bits_are_named_with_the_nearest_layer(bits, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        resolve_bits(NAMES, bits, argument="weight_bits")


@pytest.mark.parametrize("value", [4.0, "4", True, None])
def test_bits_are_integers(value):
    with pytest.raises(TypeError, match="weight_bits must be an integer from 1 to 16"):
        resolve_bits(NAMES, value, argument="weight_bits")


def test_layers_without_weights_may_be_left_out_of_activation_bits():
    net = [
        LayerShape(name="fc", kind="linear", in_channels=8, out_channels=8),
        LayerShape(name="qk", kind="matmul", in_channels=8, out_channels=8),
    ]
    assert streamed_bits(net, {"fc": 4}).tolist() == [4, 16]
    assert streamed_bits(net, {"fc": 4, "qk": 6}).tolist() == [4, 6]
    assert streamed_bits(net, {}, default_bits=8).tolist() == [8, 8]
    assert streamed_bits(net, 5).tolist() == [5, 5]
    with pytest.raises(ValueError, match="activation_bits has no bits for layer 'fc'"):
        streamed_bits(net, {"qk": 6})

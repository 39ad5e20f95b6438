from __future__ import annotations

import re
from math import prod

import pytest
import torch
from hypothesis import given
from torch import nn

from stripes_sim import LayerShape
from tests.reference_stripes import places_met
from tests.stripes_sim.strategies import convolutions, sampled_axes


def conv(**changes):
    shape = {"name": "c", "kind": "conv", "in_channels": 8, "out_channels": 4, "kernel_size": 3, "input_size": (9, 9)}
    return LayerShape(**{**shape, **changes})


@given(convolutions())
def test_sizes_are_those_of_torch(layer):
    kind = {1: nn.Conv1d, 2: nn.Conv2d}[len(layer.input_size)]
    module = kind(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        stride=layer.stride,
        padding=layer.padding,
        groups=layer.groups,
        bias=False,
        device="meta",
    )
    output = module(torch.empty(1, layer.in_channels, *layer.input_size, device="meta"))
    assert layer.output_size == tuple(output.shape[2:])
    assert layer.weight_count == module.weight.numel()
    assert layer.output_count == output.numel()
    assert layer.macs == module.weight.numel() * prod(layer.output_size)


@pytest.mark.slow
@given(sampled_axes("conv"))
def test_what_a_kernel_meets_is_what_collecting_its_places_finds(layer):
    assert layer.read_count == layer.in_channels * places_met(layer)
    assert layer.read_count <= layer.input_count


def test_a_strided_kernel_reads_what_it_meets():
    shortcut = conv(kernel_size=1, stride=2)
    assert (shortcut.input_count, shortcut.read_count) == (8 * 81, 8 * 25)
    assert conv(kernel_size=3, stride=2, padding=1).read_count == 8 * 81
    # a dilated kernel on every fourth window: places 0, 2, 4 and 4, 6, 8
    assert conv(kernel_size=3, stride=4, dilation=2).read_count == 8 * 25
    assert conv(input_size=(10**9, 10**9), kernel_size=1, stride=2).read_count == 8 * (5 * 10**8) ** 2


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_transposed_and_dilated_sizes_are_those_of_torch(axes, dilation):
    kind = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}[axes]
    module = kind(
        4, 6, 3, stride=2, padding=1, output_padding=1, dilation=dilation, groups=2, bias=False, device="meta"
    )
    layer = LayerShape(
        name="up",
        kind="conv_transpose",
        in_channels=4,
        out_channels=6,
        kernel_size=3,
        input_size=(5,) * axes,
        stride=2,
        padding=1,
        output_padding=1,
        dilation=dilation,
        groups=2,
    )
    assert layer.output_size == tuple(module(torch.empty(1, 4, *(5,) * axes, device="meta")).shape[2:])
    assert layer.weight_count == module.weight.numel()
    assert layer.macs == 5**axes * module.weight.numel()


def test_alexnet_conv1_of_the_literature():
    layer = conv(in_channels=3, out_channels=96, kernel_size=11, input_size=(227, 227), stride=4)
    assert (layer.output_size, layer.macs, layer.weight_count) == ((55, 55), 105_415_200, 34_848)


def test_ints_are_broadcast_and_an_axis_is_a_tuple():
    assert conv(stride=2) == conv(stride=(2,)) == conv(stride=(2, 2))
    assert conv(input_size=9, kernel_size=3).output_size == (7,)
    assert conv(padding=(1, 2, 0, 0)).padded_size == (12, 9)


def test_flat_kinds_count_their_work():
    fc = LayerShape(name="f", kind="linear", in_channels=5, out_channels=7, tokens=3, copies=2)
    assert (fc.macs, fc.weight_count, fc.input_count, fc.output_count) == (210, 35, 30, 42)
    heads = LayerShape(name="qk", kind="matmul", in_channels=5, out_channels=7, tokens=3, copies=2)
    assert (heads.macs, heads.weight_count, heads.has_weights, heads.input_count) == (210, 0, False, 2 * 5 * (3 + 7))
    words = LayerShape(name="e", kind="embedding", in_channels=1000, out_channels=8, tokens=3)
    assert (words.macs, words.weight_count, words.has_weights, words.output_count) == (0, 8000, False, 24)
    assert (
        LayerShape(name="f", kind="linear", in_channels=5, out_channels=7, kernel_size=1, input_size=(1, 1)).macs == 35
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "name must be a non-empty string"),
        ({"kind": "lstm"}, "layer 'c': kind must be one of"),
        ({"in_channels": 0}, "layer 'c': in_channels must be at least 1, but it is 0"),
        ({"stride": 0}, "layer 'c': stride must be at least 1, but it is 0"),
        ({"padding": -1}, "layer 'c': padding must be at least 0, but it is -1"),
        ({"groups": 3}, "layer 'c': in_channels=8 is not a multiple of groups=3"),
        ({"kernel_size": 12}, "layer 'c': the kernel (12, 12) does not fit the input (9, 9)"),
        ({"stride": (1, 2, 3)}, "layer 'c': stride must be one integer or 2 of them"),
        ({"input_size": (), "kernel_size": ()}, "layer 'c': a conv layer needs input_size and kernel_size"),
        ({"tokens": 4}, "layer 'c': tokens is for linear layers"),
        ({"kind": "linear"}, "layer 'c': a linear layer has no kernel_size, but it is 3"),
        ({"kind": "linear", "kernel_size": (), "input_size": (), "stride": 2}, "a linear layer has no stride"),
        ({"kind": "linear", "kernel_size": (), "input_size": (), "groups": 2}, "a linear layer has no groups"),
    ],
)
def test_what_does_not_fit_is_named(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        conv(**changes)


@pytest.mark.parametrize("value", [2.5, "8", True, None])
def test_sizes_are_integers(value):
    with pytest.raises(TypeError, match="layer 'c': in_channels must be an integer"):
        conv(in_channels=value)

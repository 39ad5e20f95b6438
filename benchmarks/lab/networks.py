"""Networks that the experiments need and the zoo does not have; importing this file registers them."""

from __future__ import annotations

import itertools

from torch import nn

from waveq.zoo import register_network

__all__ = ["depthwise"]

_CHANNELS = (16, 32, 48, 64, 96, 128)
_STRIDES = (1, 2, 1, 2, 1)


@register_network("depthwise", in_channels=3, input_size=32, num_classes=10, smallest_size=8)
def depthwise(num_classes: int, in_channels: int, width: float = 1.0) -> nn.Sequential:
    """A MobileNet of five depthwise pairs: 11 convolutions with batch norm and one linear layer.

    A 3x3 convolution, then five times a depthwise 3x3 and a 1x1 convolution (Howard et al. 2017, arXiv 1704.04861), and
    the mean over the image. 28,858 parameters and 3.75 million multiplications on 32x32 pixels at width 1. Layers
    differ by a factor of twenty, and the depthwise ones bear few bits badly: a policy has something to decide.

    Args:
        num_classes: number of logits.
        in_channels: channels of the images.
        width: factor on the channels.
    """
    channels = [max(8, round(width * each)) for each in _CHANNELS]
    blocks = [_block(in_channels, channels[0], 3)]
    for (inputs, outputs), stride in zip(itertools.pairwise(channels), _STRIDES, strict=True):
        blocks += [_block(inputs, inputs, 3, stride=stride, groups=inputs), _block(inputs, outputs, 1)]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], num_classes))


def _block(inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))

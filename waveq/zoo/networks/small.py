"""LeNet, SimpleNet-5 and a network for the 8x8 digits: two convolutions and a few linear layers each.

Shapes: LeNet as Caffe draws it (20 and 50 filters of 5x5, 500 hidden units), SimpleNet-5 as Distiller's
`simplenet_cifar`. Both use ReLU after every hidden layer. Distiller calls it as a function, not as a
module, and so does this file: a quantizer has to cope with that.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from waveq.zoo.networks.windows import Window, output_size

__all__ = ["DIGITSNET", "LENET", "SIMPLENET5", "ConvPoolNet", "Plan"]


class Plan(NamedTuple):
    """Widths of a network that alternates convolution and 2x2 pooling, then goes through linear layers."""

    channels: tuple[int, int]
    hidden: tuple[int, ...]
    kernel: int
    padding: int

    @property
    def windows(self) -> tuple[Window, ...]:
        """The windows in the order in which an image meets them."""
        pair = (Window(self.kernel, 1, self.padding), Window(2, 2))
        return pair + pair


LENET = Plan(channels=(20, 50), hidden=(500,), kernel=5, padding=0)
SIMPLENET5 = Plan(channels=(6, 16), hidden=(120, 84), kernel=5, padding=0)
DIGITSNET = Plan(channels=(16, 32), hidden=(64,), kernel=3, padding=1)


class ConvPoolNet(nn.Module):
    """conv1, pool, conv2, pool, fc1, ... : images (N, C, H, W) to logits (N, num_classes); no batch norm."""

    def __init__(
        self, plan: Plan, *, num_classes: int, in_channels: int, input_size: tuple[int, int], width: float
    ) -> None:
        super().__init__()
        first, second = (round(channels * width) for channels in plan.channels)
        hidden = [round(units * width) for units in plan.hidden]
        self.conv1 = nn.Conv2d(in_channels, first, plan.kernel, padding=plan.padding)
        self.conv2 = nn.Conv2d(first, second, plan.kernel, padding=plan.padding)
        height, width_px = (output_size(side, plan.windows) for side in input_size)
        units = [second * height * width_px, *hidden, num_classes]
        self._linear_names = [f"fc{i}" for i in range(1, len(units))]
        for name, ins, outs in zip(self._linear_names, units, units[1:], strict=False):
            self.add_module(name, nn.Linear(ins, outs))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, num_classes) of images (N, C, H, W)."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = torch.flatten(x, 1)
        for name in self._linear_names[:-1]:
            x = F.relu(self.get_submodule(name)(x))
        logits: Tensor = self.get_submodule(self._linear_names[-1])(x)
        return logits

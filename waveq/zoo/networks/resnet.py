"""ResNet-20 for CIFAR10 (He et al. 2016, section 4.2) with 1x1 convolutions on the shortcuts, "option B"."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from waveq.zoo.networks.windows import Window

__all__ = ["RESNET20_WINDOWS", "ResNet20"]

_FILTERS = (16, 32, 64)
_BLOCKS = 3

# only the windows that change the size; padded 3x3 convolutions of stride 1 do not
RESNET20_WINDOWS = (Window(3, 1, 1), Window(3, 2, 1), Window(3, 2, 1))


class _Block(nn.Module):
    def __init__(self, in_filters: int, filters: int, stride: int) -> None:
        super().__init__()
        # The shortcut comes first in named_modules(): policies of this network are written in that order.
        self.downsample = None
        if stride != 1 or in_filters != filters:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_filters, filters, 1, stride=stride, bias=False), nn.BatchNorm2d(filters)
            )
        self.conv1 = nn.Conv2d(in_filters, filters, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + shortcut)


class ResNet20(nn.Module):
    """conv1, three stages of three blocks, fc: images (N, C, H, W) to logits (N, num_classes)."""

    def __init__(self, *, num_classes: int, in_channels: int, width: float) -> None:
        super().__init__()
        filters = [round(count * width) for count in _FILTERS]
        self.conv1 = nn.Conv2d(in_channels, filters[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters[0])
        self.layer1 = self._stage(filters[0], filters[0], 1)
        self.layer2 = self._stage(filters[0], filters[1], 2)
        self.layer3 = self._stage(filters[1], filters[2], 2)
        self.fc = nn.Linear(filters[2], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(in_filters: int, filters: int, stride: int) -> nn.Sequential:
        blocks = [_Block(in_filters, filters, stride)]
        blocks += [_Block(filters, filters, 1) for _ in range(_BLOCKS - 1)]
        return nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, num_classes) of images (N, C, H, W)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits

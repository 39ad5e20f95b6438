"""VGG-11 for CIFAR10 (Distiller's `vgg11_cifar`) and SVHN-8: stacks of 3x3 convolutions and one linear layer.

Both lists below fix the positions inside `features`, and with them the names of the layers.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from waveq.zoo.networks.windows import Window

__all__ = [
    "SVHN8_PLAN",
    "SVHN8_WINDOWS",
    "VGG11_PLAN",
    "VGG11_WINDOWS",
    "StackedNet",
    "svhn8",
    "vgg11",
    "vgg11_bn",
]

# a number: a 3x3 convolution with that many filters; "pool": 2x2 maxima; "valid": the next one is not padded
VGG11_PLAN: tuple[int | str, ...] = (
    64,
    "pool",
    128,
    "pool",
    256,
    256,
    "pool",
    512,
    512,
    "pool",
    512,
    512,
    "pool",
)
SVHN8_PLAN: tuple[int | str, ...] = (32, 32, "pool", 64, 64, "pool", 128, 128, "pool", "valid", 256, "pool")


def _windows(plan: Sequence[int | str]) -> tuple[Window, ...]:
    windows, padding = [], 1
    for item in plan:
        if item == "valid":
            padding = 0
        elif item == "pool":
            windows.append(Window(2, 2))
        else:
            windows.append(Window(3, 1, padding))
            padding = 1
    return tuple(windows)


VGG11_WINDOWS = _windows(VGG11_PLAN)
SVHN8_WINDOWS = _windows(SVHN8_PLAN)


class StackedNet(nn.Module):
    """`features`, the mean over what is left of the image, `classifier`: (N, C, H, W) to (N, num_classes).

    At 32x32 one pixel is left and the mean changes nothing; on larger images it keeps the classifier's shape.
    """

    def __init__(self, features: nn.Sequential, classifier: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.classifier = classifier
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, num_classes) of images (N, C, H, W)."""
        logits: Tensor = self.classifier(self.features(x).mean(dim=(2, 3)))
        return logits


def _initialise(module: nn.Module) -> None:
    # He's rule with fan-out: eight layers without batch norm do not start to learn from torch's default
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def _features(
    plan: Sequence[int | str], *, in_channels: int, width: float, dropout: float, batch_norm: bool
) -> nn.Sequential:
    layers: list[nn.Module] = []
    padding = 1
    for item in plan:
        if item == "valid":
            padding = 0
        elif item == "pool":
            layers.append(nn.MaxPool2d(2, 2))
        else:
            filters = round(int(item) * width)
            layers.append(nn.Conv2d(in_channels, filters, 3, padding=padding))
            if batch_norm:
                layers.append(nn.BatchNorm2d(filters))
            layers.append(nn.ReLU(inplace=False))
            if dropout:
                layers.append(nn.Dropout(dropout))
            in_channels, padding = filters, 1
    return nn.Sequential(*layers)


def vgg11(*, num_classes: int, in_channels: int, width: float, batch_norm: bool = False) -> StackedNet:
    """Configuration A with a single linear layer; `width` multiplies every number of filters."""
    features = _features(VGG11_PLAN, in_channels=in_channels, width=width, dropout=0.0, batch_norm=batch_norm)
    return StackedNet(features, nn.Linear(round(512 * width), num_classes))


def vgg11_bn(*, num_classes: int, in_channels: int, width: float) -> StackedNet:
    """VGG-11 with batch norm after every convolution (the from-scratch figures of the paper)."""
    return vgg11(num_classes=num_classes, in_channels=in_channels, width=width, batch_norm=True)


def svhn8(*, num_classes: int, in_channels: int, width: float) -> StackedNet:
    """Seven convolutions and a linear layer, dropout 0.3, no batch norm."""
    features = _features(SVHN8_PLAN, in_channels=in_channels, width=width, dropout=0.3, batch_norm=False)
    return StackedNet(features, nn.Sequential(nn.Linear(round(256 * width), num_classes)))

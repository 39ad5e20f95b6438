"""torchvision's AlexNet, ResNet-18 and MobileNet-V2, with any number of input channels.

It is imported when one of them is built: that takes seconds, and most networks do without.
"""

from __future__ import annotations

from torch import nn

from waveq.zoo.networks.windows import Window

__all__ = ["ALEXNET_WINDOWS", "MOBILENET_WINDOWS", "RESNET18_WINDOWS", "alexnet", "mobilenet_v2", "resnet18"]

ALEXNET_WINDOWS = (
    Window(11, 4, 2),
    Window(3, 2),
    Window(5, 1, 2),
    Window(3, 2),
    Window(3, 1, 1),
    Window(3, 1, 1),
    Window(3, 1, 1),
    Window(3, 2),
)
RESNET18_WINDOWS = (Window(7, 2, 3), Window(3, 2, 1), Window(3, 2, 1), Window(3, 2, 1), Window(3, 2, 1))
MOBILENET_WINDOWS = (Window(3, 2, 1),) * 5


def alexnet(*, num_classes: int, in_channels: int) -> nn.Module:
    """torchvision's AlexNet ("one weird trick" widths); 61,100,840 parameters at 3 channels, 1000 classes."""
    from torchvision import models

    model: nn.Module = models.alexnet(num_classes=num_classes)
    return _with_channels(model, "features.0", in_channels)


def resnet18(*, num_classes: int, in_channels: int) -> nn.Module:
    """torchvision's ResNet-18; 11,689,512 parameters at 3 channels, 1000 classes."""
    from torchvision import models

    model: nn.Module = models.resnet18(num_classes=num_classes)
    return _with_channels(model, "conv1", in_channels)


def mobilenet_v2(*, num_classes: int, in_channels: int, width: float) -> nn.Module:
    """torchvision's MobileNet-V2, `width` being its `width_mult`; 3,504,872 parameters as published."""
    from torchvision import models

    model: nn.Module = models.mobilenet_v2(num_classes=num_classes, width_mult=width)
    return _with_channels(model, "features.0.0", in_channels)


def _with_channels(model: nn.Module, name: str, in_channels: int) -> nn.Module:
    """Replace the first convolution when the images do not have three channels."""
    old = model.get_submodule(name)
    assert isinstance(old, nn.Conv2d)
    if old.in_channels == in_channels:
        return model
    new = nn.Conv2d(
        in_channels,
        old.out_channels,
        kernel_size=(old.kernel_size[0], old.kernel_size[1]),
        stride=(old.stride[0], old.stride[1]),
        padding=(int(old.padding[0]), int(old.padding[1])),
        bias=old.bias is not None,
    )
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, new)
    return model

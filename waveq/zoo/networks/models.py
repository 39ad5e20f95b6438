"""The networks of the paper by name: `build("simplenet5", num_classes=10, in_channels=3, input_size=32)`.

Names of layers, shapes and numbers of parameters are those of the paper's evaluation (Distiller's CIFAR
networks, torchvision's ImageNet networks). Sizes are free: a network refuses only an image that one of its
windows does not fit into, and then says which size does.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import nn

from waveq._names import by_name, check_positive
from waveq._registry import Registry, origin
from waveq.zoo.networks.resnet import RESNET20_WINDOWS, ResNet20
from waveq.zoo.networks.small import DIGITSNET, LENET, SIMPLENET5, ConvPoolNet, Plan
from waveq.zoo.networks.stacked import SVHN8_WINDOWS, VGG11_WINDOWS, svhn8, vgg11, vgg11_bn
from waveq.zoo.networks.torchvision_nets import (
    ALEXNET_WINDOWS,
    MOBILENET_WINDOWS,
    RESNET18_WINDOWS,
    alexnet,
    mobilenet_v2,
    resnet18,
)
from waveq.zoo.networks.windows import Window, smallest_input

__all__ = ["Network", "build", "network", "network_names", "register_network"]

Size = int | tuple[int, int]
_Make = TypeVar("_Make", bound=Callable[..., nn.Module])
_SIZES = ("num_classes", "in_channels", "input_size", "width")


@dataclass(frozen=True, kw_only=True)
class Network:
    """One entry of the zoo: how it is made and what it was made for."""

    name: str
    """The name that `build` and `--model` take."""
    summary: str
    """One line for people."""
    in_channels: int
    """Channels of the images it was published for."""
    input_size: int
    """Side in pixels of the images it was published for."""
    num_classes: int
    """Classes it was published for."""
    windows: tuple[Window, ...]
    """What an image passes through; decides the smallest size."""
    make: Callable[..., nn.Module]
    """Called with num_classes, in_channels, input_size (height, width) and width."""
    can_widen: bool = True
    """Whether `width` other than 1 is possible."""

    @property
    def smallest_size(self) -> int:
        """Side in pixels of the smallest image that the network takes."""
        return smallest_input(self.windows)


def _small(plan: Plan) -> Callable[..., nn.Module]:
    return lambda **sizes: ConvPoolNet(plan, **sizes)


def _any_size(make: Callable[..., nn.Module], *, can_widen: bool = True) -> Callable[..., nn.Module]:
    """Networks that average over the image need not know its size."""

    def made(*, num_classes: int, in_channels: int, input_size: tuple[int, int], width: float) -> nn.Module:
        del input_size
        if can_widen:
            return make(num_classes=num_classes, in_channels=in_channels, width=width)
        return make(num_classes=num_classes, in_channels=in_channels)

    return made


def _entry(
    name: str,
    summary: str,
    published: tuple[int, int, int],
    windows: tuple[Window, ...],
    make: Callable[..., nn.Module],
    *,
    can_widen: bool = True,
) -> Network:
    channels, size, classes = published
    return Network(
        name=name,
        summary=summary,
        in_channels=channels,
        input_size=size,
        num_classes=classes,
        windows=windows,
        make=make,
        can_widen=can_widen,
    )


_CIFAR, _IMAGENET = (3, 32, 10), (3, 224, 1000)

_ENTRIES = (
    _entry("digitsnet", "2 conv + 2 fc for 8x8 digits", (1, 8, 10), DIGITSNET.windows, _small(DIGITSNET)),
    _entry("lenet", "LeNet as in Caffe, 2 conv + 2 fc", (1, 28, 10), LENET.windows, _small(LENET)),
    _entry("simplenet5", "SimpleNet-5, 2 conv + 3 fc", _CIFAR, SIMPLENET5.windows, _small(SIMPLENET5)),
    _entry("svhn8", "SVHN-8, 7 conv + 1 fc, dropout", _CIFAR, SVHN8_WINDOWS, _any_size(svhn8)),
    _entry("vgg11", "VGG-11 without batch norm, 8 conv + 1 fc", _CIFAR, VGG11_WINDOWS, _any_size(vgg11)),
    _entry("vgg11-bn", "VGG-11 with batch norm", _CIFAR, VGG11_WINDOWS, _any_size(vgg11_bn)),
    _entry("resnet20", "ResNet-20, 1x1 shortcuts, 21 conv + 1 fc", _CIFAR, RESNET20_WINDOWS, _any_size(ResNet20)),
    _entry(
        "alexnet",
        "torchvision's AlexNet, 5 conv + 3 fc",
        _IMAGENET,
        ALEXNET_WINDOWS,
        _any_size(alexnet, can_widen=False),
        can_widen=False,
    ),
    _entry(
        "resnet18",
        "torchvision's ResNet-18, 20 conv + 1 fc",
        _IMAGENET,
        RESNET18_WINDOWS,
        _any_size(resnet18, can_widen=False),
        can_widen=False,
    ),
    _entry(
        "mobilenet-v2",
        "torchvision's MobileNet-V2, 52 conv + 1 fc",
        _IMAGENET,
        MOBILENET_WINDOWS,
        _any_size(mobilenet_v2),
    ),
)
_NETWORKS: Registry[Network] = Registry("network")
for _each in _ENTRIES:
    _NETWORKS.add(_each.name, _each, maker=_each.make)


def register_network(
    name: str,
    *,
    in_channels: int,
    input_size: int,
    num_classes: int,
    smallest_size: int = 1,
    summary: str = "",
) -> Callable[[_Make], _Make]:
    """Decorate a class or function that makes a network, so that `build`, recipes and `--model` find it.

    It is called with those of ``num_classes``, ``in_channels``, ``input_size`` (height, width) and ``width`` that its
    signature names; the first two it must take. Without ``width`` it cannot be widened.

    Args:
        name: lower-case letters, digits, hyphens, underscores, dots.
        in_channels: channels of the images that it is made for, where nobody says otherwise.
        input_size: side of these images in pixels.
        num_classes: their classes.
        smallest_size: side in pixels of the smallest image that it takes.
        summary: one line for people; by default the first line of its docstring.

    Raises:
        ValueError: not a name, or one that another network has; a number that is not positive.
        TypeError: the maker does not take the sizes above.

    Example:
        >>> @register_network("flat", in_channels=1, input_size=8, num_classes=10)
        ... def flat(num_classes, in_channels, input_size):
        ...     "One layer."
        ...     return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * input_size[0] * input_size[1], num_classes))
        >>> build("flat", num_classes=3)[1].weight.shape, network("flat").summary
        (torch.Size([3, 64]), 'One layer.')
    """
    sizes = {"in_channels": in_channels, "input_size": input_size, "num_classes": num_classes}
    for argument, value in (sizes | {"smallest_size": smallest_size}).items():
        check_positive(argument, value)

    def add(make: _Make) -> _Make:
        taken = _sizes_taken(name, make)
        entry = Network(
            name=name,
            summary=summary or (inspect.getdoc(make) or "").partition("\n")[0],
            **sizes,
            windows=(Window(smallest_size),),
            make=lambda **given: make(**{size: value for size, value in given.items() if size in taken}),
            can_widen="width" in taken,
        )
        _NETWORKS.add(name, entry, maker=make)
        return make

    return add


def _sizes_taken(name: str, make: Callable[..., Any]) -> tuple[str, ...]:
    """The sizes that a maker can be called with."""
    signature = inspect.signature(make)
    anything = any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values())
    taken = tuple(size for size in _SIZES if anything or size in signature.parameters)
    try:
        signature.bind(**dict.fromkeys(taken))
        missing = [size for size in _SIZES[:2] if size not in taken]
        if missing:
            raise TypeError(f"it does not take {missing[0]!r}")
    except TypeError as error:
        raise TypeError(
            f"network {name!r}: {origin(make)}{signature} must be callable with num_classes and in_channels, and may "
            f"take input_size and width; {error}"
        ) from None
    return taken


def network_names() -> tuple[str, ...]:
    """Every name that `build` takes, small networks first, those that were registered last.

    Example:
        >>> network_names()[:3]
        ('digitsnet', 'lenet', 'simplenet5')
    """
    return tuple(_NETWORKS)


def network(name: str) -> Network:
    """The entry of a network; upper case, hyphens and underscores do not matter.

    Raises:
        ValueError: no network has that name; the message gives the nearest one.

    Example:
        >>> network("SimpleNet-5").smallest_size
        16
        >>> network("VGG11_BN").name
        'vgg11-bn'
    """
    return by_name("model", name, _NETWORKS)


def build(
    name: str,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    input_size: Size | None = None,
    width: float = 1,
) -> nn.Module:
    """A network with fresh weights; whatever is left out is as published.

    Args:
        name: one of `network_names()`.
        num_classes: number of logits.
        in_channels: channels of the images.
        input_size: side in pixels, or (height, width).
        width: factor on every hidden number of filters and units (the widening of WRPN); for "mobilenet-v2"
            it is torchvision's `width_mult`.

    Returns:
        A module from images (N, in_channels, height, width), float, to logits (N, num_classes).

    Raises:
        ValueError: unknown name, a number that is not positive, an image too small for the network, a network
            that cannot be widened.

    Example:
        >>> model = build("simplenet5", num_classes=10, in_channels=1, input_size=28)
        >>> sum(p.numel() for p in model.parameters())
        44426
        >>> build("simplenet5", input_size=12)
        Traceback (most recent call last):
        ValueError: input_size: simplenet5 does not fit into 12x12 pixels; the smallest it takes is 16x16
    """
    entry = network(name)
    classes = check_positive("num_classes", entry.num_classes if num_classes is None else num_classes)
    channels = check_positive("in_channels", entry.in_channels if in_channels is None else in_channels)
    size = _checked_size(entry, entry.input_size if input_size is None else input_size)
    if not width > 0:
        raise ValueError(f"width: a positive factor is expected, not {width!r}")
    if width != 1 and not entry.can_widen:
        able = ", ".join(known.name for known in _NETWORKS.values() if known.can_widen)
        raise ValueError(
            f"width: the filter counts of {entry.name} are its own and cannot be multiplied "
            f"by {width} (networks that can be widened: {able})"
        )
    return entry.make(num_classes=classes, in_channels=channels, input_size=size, width=width)


def _checked_size(entry: Network, input_size: Size) -> tuple[int, int]:
    pair = (input_size, input_size) if isinstance(input_size, int) else tuple(input_size)
    if len(pair) != 2:
        raise ValueError(f"input_size: one side or (height, width) is expected, not {input_size!r}")
    height, width = (check_positive("input_size", side) for side in pair)
    least = entry.smallest_size
    if min(height, width) < least:
        raise ValueError(
            f"input_size: {entry.name} does not fit into {height}x{width} pixels; "
            f"the smallest it takes is {least}x{least}"
        )
    return height, width

"""Layer shapes of the networks whose published speedups and cycles are compared."""

from __future__ import annotations

import itertools

from stripes_sim import LayerShape

__all__ = ["BITFUSION", "PROFILES", "convolutional_layers", "fully_connected_layers"]

# One line a layer: inputs, outputs, kernel, input size, stride, padding, groups.
_Row = tuple[int, int, int, int, int, int, int]


def conv(name: str, row: _Row) -> LayerShape:
    """A square convolution."""
    inputs, outputs, kernel, size, stride, padding, groups = row
    return LayerShape(
        name=name,
        kind="conv",
        in_channels=inputs,
        out_channels=outputs,
        kernel_size=(kernel, kernel),
        input_size=(size, size),
        stride=(stride, stride),
        padding=(padding, padding),
        groups=groups,
    )


_ALEXNET: list[_Row] = [
    (3, 96, 11, 227, 4, 0, 1),
    (96, 256, 5, 27, 1, 2, 2),
    (256, 384, 3, 13, 1, 1, 1),
    (384, 384, 3, 13, 1, 1, 2),
    (384, 256, 3, 13, 1, 1, 2),
]
_NIN: list[_Row] = [
    (3, 96, 11, 224, 4, 0, 1),
    (96, 96, 1, 54, 1, 0, 1),
    (96, 96, 1, 54, 1, 0, 1),
    (96, 256, 5, 27, 1, 2, 1),
    (256, 256, 1, 27, 1, 0, 1),
    (256, 256, 1, 27, 1, 0, 1),
    (256, 384, 3, 13, 1, 1, 1),
    (384, 384, 1, 13, 1, 0, 1),
    (384, 384, 1, 13, 1, 0, 1),
    (384, 1024, 3, 6, 1, 1, 1),
    (1024, 1024, 1, 6, 1, 0, 1),
    (1024, 1000, 1, 6, 1, 0, 1),
]
_VGG_M: list[_Row] = [
    (3, 96, 7, 224, 2, 0, 1),
    (96, 256, 5, 54, 2, 1, 1),
    (256, 512, 3, 13, 1, 1, 1),
    (512, 512, 3, 13, 1, 1, 1),
    (512, 512, 3, 13, 1, 1, 1),
]
_VGG_S: list[_Row] = [
    (3, 96, 7, 224, 2, 0, 1),
    (96, 256, 5, 37, 1, 0, 1),
    (256, 512, 3, 17, 1, 1, 1),
    (512, 512, 3, 17, 1, 1, 1),
    (512, 512, 3, 17, 1, 1, 1),
]
_VGG_19: list[_Row] = [
    (inputs, outputs, 3, size, 1, 1, 1)
    for size, channels in (
        (224, (3, 64, 64)),
        (112, (64, 128, 128)),
        (56, (128, 256, 256, 256, 256)),
        (28, (256, 512, 512, 512, 512)),
        (14, (512, 512, 512, 512, 512)),
    )
    for inputs, outputs in itertools.pairwise(channels)
]
# inception modules: size, inputs, then 1x1, 3x3 reduction, 3x3, 5x5 reduction, 5x5, pool projection
_INCEPTION = [
    (28, 192, 64, 96, 128, 16, 32, 32),
    (28, 256, 128, 128, 192, 32, 96, 64),
    (14, 480, 192, 96, 208, 16, 48, 64),
    (14, 512, 160, 112, 224, 24, 64, 64),
    (14, 512, 128, 128, 256, 24, 64, 64),
    (14, 512, 112, 144, 288, 32, 64, 64),
    (14, 528, 256, 160, 320, 32, 128, 128),
    (7, 832, 256, 160, 320, 32, 128, 128),
    (7, 832, 384, 192, 384, 48, 128, 128),
]


def _googlenet() -> list[list[_Row]]:
    groups: list[list[_Row]] = [
        [(3, 64, 7, 224, 2, 3, 1)],
        [(64, 64, 1, 56, 1, 0, 1), (64, 192, 3, 56, 1, 1, 1)],
    ]
    for size, inputs, one, reduce3, three, reduce5, five, pool in _INCEPTION:
        groups.append(
            [
                (inputs, one, 1, size, 1, 0, 1),
                (inputs, reduce3, 1, size, 1, 0, 1),
                (reduce3, three, 3, size, 1, 1, 1),
                (inputs, reduce5, 1, size, 1, 0, 1),
                (reduce5, five, 5, size, 1, 2, 1),
                (inputs, pool, 1, size, 1, 0, 1),
            ]
        )
    return groups


_GROUPS: dict[str, list[list[_Row]]] = {
    "AlexNet": [[row] for row in _ALEXNET],
    "NiN": [[row] for row in _NIN],
    "GoogLeNet": _googlenet(),
    "VGG_M": [[row] for row in _VGG_M],
    "VGG_S": [[row] for row in _VGG_S],
    "VGG_19": [[row] for row in _VGG_19],
}

# Activation bits at full accuracy (Stripes, MICRO 2016, table 1; recalled, the ideal speedups agree but AlexNet's).
PROFILES: dict[str, tuple[int, ...]] = {
    "AlexNet": (9, 8, 5, 5, 7),
    "NiN": (8, 8, 8, 9, 7, 8, 8, 9, 9, 8, 8, 8),
    "GoogLeNet": (10, 8, 10, 9, 8, 10, 9, 8, 9, 10, 7),
    "VGG_M": (7, 7, 7, 8, 7),
    "VGG_S": (7, 8, 9, 7, 9),
    "VGG_19": (12, 12, 12, 11, 12, 10, 11, 11, 13, 12, 13, 13, 13, 13, 13, 13),
}


def convolutional_layers(network: str) -> tuple[list[LayerShape], dict[str, int]]:
    """The convolutions of a profiled network, and each one's activation bits."""
    layers, bits = [], {}
    for number, (rows, precision) in enumerate(zip(_GROUPS[network], PROFILES[network], strict=True), start=1):
        for part, row in enumerate(rows):
            name = f"conv{number}" + (f".{part}" if len(rows) > 1 else "")
            layers.append(conv(name, row))
            bits[name] = precision
    return layers, bits


def fully_connected_layers(network: str) -> list[LayerShape]:
    """The fully connected layers of a profiled network, none for NiN."""
    sizes = _CONNECTED.get(network, ())
    return [fc(f"fc{number}", *pair) for number, pair in enumerate(itertools.pairwise(sizes), start=1)]


_CONNECTED: dict[str, tuple[int, ...]] = {
    "AlexNet": (9216, 4096, 4096, 1000),
    "GoogLeNet": (1024, 1000),
    "VGG_M": (18432, 4096, 4096, 1000),
    "VGG_S": (18432, 4096, 4096, 1000),
    "VGG_19": (25088, 4096, 4096, 1000),
}


def fc(name: str, inputs: int, outputs: int) -> LayerShape:
    """A fully connected layer."""
    return LayerShape(name=name, kind="linear", in_channels=inputs, out_channels=outputs)


def _small(kernel: int, size: int, channels: tuple[int, ...], pooled: tuple[int, ...]) -> list[LayerShape]:
    """Convolutions of one kernel size with "same" padding, the size halved after the numbered ones."""
    layers = []
    for number, (inputs, outputs) in enumerate(itertools.pairwise(channels)):
        layers.append(conv(f"conv{number}", (inputs, outputs, kernel, size, 1, kernel // 2, 1)))
        size //= 2 if number in pooled else 1
    return layers


def _halves(name: str, row: _Row) -> list[LayerShape]:
    return [conv(f"{name}_{half}", row) for half in "ab"]


def _alexnet_wrpn() -> list[LayerShape]:
    return [
        *_halves("conv1", (3, 96, 11, 227, 4, 0, 1)),
        *_halves("conv2", (96, 256, 5, 27, 1, 2, 1)),
        *_halves("conv3", (512, 384, 3, 13, 1, 1, 1)),
        *_halves("conv4", (384, 384, 3, 13, 1, 1, 1)),
        *_halves("conv5", (384, 256, 3, 13, 1, 1, 1)),
        fc("fc1", 512 * 6 * 6, 8192),
        fc("fc2", 8192, 8192),
        fc("fc3", 8192, 1000),
    ]


def _resnet18_wrpn() -> list[LayerShape]:
    layers = [conv("conv1", (3, 128, 7, 224, 2, 3, 1))]
    size, inputs = 56, 128
    for stage, outputs in enumerate((128, 256, 512, 1024), start=2):
        for block in (1, 2):
            stride = 2 if stage > 2 and block == 1 else 1
            layers.append(conv(f"conv{stage}_{block}_a", (inputs, outputs, 1, size, stride, 0, 1)))
            size //= stride
            layers.append(conv(f"conv{stage}_{block}_b", (outputs, outputs, 3, size, 1, 1, 1)))
            inputs = outputs
    return layers


def _vgg7() -> list[LayerShape]:
    layers = []
    for number, (inputs, outputs, size) in enumerate(((3, 128, 32), (128, 256, 16), (256, 512, 8)), start=1):
        layers += _halves(f"conv{number}", (inputs, outputs, 3, size, 1, 1, 1))
    return [*layers, fc("fc1", 512 * 4 * 4, 1024)]


def _uniform(layers: list[LayerShape], bits: int, first: int) -> dict[str, int]:
    return {layer.name: first if number == 0 else bits for number, layer in enumerate(layers)}


_SVHN = [*_small(3, 32, (3, 64, 64, 128, 128, 256, 256), (1, 3, 5)), fc("fc6", 4096, 1024), fc("fc7", 1024, 1024)]
_SVHN.append(fc("fc8", 1024, 10))
_CIFAR = [*_small(3, 32, (3, 128, 128, 256, 256, 512, 512), (1, 3, 5)), fc("fc6", 8192, 1024), fc("fc7", 1024, 1024)]
_CIFAR.append(fc("fc8", 1024, 10))
_LENET = [*_small(5, 32, (1, 32, 64), (0, 1)), fc("fc1", 4096, 512), fc("fc2", 512, 10)]
_ALEX, _RESNET, _VGG7 = _alexnet_wrpn(), _resnet18_wrpn(), _vgg7()
_ALEX_WEIGHTS = {layer.name: 4 for layer in _ALEX} | {"conv1_a": 8, "conv1_b": 8, "fc3": 8}
_ALEX_INPUTS = {layer.name: 4 for layer in _ALEX} | {"conv1_a": 8, "conv1_b": 8, "fc3": 8}

# name: layers, weight bits, input bits, total cycles that BitFusion's own simulator gives (batch 16, bf_e_conf.ini)
BITFUSION: dict[str, tuple[list[LayerShape], dict[str, int], dict[str, int], int]] = {
    "AlexNet": (_ALEX, _ALEX_WEIGHTS, _ALEX_INPUTS, 37_666_491),
    "SVHN": (_SVHN, _uniform(_SVHN, 1, 1), _uniform(_SVHN, 1, 8), 1_317_523),
    "CIFAR10": (_CIFAR, _uniform(_CIFAR, 2, 8), _uniform(_CIFAR, 2, 8), 3_293_704),
    "LeNet-5": (_LENET, _uniform(_LENET, 2, 2), _uniform(_LENET, 2, 2), 410_352),
    "VGG-7": (_VGG7, _uniform(_VGG7, 2, 2), _uniform(_VGG7, 2, 2), 2_822_491),
    "ResNet-18": (_RESNET, _uniform(_RESNET, 4, 8), _uniform(_RESNET, 4, 8), 49_079_982),
    "RNN": ([fc("matmul", 4096, 4096)], {"matmul": 4}, {"matmul": 4}, 394_583),
    "LSTM": ([fc("matmul", 3600, 3600)], {"matmul": 4}, {"matmul": 4}, 337_175),
}

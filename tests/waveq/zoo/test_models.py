"""The networks against the published tables of their layers."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import nn

from waveq.zoo import build, network, network_names


class Published(NamedTuple):
    parameters: int
    weights: int
    layers: int
    macs: int


# Distiller's CIFAR networks and torchvision's ImageNet networks, as counted by the papers that used them
PUBLISHED = {
    "simplenet5": Published(62_006, 61_770, 5, 651_720),
    "vgg11": Published(9_225_610, 9_222_848, 9, 152_769_536),
    "svhn8": Published(584_746, 584_032, 8, 39_815_680),
    "resnet20": Published(272_474, 270_896, 22, 40_813_184),
    "alexnet": Published(61_100_840, 61_090_496, 8, 714_188_480),
    "resnet18": Published(11_689_512, 11_678_912, 21, 1_814_073_344),
    "mobilenet-v2": Published(3_504_872, 3_469_760, 53, 300_774_272),
    # 20 filters 1x5x5, 50 filters 20x5x5, 800 -> 500 -> 10, with biases; 24*24*500 + 8*8*25000 + 405000 MACs
    "lenet": Published(431_080, 430_500, 4, 2_293_000),
}

SMALLEST = {
    "digitsnet": 4,
    "lenet": 16,
    "simplenet5": 16,
    "svhn8": 32,
    "vgg11": 32,
    "vgg11-bn": 32,
    "resnet20": 1,
    "alexnet": 63,
    "resnet18": 1,
    "mobilenet-v2": 1,
}


def weight_layers(model: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}


def count_macs(model: nn.Module, images: torch.Tensor) -> int:
    """Multiply-accumulates of one image, from the shapes that really come out of each layer."""
    total = 0

    def count(module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d | nn.Linear)
        total += module.weight[0].numel() * output[0].numel()

    for layer in weight_layers(model).values():
        layer.register_forward_hook(count)
    model(images)
    return total


def on_meta(name: str, **sizes: int) -> nn.Module:
    with torch.device("meta"):
        return build(name, **sizes).eval()


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts(name: str) -> None:
    entry, published = network(name), PUBLISHED[name]
    model = on_meta(name)
    layers = weight_layers(model)
    images = torch.empty(1, entry.in_channels, entry.input_size, entry.input_size, device="meta")
    assert sum(p.numel() for p in model.parameters()) == published.parameters
    assert sum(layer.weight.numel() for layer in layers.values()) == published.weights
    assert len(layers) == published.layers
    assert count_macs(model, images) == published.macs
    assert model(images).shape == (1, entry.num_classes)


def test_published_count_of_vgg11_with_batch_norm() -> None:
    assert sum(p.numel() for p in on_meta("vgg11-bn").parameters()) == 9_231_114


def test_digitsnet_is_small() -> None:
    model = build("digitsnet")
    assert len(weight_layers(model)) == 4
    assert sum(p.numel() for p in model.parameters()) < 20_000


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("lenet", ["conv1", "conv2"], "fc2"),
        ("digitsnet", ["conv1", "conv2", "fc1"], "fc2"),
        ("simplenet5", ["conv1", "conv2", "fc1", "fc2"], "fc3"),
        ("svhn8", [f"features.{i}" for i in (0, 3, 7, 10, 14, 17, 21)], "classifier.0"),
        ("vgg11", [f"features.{i}" for i in (0, 3, 6, 8, 11, 13, 16, 18)], "classifier"),
        ("alexnet", ["features.0", "features.3", "features.6"], "classifier.6"),
        ("resnet18", ["conv1", "layer1.0.conv1"], "fc"),
        ("mobilenet-v2", ["features.0.0", "features.1.conv.0.0", "features.1.conv.1"], "classifier.1"),
    ],
)
def test_layer_names(name: str, first: list[str], last: str) -> None:
    names = list(weight_layers(on_meta(name)))
    assert names[: len(first)] == first
    assert names[-1] == last


def test_layer_names_of_resnet20() -> None:
    names = ["conv1"]
    for stage in (1, 2, 3):
        for block in (0, 1, 2):
            if stage > 1 and block == 0:
                names.append(f"layer{stage}.0.downsample.0")
            names += [f"layer{stage}.{block}.conv1", f"layer{stage}.{block}.conv2"]
    assert list(weight_layers(on_meta("resnet20"))) == [*names, "fc"]


@pytest.mark.parametrize("name", sorted({*network_names()} - {"depthwise"}))  # the benchmarks', if they were imported
def test_smallest_size_is_the_smallest_that_runs(name: str) -> None:
    entry = network(name)
    least = entry.smallest_size
    assert least == SMALLEST[name]
    images = torch.empty(2, 1, least, least + 1, device="meta")
    with torch.device("meta"):
        model = build(name, in_channels=1, num_classes=7, input_size=(least, least + 1)).eval()
    assert model(images).shape == (2, 7)
    if least > 1:
        with pytest.raises(ValueError, match=rf"smallest it takes is {least}x{least}"):
            build(name, input_size=(least + 9, least - 1))
        if name in {"alexnet", "svhn8", "vgg11"}:  # these do not look at the size when they are built
            with pytest.raises(RuntimeError):
                model(torch.empty(2, 1, least - 1, least - 1, device="meta"))


@pytest.mark.parametrize("name", ["digitsnet", "simplenet5", "svhn8", "vgg11", "resnet20", "mobilenet-v2"])
def test_widening_multiplies_hidden_filters_only(name: str) -> None:
    plain = [layer.weight.shape for layer in weight_layers(on_meta(name)).values()]
    with torch.device("meta"):
        wide = [layer.weight.shape for layer in weight_layers(build(name, width=2)).values()]
    assert all(b[0] == 2 * a[0] for a, b in zip(plain[:-1], wide[:-1], strict=True))
    assert wide[-1][0] == plain[-1][0]
    assert wide[0][1] == plain[0][1]


@pytest.mark.parametrize("name", ["alexnet", "resnet18"])
def test_widening_refused(name: str) -> None:
    with pytest.raises(ValueError, match="networks that can be widened: digitsnet"):
        build(name, width=2)


def test_names_are_forgiving_and_errors_name_the_nearest() -> None:
    assert network("ResNet_20").name == "resnet20"
    with pytest.raises(ValueError, match="did you mean 'simplenet5'"):
        build("simplnet5")


@pytest.mark.parametrize(
    ("sizes", "argument"),
    [({"num_classes": 0}, "num_classes"), ({"in_channels": -1}, "in_channels"), ({"width": 0}, "width")],
)
def test_bad_numbers(sizes: dict[str, int], argument: str) -> None:
    with pytest.raises(ValueError, match=f"^{argument}: a positive"):
        build("lenet", **sizes)


@pytest.mark.parametrize("name", ["digitsnet", "lenet", "simplenet5", "resnet20", "svhn8"])
def test_gradients_reach_every_parameter(name: str) -> None:
    torch.manual_seed(0)
    entry = network(name)
    model = build(name)
    images = torch.randn(4, entry.in_channels, entry.input_size, entry.input_size)
    model(images).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.parameters())

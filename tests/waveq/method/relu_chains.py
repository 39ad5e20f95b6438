"""Chains of layers with a ReLU that can be left out, or must not be, and what comparing two of them takes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import waveq
from tests.training import FunctionalNet
from waveq.method.relus import Leaning


class Block(nn.Sequential):
    """A Sequential of the user's that adds nothing to its forward pass."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Doubling(nn.Sequential):
    """One whose forward pass is its own."""

    def forward(self, x: Tensor) -> Tensor:
        """Twice as much."""
        return 2.0 * super().forward(x)


class Residual(nn.Module):
    """Adds in place to what its chain has read, as legal with a ReLU that keeps its own output."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 4, 1)  # the network's first layer, whose inputs are not quantised
        self.chain = nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """x + chain(x)."""
        x = self.head(x)
        x += self.chain(x)
        return x


def conv(inputs: int = 3, outputs: int = 4, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)


CHAINS: dict[str, tuple[Callable[[], nn.Module], dict[str, str]]] = {
    "plain": (lambda: nn.Sequential(conv(), nn.ReLU(), conv(4)), {"1": "2"}),
    "in place": (lambda: nn.Sequential(conv(), nn.ReLU(inplace=True), conv(4)), {"1": "2"}),
    "zeros": (lambda: nn.Sequential(conv(bias=False), nn.ReLU(), conv(4)), {"1": "2"}),
    "batch norm": (lambda: nn.Sequential(conv(), nn.BatchNorm2d(4), nn.ReLU(), conv(4)), {"2": "3"}),
    "relu6": (lambda: nn.Sequential(conv(), nn.ReLU6(), conv(4)), {"1": "2"}),
    "pool": (lambda: nn.Sequential(conv(), nn.ReLU(), nn.MaxPool2d(2), conv(4)), {"1": "3"}),
    "overlapping pool": (lambda: nn.Sequential(conv(), nn.ReLU(), nn.MaxPool2d(3, 2, 1), conv(4)), {"1": "3"}),
    "flat": (
        lambda: nn.Sequential(conv(), nn.ReLU(), nn.Identity(), nn.Flatten(), nn.Linear(256, 3)),
        {"1": "4"},
    ),
    "three layers": (
        lambda: nn.Sequential(conv(), nn.ReLU(), conv(4), nn.ReLU(), nn.MaxPool2d(2), conv(4)),
        {"1": "2", "3": "5"},
    ),
    "nested": (
        lambda: nn.Sequential(nn.Sequential(conv(), nn.ReLU()), nn.Sequential(nn.Identity(), conv(4), nn.ReLU())),
        {"0.1": "1.1"},
    ),
    "blocks": (lambda: nn.Sequential(Block(3, 4), Block(4, 4), conv(4)), {"0.2": "1.0", "1.2": "2"}),
    "one relu twice": (
        lambda: (lambda relu: nn.Sequential(conv(), relu, conv(4), relu, nn.Sigmoid()))(nn.ReLU()),
        {"1": "2"},
    ),
    # from here on the ReLU must run
    "last": (lambda: nn.Sequential(conv(), conv(4), nn.ReLU()), {}),
    "first": (Residual, {}),
    "average": (lambda: nn.Sequential(conv(), nn.ReLU(), nn.AvgPool2d(2), conv(4)), {}),
    "dropout": (lambda: nn.Sequential(conv(), nn.ReLU(), nn.Dropout(0.0), conv(4)), {}),
    "leaky": (lambda: nn.Sequential(conv(), nn.LeakyReLU(), conv(4)), {}),
    "own forward": (lambda: Doubling(conv(), nn.ReLU(), conv(4)), {}),
    "own forward within": (lambda: nn.Sequential(Doubling(conv(), nn.ReLU()), conv(4)), {}),
    "functions": (FunctionalNet, {}),
}


def images(count: int = 6) -> Tensor:
    """With a black half, where a convolution without bias puts out exact zeros."""
    x = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    x[..., :4] = 0.0
    return x


def attached(make: Callable[[], nn.Module], **choices: Any) -> tuple[nn.Module, waveq.WaveQ]:
    """A model that has seen the signs of its inputs and one step."""
    torch.manual_seed(0)
    model = make()
    handle = waveq.attach(model, **{"quantizer": "dorefa", "bits": 4, "activation_bits": 3, **choices})
    with torch.no_grad():
        model(images())
    handle.step()
    return model, handle


def unfused(model: nn.Module) -> nn.Module:
    """A copy in which every ReLU runs."""
    twin = copy.deepcopy(model)
    Leaning(twin).remove()
    return twin


def results(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Outputs, and the gradients in x and in every parameter."""
    x = x.clone().requires_grad_()
    y = model(x)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
    model.zero_grad()
    (y * weights).sum().backward()
    assert x.grad is not None
    return {"y": y.detach(), "x": x.grad, **{n: p.grad for n, p in model.named_parameters() if p.grad is not None}}


def assert_same(model: nn.Module, twin: nn.Module, x: Tensor) -> None:
    ours, theirs = results(model, x), results(twin, x)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name
        assert torch.equal(value.signbit(), theirs[name].signbit()), name

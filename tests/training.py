"""Small problems and the plainest training loop, for tests of the method end to end."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from waveq import WaveQ
from waveq.method.parametrization import parametrization_of

__all__ = ["OPTIMIZERS", "FunctionalNet", "batches", "beta_of", "mlp", "originals", "spread_layer", "train"]

OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=3e-3),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.1),
}


class FunctionalNet(nn.Module):
    """A user's own network: ``F.relu``, a grouped and a depthwise convolution, and one layer that is used twice."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.grouped = nn.Conv2d(8, 8, 1, groups=2)
        self.again = nn.Linear(8, 8)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x))
        x = F.relu(self.depthwise(x))
        x = F.relu(self.grouped(x)).mean(dim=(2, 3))
        x = F.relu(self.again(F.relu(self.again(x))))
        return self.fc(x)  # type: ignore[no-any-return]


def mlp(seed: int = 0) -> nn.Sequential:
    """Layers "0", "2" and "4"."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 3))


def batches(count: int, *, size: int = 32, seed: int = 1, shape: tuple[int, ...] = (6,)) -> list[tuple[Tensor, Tensor]]:
    """Inputs and the classes that a fixed linear map gives them."""
    generator = torch.Generator().manual_seed(seed)
    teacher = torch.randn(int(torch.tensor(shape).prod()), 3, generator=generator)
    found = []
    for _ in range(count):
        x = torch.randn(size, *shape, generator=generator)
        found.append((x, (x.flatten(1) @ teacher).argmax(dim=1)))
    return found


def train(model: nn.Module, wq: WaveQ, optimizer: torch.optim.Optimizer, data: list[tuple[Tensor, Tensor]]) -> None:
    """The five lines of the README."""
    for x, y in data:
        loss = F.cross_entropy(model(x), y) + wq.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        wq.step()


def spread_layer(count: int = 20_000, std: float = 0.3) -> nn.Sequential:
    """One layer "0" whose weights are quantiles of a normal distribution: spread as evenly as weights can be."""
    layer = nn.Linear(count, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(std * torch.special.ndtri((torch.arange(count, dtype=torch.float64) + 0.5) / count))
    return nn.Sequential(layer)


def originals(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def beta_of(model: nn.Module, name: str) -> Tensor:
    """A layer's beta, the tensor itself."""
    return parametrization_of(model.get_submodule(name)).beta

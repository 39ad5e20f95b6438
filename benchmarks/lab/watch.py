"""Looking at weights while they are trained: on the quantiser's own axis, where a level is a whole number."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

import waveq
from waveq.functional import phase
from waveq.method.parametrization import parametrization_of

__all__ = ["NEAR_STEPS", "OnGrid", "Watch", "all_on_grid", "on_grid", "share_near"]

NEAR_STEPS = 0.1  # "on a level": a tenth of a step away at most; evenly spread weights are so in a fifth of all cases


class Watch(Protocol):
    """Called like an ``Observer`` with every step of one training."""

    @property
    def name(self) -> str:
        """Part of the name of the results: other contents, other name."""

    def __call__(self, step: int, model: nn.Module, handle: waveq.WaveQ | None) -> None:
        """See the model after ``step`` steps."""

    def seen(self) -> Any:
        """What is kept of it, ready for JSON."""


class OnGrid(NamedTuple):
    """A layer's weights, flat.

    Attributes:
        u: what the quantiser rounds, in [-1, 1].
        position: the same counted in steps; whole numbers are levels.
    """

    u: Tensor
    position: Tensor

    def level(self) -> Tensor:
        """The number of the nearest level, int16."""
        return self.position.round().to(torch.int16)


@torch.no_grad()
def on_grid(module: nn.Module) -> OnGrid:
    """A layer that ``attach`` has quantised."""
    state = parametrization_of(module)
    weight: Tensor = module.parametrizations.weight.original  # type: ignore[union-attr, assignment]
    beta = state.wave_beta()
    u = state.quantizer.coordinate(weight.float(), beta).flatten()
    return OnGrid(u, phase(u, beta, state.grid))


def all_on_grid(model: nn.Module, handle: waveq.WaveQ) -> Tensor:
    """The positions of all quantised weights of a model, one after the other."""
    return torch.cat([on_grid(model.get_submodule(name)).position for name in handle.names])


def share_near(position: Tensor) -> float:
    """The share of weights that are within ``NEAR_STEPS`` of a level, in percent.

    Example:
        >>> share_near(torch.tensor([1.0, 2.05, -0.92, 0.5]))
        75.0
    """
    return 100.0 * float(((position - position.round()).abs() <= NEAR_STEPS).float().mean())

"""Which of a layer's weights stay where they are: the state of progressive freezing that travels in the checkpoint."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Frozen", "follow_loading"]


class Frozen(nn.Module):
    """The frozen weights of one layer; a part of its parametrisation, so that it moves and travels with the model.

    Buffers, in the shape of the weight: ``stays`` int8, 1 where a weight is frozen; ``levels``, in the weight's dtype,
    the places of those, 0 elsewhere. The latter are not in the ``state_dict``, which has the weights themselves.

    Args:
        weight: the float weights; only their shape, dtype and device count.

    Example:
        >>> weight = torch.tensor([0.9, 0.1])
        >>> frozen = Frozen(weight)
        >>> frozen.put(weight, torch.tensor([True, False]), torch.tensor([1.0, 0.0]))
        >>> weight += 0.5; frozen.hold(weight)  # an optimizer's step
        >>> weight
        tensor([1.0000, 0.6000])
    """

    stays: Tensor
    levels: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        like = weight.detach()
        self.register_buffer("stays", torch.zeros_like(like, dtype=torch.int8))
        self.register_buffer("levels", torch.zeros_like(like), persistent=False)

    def put(self, weight: Tensor, stays: Tensor, levels: Tensor) -> None:
        """Freeze more weights, and put all frozen ones on their levels, which may have moved.

        Args:
            weight: changed in place.
            stays: bool, which ones are frozen beside those that are already.
            levels: the rounded weights.
        """
        self.stays.copy_(self.stays.bool() | stays)
        self.levels.copy_(levels * self.stays)
        self.hold(weight)

    def hold(self, weight: Tensor) -> None:
        """Put the frozen weights back where they were, in place."""
        weight.mul_(1 - self.stays).add_(self.levels)  # torch.where takes ten times as long on a CPU

    @property
    def share(self) -> float:
        """How many of the weights are frozen, 0 to 1."""
        return float(self.stays.float().mean())

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        state_dict.setdefault(f"{prefix}stays", self.stays)  # checkpoints of runs without freezing
        super()._load_from_state_dict(state_dict, prefix, *args)


def follow_loading(chain: nn.Module, _keys: object) -> None:
    """Load-state-dict post-hook of what holds weight and parametrisation: the frozen weights are where they were read.

    A hook there goes when the parametrisation goes, in copies of the model too.
    """
    weight, state = chain._parameters["original"], chain._modules["0"]
    assert weight is not None
    frozen: Any = None if state is None else state._modules["frozen"]
    assert isinstance(frozen, Frozen)
    frozen.levels.copy_(weight.detach() * frozen.stays)

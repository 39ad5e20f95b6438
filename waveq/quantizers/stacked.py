"""Several weights in one tensor (experts): levels of their own for each slice, the same bits for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from waveq.functional import Grid
from waveq.layers import Outputs
from waveq.quantizers.base import ScaleMode, WeightQuantizer
from waveq.quantizers.registry import Quantizer, find_quantizer, make_quantizer

__all__ = ["Stacked", "stack_of"]


class Stacked(WeightQuantizer):
    """A quantiser for each slice along the weight's first axis; made by ``stack_of``.

    Args:
        members: one a slice, alike but for what they started from.
        scale: theirs.
    """

    def __init__(self, members: list[WeightQuantizer], *, scale: ScaleMode) -> None:
        nn.Module.__init__(self)
        self._channels, self._numbers = None, len(members)
        self.scale = scale
        self.members = nn.ModuleList(members)

    @property
    def first(self) -> WeightQuantizer:
        """One that speaks for all."""
        found = self.members[0]
        assert isinstance(found, WeightQuantizer)
        return found

    def grid(self, total_bits: int | None = None) -> Grid:
        """The members' grid."""
        return self.first.grid(total_bits)

    def coordinate(self, weight: Tensor, beta: Tensor) -> Tensor:
        """Each slice's coordinate."""
        return self._each(weight, lambda member, part: member.coordinate(part, beta))

    def binary_coordinate(self, weight: Tensor) -> Tensor:
        """Each slice's coordinate for one bit."""
        return self._each(weight, lambda member, part: member.binary_coordinate(part))

    def pitch(self, weight: Tensor, bits: Tensor, grid_scale: Tensor) -> None:
        """Many distances, not one."""

    def forward(self, weight: Tensor, bits: Tensor, grid_scale: Tensor | None = None) -> Tensor:
        """Each slice on its own levels."""
        return self._each(weight, lambda member, part: member(part, bits, grid_scale))

    def binarize(self, weight: Tensor) -> Tensor:
        """One bit, with a magnitude for each slice."""
        return self._each(weight, lambda member, part: member.binarize(part))

    def restart(self, weight: Tensor, total_bits: int) -> None:
        """Each slice's own start."""
        for member, part in self._pairs(weight):
            member.restart(part, total_bits)

    def follow_bits(self, weight: Tensor, before: int, now: int) -> None:
        """Each slice's own."""
        for member, part in self._pairs(weight):
            member.follow_bits(part, before, now)

    def _pairs(self, weight: Tensor) -> list[tuple[Any, Tensor]]:
        return list(zip(self.members, weight.unbind(), strict=True))

    def _each(self, weight: Tensor, formula: Callable[[Any, Tensor], Tensor]) -> Tensor:
        return torch.stack([formula(member, part) for member, part in self._pairs(weight)])


def stack_of(quantizer: Quantizer, weight: Tensor, **options: Any) -> WeightQuantizer:
    """A quantiser with levels for each slice of a weight along its first axis.

    A method with a scale for each output channel has one for each slice in the same way; others get a quantiser for
    each. Which axis of a slice counts its outputs is not known: slices are what ``granularity`` divides no further.

    Args:
        quantizer: a registered method, a class, or an instance, which is copied.
        weight: (slices, ...), three axes and more.
        options: those of ``make_quantizer``.

    Raises:
        ValueError: see ``make_quantizer``; a weight without slices.

    Example:
        >>> weight = torch.stack([torch.eye(2), 100 * torch.eye(2)])
        >>> stack_of("wrpn", weight, scale="max")(weight, torch.tensor(1.0)).amax(dim=(1, 2)).tolist()
        [1.0, 100.0]
    """
    if weight.ndim < 3 or not len(weight):
        raise ValueError(f"a stack of weights has three axes and more and a slice at least, not {tuple(weight.shape)}")
    options |= {"outputs": Outputs(), "granularity": "layer"}
    method = find_quantizer(quantizer)
    if method.by_channel and options.get("scale") != "none":
        return make_quantizer(quantizer, weight.detach(), **options | {"granularity": "channel"})
    members = [make_quantizer(quantizer, part, **options) for part in weight.detach()]
    made = Stacked(members, scale=members[0].scale)
    made.method = members[0].method  # type: ignore[misc]  # a stack is no method of its own
    return made

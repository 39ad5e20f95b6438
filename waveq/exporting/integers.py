"""The weights of a finalised network as integers: a code for each, a scale for each layer or channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from waveq._names import nearest
from waveq.exporting.scale_search import find_scales
from waveq.layers import Outputs
from waveq.method.sites import WeightSite, weight_sites
from waveq.policy import Policy
from waveq.quantizers import check_total_bits

__all__ = ["Integers", "integers"]

_UNEVEN = ("lqnets", "ttq")  # methods whose levels are learned one by one


@dataclass(frozen=True)
class Integers:
    """One layer: its weights are exactly scale * (code + offset).

    Attributes:
        codes: int8 (int16 at 9 bits), the shape of the weight, from -2^(B-1) to 2^(B-1) - 1.
        scale: float32 (float64 in networks of that), 0-dim; (C,) where each output channel has its own.
        offset: 0, or 1/2 on grids without a zero.
        bits: B.
        outputs: where the output channels lie that have scales of their own; None for one scale.
        dtype: of the weight.
    """

    codes: Tensor
    scale: Tensor
    offset: float
    bits: int
    outputs: Outputs | None
    dtype: torch.dtype

    @property
    def axis(self) -> int | None:
        """The axis of the codes that ``scale`` counts along (within a group where there are several); None for one."""
        return None if self.outputs is None else self.outputs.axis

    @property
    def packed_bytes(self) -> int:
        """What the codes take at B bits each, and the scales, whole bytes."""
        return -(-self.codes.numel() * self.bits // 8) + self.scale.numel() * self.scale.element_size()

    def weight(self) -> Tensor:
        """The weight, bit by bit: one product, rounded to float32 (or float64) and then to the weight's dtype."""
        scale = self.scale if self.outputs is None else self.outputs.spread(self.scale, self.codes)
        return (scale * (self.codes.to(scale.dtype) + self.offset)).to(self.dtype)


@torch.no_grad()
def integers(model: nn.Module, policy: Mapping[str, int]) -> dict[str, Integers]:
    """The layers of a policy as integers.

    The scales are found in the weights, so that they are right for whatever has been loaded into the model; the weights
    that come back are the model's bit by bit, or there is an error. DoReFa, PACT, WRPN, MidRise, LSQ and DSQ have such
    grids, with a scale for each layer or output channel. LQ-Nets and TTQ have not: their levels are learned one by one,
    so that a code is no number to multiply with, only a place in a table.

    Args:
        model: after ``finalize()``, or plain with the weights of such a model; unchanged.
        policy: total bits by layer, a ``Policy`` or a plain mapping.

    Raises:
        ValueError: a layer that the model does not have, or whose weights lie on no grid of its bits.
        TypeError: no module, or no mapping.

    Example:
        >>> import waveq
        >>> net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> wq = waveq.attach(net, quantizer="lsq", bits={"0": 8, "2": 3}); wq.finalize()
        >>> found = waveq.integers(net, wq.policy())
        >>> found["2"].codes.dtype, found["2"].bits, torch.equal(found["2"].weight(), net[2].weight)
        (torch.int8, 3, True)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a module, not {type(model).__name__}")
    if not isinstance(policy, Mapping):
        raise TypeError(f"policy must be a mapping of layers to total bits, not {policy!r}")
    sites = weight_sites(model, bits=policy)
    for name in policy:
        if name not in sites:
            raise ValueError(f"the policy names layer {name!r}, which the model does not have{nearest(name, sites)}")
    if isinstance(policy, Policy) and policy.quantizer in _UNEVEN:
        raise ValueError(
            f"the levels of quantizer {policy.quantizer!r} are learned one by one and not evenly spaced, so that no "
            "scale and integers give them; take 'lsq', 'wrpn', 'dorefa', 'midrise', 'pact' or 'dsq'"
        )
    told = policy.scales if isinstance(policy, Policy) else {}
    return {
        name: _integers_of(name, sites[name], check_total_bits(bits, layer=name), told.get(name))
        for name, bits in policy.items()
    }


def _integers_of(name: str, site: WeightSite, bits: int, told: float | None) -> Integers:
    if parametrize.is_parametrized(site.module, site.tensor):
        raise ValueError(f"layer {name!r} is still attached: call wq.finalize() first")
    weight: Tensor = getattr(site.module, site.tensor).detach()
    for outputs in (None, site.outputs):
        for offset in (0.0, 0.5):
            rows = weight.reshape(1, -1) if outputs is None else outputs.rows(weight)
            scales = find_scales(rows, bits, offset, told)
            if scales is not None:
                scale = scales[0] if outputs is None else scales
                return _coded(weight, scale, offset, bits, outputs)
    raise ValueError(
        f"layer {name!r}: its weights are no multiples of a scale at {bits} bits; the policy must be the one that the "
        "network was finalised with, and nothing may have changed the weights since (training, folding, averaging)"
    )


def _coded(weight: Tensor, scale: Tensor, offset: float, bits: int, outputs: Outputs | None) -> Integers:
    spread = scale if outputs is None else outputs.spread(scale, weight)
    codes = torch.round(weight.to(scale.dtype) / spread - offset)
    made = Integers(
        codes.to(torch.int8 if bits <= 8 else torch.int16), scale.clone(), offset, bits, outputs, weight.dtype
    )
    assert torch.equal(made.weight(), weight)  # the search has verified every value
    return made

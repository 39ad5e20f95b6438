"""Which layers a target takes as integers, where it knows a few kinds of modules and eight bits; others stay float."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from waveq.exporting.carriers import whole_codes
from waveq.exporting.integers import Integers
from waveq.method.sites import WeightSite, weight_sites

__all__ = ["MOST_BITS", "held_layers"]

MOST_BITS = 8


def held_layers(
    model: nn.Module, found: Mapping[str, Integers], kinds: tuple[type[nn.Module], ...], target: str
) -> tuple[dict[str, Integers], dict[str, str]]:
    """(the layers that the target holds as integers, why each of the others stays in floating point).

    Args:
        kinds: modules whose ``weight`` the target takes.
        target: what messages call it.

    Raises:
        ValueError: a layer of these kinds needs more than 8 bits, or there is none.

    Example:
        >>> import torch, waveq
        >>> net = nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(4, 2))
        >>> wq = waveq.attach(net, quantizer="lsq", bits=4); wq.finalize()
        >>> held, left = held_layers(net, waveq.integers(net, wq.policy()), (nn.Linear,), "'torchao'")
        >>> list(held), left
        (['2'], {'0': 'float32 (Conv1d)'})
    """
    sites = weight_sites(model, bits=found)
    holders = _holders(model)
    left = {name: why for name in found if (why := _why_not(name, sites[name], kinds, holders))}
    held = {name: each for name, each in found.items() if name not in left}
    for name, each in held.items():
        bits = whole_codes(each)[2]
        if bits > MOST_BITS:
            grid = ", one more than the policy's because its grid has no zero" if each.offset else ""
            raise ValueError(
                f"layer {name!r} takes {bits} bits as whole numbers{grid}, and target {target} has {MOST_BITS} at "
                "most; 'onnx' and 'npz' hold it"
            )
    if not held:
        names = ", ".join(kind.__name__ for kind in kinds)
        told = "; ".join(f"{name}: {why}" for name, why in left.items())
        raise ValueError(f"target {target} holds the weights of {names} alone, and no layer is one ({told})")
    return held, left


def _holders(model: nn.Module) -> dict[int, list[str]]:
    """By the identity of each parameter, the names under which modules hold it."""
    found: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        found.setdefault(id(parameter), []).append(name)
    return found


def _why_not(
    name: str, site: WeightSite, kinds: tuple[type[nn.Module], ...], holders: Mapping[int, list[str]]
) -> str | None:
    weight = getattr(site.module, site.tensor)
    kept, kind = str(weight.dtype).removeprefix("torch."), type(site.module).__name__
    if site.tensor != "weight":
        return f"{kept} ({site.tensor} of {kind})"
    if not isinstance(site.module, kinds):
        return f"{kept} ({kind})"
    if isinstance(site.module, nn.Linear) and not site.called:
        return f"{kept} (read by MultiheadAttention itself)"
    others = [other for other in holders.get(id(weight), []) if other != f"{name}.weight"]
    return f"{kept} (tied to {others[0]})" if others else None

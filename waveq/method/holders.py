"""Everything that reads a weight beside the layer that is quantised: it reads the quantised one too, or is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from waveq.method.sites import EMBEDDINGS, WeightSite, site_name

__all__ = ["find_holders", "refuse_views"]


def find_holders(model: nn.Module, sites: Mapping[str, WeightSite], skipped: set[str]) -> dict[str, WeightSite]:
    """The other places in which the weights of ``sites`` are registered: a tied embedding, a user's own module.

    Args:
        model: any module.
        sites: what is quantised, with plain weights.
        skipped: names that the user leaves in floating point.

    Raises:
        ValueError: a holder that must stay in floating point, or that cannot read a quantised weight; both are named.
    """
    owners = {id(site.module._parameters[site.tensor]): name for name, site in sites.items()}
    found: dict[str, WeightSite] = {}
    for module_name, module in model.named_modules():
        for tensor, parameter in module._parameters.items():
            owner, name = owners.get(id(parameter)), site_name(module_name, tensor)
            if parameter is None or owner is None or name in sites:
                continue
            _check_holder(name, module, owner, skipped)
            found[name] = WeightSite(module, tensor, called=False, order=tuple(module._parameters))
    return found


def _check_holder(name: str, module: nn.Module, owner: str, skipped: set[str]) -> None:
    both = f"{owner!r} and {name!r} hold the same weight"
    if name in skipped:
        raise ValueError(
            f"{both}, but {name!r} is in skip: rounding the one would round the other. Skip both or neither "
            f"(skip=({name!r}, {owner!r})), or untie them"
        )
    if isinstance(module, parametrize.ParametrizationList):
        raise ValueError(f"{both}, but the latter's is parametrised already: skip {owner!r}, or untie them")
    if isinstance(module, EMBEDDINGS) and (module.max_norm is not None or module.sparse):
        trait = "max_norm writes into the weight" if module.max_norm is not None else "sparse gradients have no wave"
        raise ValueError(f"{both}, but {name!r} cannot read a quantised one ({trait}): skip {owner!r}, or untie them")


def refuse_views(model: nn.Module, sites: Mapping[str, WeightSite]) -> None:
    """Refuse other tensors that lie in a weight's memory, which ``finalize`` writes: they would change unseen.

    Raises:
        ValueError: names the weight and the other one.
    """
    weights: dict[int, list[tuple[int, int, Tensor, str]]] = {}
    for name, site in sites.items():
        weight = site.module._parameters[site.tensor]
        assert weight is not None
        if (extent := _extent(weight)) is not None:
            home, first, last = extent
            weights.setdefault(home, []).append((first, last, weight, name))
    for other, another in _tensors(model):
        extent = _extent(another)
        for first, last, mine, name in weights.get(extent[0], ()) if extent else ():
            if extent is not None and another is not mine and extent[1] < last and first < extent[2]:
                raise ValueError(
                    f"the weight of {name!r} shares its memory with {other!r}, which would read it without its "
                    f"quantiser and change when it is rounded: make one a copy, tie them as one nn.Parameter, or skip "
                    f"{name!r}"
                )
    _refuse_hidden(model, {id(weight): name for those in weights.values() for _, _, weight, name in those})


def _refuse_hidden(model: nn.Module, owners: Mapping[int, str]) -> None:
    """A weight that a module keeps in a plain list, past ``nn.Module``: nothing can put a quantised one there."""
    for module_name, module in model.named_modules():
        if isinstance(module, nn.RNNBase):
            continue  # torch's own list of its weights, which follows them
        for attribute, kept in vars(module).items():
            if attribute.startswith("_") and attribute in _OWN:
                continue
            for tensor in _inside(kept):
                if id(tensor) in owners:
                    name, where = owners[id(tensor)], repr(module_name) if module_name else "the model"
                    raise ValueError(
                        f"the weight of {name!r} is also kept in the attribute {attribute!r} of {where}, where it "
                        f"would be read without its quantiser: read it as {name}.weight instead, or skip {name!r}"
                    )


_OWN = frozenset(vars(nn.Module()))


def _inside(kept: Any) -> Iterator[Tensor]:
    if isinstance(kept, Tensor):
        yield kept
    elif isinstance(kept, list | tuple) and len(kept) < 1000:
        yield from (each for each in kept if isinstance(each, Tensor))
    elif isinstance(kept, dict) and len(kept) < 1000:
        yield from (each for each in kept.values() if isinstance(each, Tensor))


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _extent(tensor: Tensor) -> tuple[int, int, int] | None:
    """Storage, first byte and the one behind the last; None where a tensor has no memory of its own to speak of."""
    if type(tensor) not in (Tensor, nn.Parameter) or tensor.is_meta or tensor.layout != torch.strided:
        return None
    if tensor.numel() == 0:
        return None
    first = tensor.storage_offset()
    span = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    width = tensor.element_size()
    return tensor.untyped_storage().data_ptr(), int(first * width), int((first + span) * width)

"""What of a model is quantised: one answer for training, evaluation, fine-tuning and the allocation of bits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from waveq._names import nearest
from waveq.method.choose_layers import choose_layers, share_weights
from waveq.method.holders import find_holders, refuse_views
from waveq.method.options import Bits
from waveq.method.sites import WeightSite, site_names, weight_sites
from waveq.quantizers import Quantizer, make_quantizer
from waveq.quantizers.base import Granularity, ScaleMode, WeightQuantizer
from waveq.quantizers.registry import round_by
from waveq.quantizers.stacked import stack_of

__all__ = ["Choice", "ChosenWeight", "choose_named", "choose_weights"]


@dataclass(frozen=True)
class ChosenWeight:
    """One tensor that is quantised, and everything that reads it.

    Attributes:
        names: what policies may call it, the usual name first; several layers that share the tensor have one each.
        sites: where it is held: in the layers of ``names``, then elsewhere (a tied embedding).
        keys: its names among ``model.named_parameters(remove_duplicate=False)``: to put another one in its place, all
            of them are needed.
    """

    names: tuple[str, ...]
    sites: tuple[WeightSite, ...]
    keys: tuple[str, ...]

    @property
    def tensor(self) -> nn.Parameter:
        """The float weight."""
        site = self.sites[0]
        found = site.module._parameters[site.tensor]
        assert found is not None
        return found

    def quantizer(
        self,
        quantizer: Quantizer,
        *,
        total_bits: int | None,
        scale: ScaleMode | None,
        granularity: Granularity = "layer",
    ) -> WeightQuantizer:
        """A new quantiser for it; see ``make_quantizer``."""
        site = self.sites[0]
        make: Any = stack_of if site.stacked else make_quantizer
        levels = {"total_bits": total_bits, "scale": scale, "granularity": granularity, "outputs": site.outputs}
        made: WeightQuantizer = make(quantizer, self.tensor, layer=self.names[0], **levels)
        return made

    @torch.no_grad()
    def rounded(
        self, total_bits: int, *, quantizer: Quantizer, scale: ScaleMode | None, granularity: Granularity = "layer"
    ) -> Tensor:
        """The weight as ``attach`` with these bits rounds it before any training; shape and dtype as they are."""
        made = self.quantizer(quantizer, total_bits=total_bits, scale=scale, granularity=granularity)
        return round_by(made, self.tensor.detach(), total_bits)


@dataclass(frozen=True)
class Choice:
    """What is quantised and what is not.

    Attributes:
        weights: each tensor once, by its first name, in the order of ``named_modules()``.
        layers: the sites of all names.
        skipped: names that are left out.
        known: the sites that are quantised without being asked for, skipped or not.
    """

    weights: dict[str, ChosenWeight]
    layers: dict[str, WeightSite]
    skipped: set[str]
    known: dict[str, WeightSite]

    @property
    def shared(self) -> dict[str, tuple[str, ...]]:
        """All names of each tensor, by the first."""
        return {name: weight.names for name, weight in self.weights.items()}


def choose_weights(
    model: nn.Module, *, skip: Iterable[str] = (), also: Iterable[str] = (), bits: Bits = "learn"
) -> Choice:
    """The tensors that ``attach`` with these options quantises.

    Args:
        model: with plain weights; not changed.
        skip: layers left in floating point, see ``attach``.
        also: tensors that are quantised on request, see ``attach``.
        bits: a mapping asks for what it names.

    Raises:
        ValueError: nothing to quantise, a weight that cannot be, or one that something else reads and must not find
            quantised.

    Example:
        >>> emb, head = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)
        >>> head.weight = emb.weight
        >>> choose_weights(nn.Sequential(emb, nn.Linear(4, 4), head)).weights["2"].keys
        ('0.weight', '2.weight')
    """
    layers, skipped = choose_layers(model, skip, bits, also)
    refuse_views(model, layers)
    holders = find_holders(model, layers, skipped)
    places: dict[int, list[str]] = {}
    for key, parameter in model.named_parameters(remove_duplicate=False):
        places.setdefault(id(parameter), []).append(key)
    weights = {}
    for name, names in share_weights(layers).items():
        tensor = layers[name].module._parameters[layers[name].tensor]
        others = [site for site in holders.values() if site.module._parameters[site.tensor] is tensor]
        weights[name] = ChosenWeight(names, (*(layers[each] for each in names), *others), tuple(places[id(tensor)]))
    return Choice(weights, layers, skipped, weight_sites(model))


def choose_named(model: nn.Module, names: Iterable[str]) -> dict[str, ChosenWeight]:
    """The weights of these names, each once; embeddings and experts are asked for by being named.

    Raises:
        ValueError: a name that the model does not have, two names of one weight, or a weight that cannot be quantised.

    Example:
        >>> list(choose_named(nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 2)), ["2", "0"]))
        ['2', '0']
    """
    names, known, usual = list(names), site_names(model), weight_sites(model)
    for name in names:
        if name not in known:
            raise ValueError(f"the model has no layer {name!r} to quantise{nearest(name, known)}")
    also = [name for name in names if name not in usual]
    sites = weight_sites(model, also)
    tensors = {id(sites[name].module._parameters.get(sites[name].tensor)) for name in names}
    others = [n for n, site in usual.items() if id(site.module._parameters.get(site.tensor)) not in tensors]
    found = {
        name: weight
        for weight in choose_weights(model, skip=others, also=also).weights.values()
        for name in weight.names
    }
    chosen = {name: found[name] for name in names}
    if len({id(weight) for weight in chosen.values()}) < len(chosen):
        twice = next(w.names for w in found.values() if sum(name in w.names for name in names) > 1)
        raise ValueError(f"layers that share one weight have one entry together, not {len(twice)}: {', '.join(twice)}")
    return chosen

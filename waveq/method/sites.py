"""The weights of a model that can be quantised: each a tensor of a module, under the name that policies have for it."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch import nn
from torch.nn.utils import parametrize

from waveq._names import nearest
from waveq.layers import Outputs, is_layer, outputs_of

__all__ = ["EMBEDDINGS", "WeightSite", "site_name", "site_names", "weight_sites"]

EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


@dataclass(frozen=True)
class WeightSite:
    """A weight where it lives.

    Attributes:
        module: whose weight it is.
        tensor: its name there.
        called: whether the module is called with the inputs that the weight is multiplied with, so that a hook can
            quantise them. MultiheadAttention reads its output layer's weight and never calls it.
        stacked: whether each slice along the first axis is a weight of its own (experts).
        asked: whether it is quantised only because ``also`` or the bits name it.
        order: the module's parameters as they stood, for when it becomes a plain one again.
    """

    module: nn.Module
    tensor: str = "weight"
    called: bool = True
    stacked: bool = False
    asked: bool = False
    order: tuple[str, ...] = ()

    @property
    def outputs(self) -> Outputs:
        """Where the output channels lie."""
        return outputs_of(self.module) if self.tensor == "weight" else Outputs()


def site_name(module_name: str, tensor: str) -> str:
    """The name in policies: the module's where the tensor is ``weight``, else with the tensor's behind it.

    Example:
        >>> site_name("head", "weight"), site_name("self_attn", "in_proj_weight")
        ('head', 'self_attn.in_proj_weight')
    """
    if tensor == "weight":
        return module_name
    return f"{module_name}.{tensor}" if module_name else tensor


def weight_sites(model: nn.Module, also: Iterable[str] = (), bits: object = None) -> dict[str, WeightSite]:
    """The weights to quantise by name, in the order of ``named_modules()``.

    Linear layers, convolutions and transposed ones; of MultiheadAttention, LSTM, GRU, RNN and their cells all matrices;
    and what ``also`` names.

    Args:
        model: any module.
        also: embeddings by module name, other parameters of two axes and more by their own name, or patterns. One of
            three axes and more is a stack (experts): its slices have levels of their own, and common bits.
        bits: as given to ``attach``: a mapping asks for what it names.

    Raises:
        ValueError: an entry of ``also`` that matches nothing.

    Example:
        >>> list(weight_sites(nn.Sequential(nn.Embedding(9, 4), nn.LSTM(4, 8), nn.Linear(8, 2)), also=("0",)))
        ['0', '1.weight_ih_l0', '1.weight_hh_l0', '2']
    """
    if isinstance(also, str):
        raise TypeError(f"also must be a sequence of names, not the string {also!r}; write also=({also!r},)")
    uncalled = {id(module.out_proj) for module in model.modules() if isinstance(module, nn.MultiheadAttention)}
    found: dict[str, WeightSite] = {}
    asked: dict[str, WeightSite] = {}
    for name, module in model.named_modules():
        if isinstance(module, parametrize.ParametrizationList):
            continue
        usual = dict.fromkeys(_usual(module), True)
        for tensor in [*usual, *_others(module, usual)]:
            site = WeightSite(
                module,
                tensor,
                called=is_layer(module) and tensor == "weight" and id(module) not in uncalled,
                stacked=tensor not in usual and _axes(module, tensor) > 2,
                asked=tensor not in usual,
                order=tuple(module._parameters),
            )
            (found if tensor in usual else asked)[site_name(name, tensor)] = site
    wanted = _matching(also, found, asked)
    wanted.update(name for name in (bits if isinstance(bits, Mapping) else ()) if name in asked)
    names = [name for name in site_names(model) if name in found or name in wanted]
    return {name: found.get(name) or asked[name] for name in dict.fromkeys(names)}


def site_names(model: nn.Module) -> list[str]:
    """The names of all weights that are quantised or that ``also`` may name.

    Example:
        >>> site_names(nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2)))
        ['0', '1']
    """
    return [site_name(name, tensor) for name, module in model.named_modules() for tensor in _all_tensors(module)]


def _usual(module: nn.Module) -> Iterator[str]:
    """The tensors of a module that are quantised without being asked for."""
    if is_layer(module):
        yield "weight"
    elif isinstance(module, nn.MultiheadAttention):
        for tensor in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            if module._parameters.get(tensor) is not None or parametrize.is_parametrized(module, tensor):
                yield tensor
    elif isinstance(module, nn.RNNBase):
        yield from (tensor for tensor in module._flat_weights_names if tensor.startswith("weight"))
    elif isinstance(module, nn.RNNCellBase):
        yield from ("weight_ih", "weight_hh")


def _others(module: nn.Module, usual: Iterable[str]) -> Iterator[str]:
    """The tensors that ``also`` may name."""
    for tensor, parameter in module._parameters.items():
        if parameter is not None and tensor not in usual and parameter.ndim > 1 and parameter.is_floating_point():
            yield tensor


def _all_tensors(module: nn.Module) -> Iterator[str]:
    usual = tuple(_usual(module))
    yield from usual
    yield from _others(module, usual)


def _axes(module: nn.Module, tensor: str) -> int:
    parameter = module._parameters[tensor]
    return 0 if parameter is None else parameter.ndim


def _matching(also: Iterable[str], found: Iterable[str], asked: Iterable[str]) -> set[str]:
    asked, known = list(asked), [*found, *asked]
    wanted: set[str] = set()
    for entry in also:
        hits = fnmatch.filter(known, entry)
        if not hits:
            raise ValueError(
                f"also names {entry!r}, which is no embedding and no parameter of two axes and more"
                f"{nearest(entry, asked) if asked else ': the model has none that is not quantised anyway'}"
            )
        wanted.update(hits)
    return wanted

"""How many multiplications each layer takes, counted in the forward passes of the first step.

The counts stand in a buffer of the model, so that a run that goes on from a checkpoint has the same prices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from waveq.layers import is_layer
from waveq.method.checkpoint import ROOT_COUNTS
from waveq.method.pair_costs import PairTable, product_tables
from waveq.method.settings import WaveLayer
from waveq.method.sites import EMBEDDINGS, WeightSite

__all__ = ["CountCalls", "Multiplications", "require_countable"]

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_RECURRENT = (nn.RNNBase, nn.RNNCellBase)


class Multiplications:
    """Counts by layer, and what they cost by the bits of both operands."""

    def __init__(self) -> None:
        self._model: nn.Module | None = None
        self._layers: tuple[WaveLayer, ...] = ()
        self._uses: dict[int, int] = {}  # how often each layer's whole weight was multiplied with, by its place
        self._hooks: list[Any] = []
        self._seen: tuple[int, int] | None = None
        self._tables: Mapping[str, PairTable] | None = None

    def begin(self, model: nn.Module, layers: Sequence[WaveLayer]) -> None:
        """Count from here on.

        Args:
            model: gets a buffer.
            layers: what ``attach`` made.
        """
        self._model, self._layers = model, tuple(layers)
        model.register_buffer(
            ROOT_COUNTS, torch.zeros(len(layers), dtype=torch.int64, device=layers[0].state.beta.device)
        )
        attention = {m.out_proj: m for m in model.modules() if isinstance(m, nn.MultiheadAttention)}
        for place, layer in enumerate(self._layers):
            for module in layer.modules:
                called: Any = attention.get(module, module)  # type: ignore[call-overload]
                self._hooks.append(
                    called.register_forward_hook(CountCalls(self._uses, place, module), with_kwargs=True)
                )

    def tables(self) -> Mapping[str, PairTable] | None:
        """Cost by layer and bits of both operands; None before the first forward pass."""
        counts: Any = None if self._model is None else self._model._buffers.get(ROOT_COUNTS)
        if counts is None:
            return self._tables
        mark = id(counts), counts._version
        if mark != self._seen:
            self._seen = mark
            kept = counts.tolist()
            self._tables = self._made(kept) if any(kept) else None
        if self._tables is None and self._uses:
            return self._made(self._present())
        return self._tables

    def settle(self) -> bool:
        """At the first step: the counts of all ranks together are kept; whether they were not known before."""
        if not self._hooks:
            return False
        self.remove()
        counts: Any = None if self._model is None else self._model._buffers.get(ROOT_COUNTS)
        if counts is None or bool(counts.any()):  # of a checkpoint
            return False
        found = torch.tensor(self._present(), dtype=torch.int64, device=counts.device)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(found)
        counts.copy_(found)
        return True

    def remove(self) -> None:
        """Take the hooks off."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _present(self) -> list[int]:
        return [self._uses.get(place, 0) * layer.weight.numel() for place, layer in enumerate(self._layers)]

    def _made(self, counts: Sequence[int]) -> dict[str, PairTable]:
        return product_tables({layer.name: count for layer, count in zip(self._layers, counts, strict=True)})


class CountCalls:
    """Forward hook: how often the weight is multiplied with, as a whole: rows of a matrix product, places of a kernel.

    Args:
        uses: where it is counted.
        place: under which key.
        module: whose weight it is, which is not always what is called.
    """

    def __init__(self, uses: dict[int, int], place: int, module: nn.Module) -> None:
        self._uses, self._place, self._module = uses, place, module

    def __call__(self, called: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        """After the forward pass of what is called."""
        if torch.compiler.is_compiling() or torch._C._current_graph_task_id() != -1:
            return  # a backward pass that computes its forward pass again
        self._uses[self._place] = self._uses.get(self._place, 0) + _uses_of(called, args, kwargs, output)


def require_countable(sites: Mapping[str, WeightSite]) -> None:
    """Refuse weights of which nobody knows how often they are multiplied with.

    Args:
        sites: the weights to quantise.

    Raises:
        ValueError: names them.
    """
    known = (*EMBEDDINGS, nn.MultiheadAttention, *_RECURRENT)
    strange = [name for name, site in sites.items() if not (is_layer(site.module) or isinstance(site.module, known))]
    if strange:
        raise ValueError(
            f"target bitops cannot count the multiplications of {', '.join(strange)}: say those of all layers, "
            "layer_costs={layer: multiplications}"
        )


def _uses_of(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> int:
    if isinstance(module, EMBEDDINGS):
        return 0  # rows are looked up
    if isinstance(module, _CONVS):
        return int(output.numel()) // module.out_channels
    x = args[0] if args else kwargs["query" if isinstance(module, nn.MultiheadAttention) else "input"]
    values = x if isinstance(x, Tensor) else x.data  # a packed sequence
    if isinstance(module, _TRANSPOSED):
        return values.numel() // module.in_channels
    return values.numel() // max(1, values.shape[-1])

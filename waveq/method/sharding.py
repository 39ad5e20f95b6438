"""Weights that FSDP2 has sharded: rounded whole inside the forward pass, pulled to their levels shard by shard.

``fully_shard`` brings each layer's weight together before its forward pass, so that rounding sees whole weights.
Between forward passes a process holds rows of them as a DTensor: the penalty is taken of those by the formulas of
``functional``, whose largest values and sums are reduced over the processes, and its gradient is a shard again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from waveq._kernels.sharded import is_sharded
from waveq.method.settings import Settings, WaveLayer
from waveq.method.wrappers import WHOLE
from waveq.quantizers.activation import mean_over_ranks

__all__ = ["Shards", "by_shards", "scales_of"]


class Shards:
    """Whether the weights are whole, as they were at ``attach``, or sharded since.

    Args:
        model: attached.
        layers: what ``attach`` made.
        settings: what it decided.
    """

    def __init__(self, model: nn.Module, layers: Sequence[WaveLayer], settings: Settings) -> None:
        self._model, self._layers, self._settings = model, tuple(layers), settings
        self._before = [(type(layer.weight), layer.weight.shape) for layer in layers]
        self._units: list[Any] = []  # FSDP2's
        self._hook = model.register_forward_pre_hook(lambda *_: self.look())

    @property
    def sharded(self) -> bool:
        """Whether FSDP2 has sharded the model."""
        return bool(self._units)

    def remove(self) -> None:
        """Look no more before forward passes: what is sharded is sharded before the first one."""
        self._hook.remove()

    def look(self) -> None:
        """See whether weights have been sharded; from then on each is rounded by itself, while it is whole.

        Raises:
            TypeError: parts of weights that nobody brings together again, or a run that cannot go on with shards; it
                names what, and how to train instead.
        """
        if not self._units:
            self._units = _units_of(self._model)
            if self._units:
                self._begin()
        for layer, (kind, shape) in zip(self._layers, self._before, strict=True):
            module: Any = layer.modules[0]
            weight = module._modules["parametrizations"]._modules[layer.tensors[0]]._parameters.get("original")
            # within torch.func's transforms a plain tensor stands for the parameter
            whole = weight is not None and weight.shape == shape and (type(weight) in (kind, Tensor))
            if not whole and not (self._units and weight is not None and weight.shape == shape):
                raise TypeError(
                    f"the weight of layer {layer.name!r} has been sharded since attach() (FSDP1, tensor parallelism): "
                    + WHOLE
                )

    def part(self) -> None:
        """Leave each process its rows, where a forward pass has left weights together."""
        for unit in self._units:
            unit.reshard()

    def require_whole(self, call: str) -> None:
        """Refuse what needs plain layers.

        Raises:
            RuntimeError: the weights are sharded.
        """
        if self._units:
            raise RuntimeError(
                f"{call}() on sharded weights (fully_shard): gather them with torch.distributed.checkpoint.state_dict."
                "get_model_state_dict(model, options=StateDictOptions(full_state_dict=True)), load that into a network "
                f"that was attached alike and is not sharded, and call {call}() of that one"
            )

    def _begin(self) -> None:
        _require_supported(self._settings)
        for layer in self._layers:
            layer.state.groups.alone = True
        for scale in scales_of(self._layers):
            if is_sharded(scale):
                raise TypeError(
                    "what is learned beside the weights (steps, ranges) was sharded with them: fully_shard(model, "
                    "ignored_params=wq.scales())"
                )
            if scale.requires_grad:
                scale.register_hook(mean_over_ranks)  # type: ignore[no-untyped-call]  # FSDP does so for what it shards


def _units_of(model: nn.Module) -> list[Any]:
    fsdp = sys.modules.get("torch.distributed.fsdp")  # who has called fully_shard has imported it
    return [] if fsdp is None else [each for each in model.modules() if isinstance(each, fsdp.FSDPModule)]


def _require_supported(settings: Settings) -> None:
    refused = {
        'forward="float"': settings.forward == "float",
        "freezing": settings.freezing is not None,
        f"granularity={settings.granularity!r}": settings.granularity != "layer",
        f"quantizer={settings.quantizer!r}": settings.quantizer not in ("dorefa", "lsq", "wrpn", "midrise"),
    }
    for what, is_so in refused.items():
        if is_so:
            raise TypeError(f"{what} with sharded weights (fully_shard): " + WHOLE)


def scales_of(layers: Sequence[WaveLayer]) -> set[nn.Parameter]:
    """What is learned beside the weights."""
    return {parameter for layer in layers for parameter in layer.state.parameters()}


class _Formulas(nn.Module):
    """A place for one layer's numbers, in which ``functional_call`` can put others."""

    def __init__(self, state: nn.Module) -> None:
        super().__init__()
        self.state = state

    def forward(self, compute: Callable[[], Any]) -> Any:
        return compute()


def by_shards(layer: WaveLayer, compute: Callable[[], Any]) -> Any:
    """What a formula makes of a sharded layer; its single numbers are DTensors meanwhile, the same in every process."""
    from torch.distributed.tensor import DTensor, Replicate

    weight = cast(Any, layer.weight)
    mesh, everywhere = weight.device_mesh, [Replicate()] * weight.device_mesh.ndim
    state, quantizer = layer.state, layer.state.quantizer
    own = {name: tensor for name, tensor in state._buffers.items() if isinstance(tensor, Tensor)}
    beside = {f"quantizer.{name}": each for name, each in (*quantizer.named_parameters(), *quantizer.named_buffers())}
    replicas: dict[str, Tensor] = {
        f"state.{name}": DTensor.from_local(tensor, mesh, everywhere, run_check=False)
        for name, tensor in (own | beside).items()
    }
    return torch.func.functional_call(_Formulas(state), replicas, (compute,))

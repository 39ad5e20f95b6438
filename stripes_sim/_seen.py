"""What the layers of a real run multiply, kept as the recorder sees it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from stripes_sim._arguments import from_tensors
from stripes_sim._recorder import Recorder, UnknownLayerError, running_modules
from stripes_sim._shadow import shadow_of, unparametrize, unwrapped
from stripes_sim.layers import LayerShape
from stripes_sim.trace import plain_kernels

__all__ = ["Seen", "seen_values"]


class Seen(Recorder):  # type: ignore[no-untyped-call]
    """A recorder that keeps the operands of every layer with weights: ``met``, by layer and call."""

    def __init__(self, model: nn.Module, inputs: Sequence[Tensor], where: list[str]) -> None:
        super().__init__(model, inputs, where)
        self.met: dict[LayerShape, list[tuple[Tensor, Tensor]]] = {}

    def _meet(self, layer: LayerShape, x: Tensor, weight: Tensor) -> None:
        # forward may write over its input later
        self.met.setdefault(layer, []).append((x.detach().clone(), weight.detach()))


def seen_values(model: nn.Module, inputs: Any, device: torch.device | str) -> dict[str, tuple[Tensor, Tensor]]:
    """Layer -> (inputs, weight) of one call in evaluation mode.

    Inputs are (samples, channels, *size) of a convolution, (samples, tokens, in_channels) of a linear layer, with an
    axis of calls behind the samples where there are several. Samples are along the first axis of the first input.

    Raises:
        ValueError: a model that cannot run on these inputs, or whose weights meet an unknown operator.
    """
    place = torch.device(device)
    if place.type == "meta":
        raise ValueError("device must be one that computes numbers, such as 'cpu', but it is 'meta'")
    given = from_tensors(inputs, place)
    samples = len(given.tensors[0])
    with torch.random.fork_rng(devices=[]), torch.no_grad(), plain_kernels(model):
        ready = _ready(unwrapped(model), place)
        with running_modules(ready) as where:
            recorder = Seen(ready, given.tensors, where)
            try:
                with recorder:
                    ready(*given.args, **given.kwargs)
            except UnknownLayerError as error:
                raise ValueError(str(error)) from None
            except Exception as error:
                first = str(error).splitlines()[0] if str(error) else "no message"
                raise ValueError(
                    f"the model cannot run on inputs of {given.text}: {type(error).__name__} in "
                    f"{where[-1] or 'the model itself'}: {first}"
                ) from error
    return {layer.name: (_calls(layer, calls, samples), calls[0][1]) for layer, calls in recorder.met.items()}


def _calls(layer: LayerShape, calls: Sequence[tuple[Tensor, Tensor]], samples: int) -> Tensor:
    one = (layer.in_channels, *layer.input_size) if layer.is_spatial else (layer.in_channels,)
    by_sample = []
    for x, _ in calls:
        if x.numel() % samples:
            raise ValueError(
                f"layer {layer.name!r} takes an input of {tuple(x.shape)}, which is not of {samples} samples: give "
                "inputs whose first axis counts samples"
            )
        shape = (samples, -1, *one) if layer.is_spatial else (samples, 1, -1, *one)
        by_sample.append(x.reshape(shape))
    together = torch.cat(by_sample, dim=1)
    return together[:, 0] if together.shape[1] == 1 else together


def _ready(model: nn.Module, device: torch.device) -> nn.Module:
    """A model to run in evaluation mode, the user's own untouched; parametrised tensors are what they compute."""
    if not any(parametrize.is_parametrized(module) for module in model.modules()):
        return shadow_of(model, device)
    model = copy.deepcopy(model).to(device).eval()
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):  # type: ignore[arg-type]
                value = getattr(module, name).detach().clone()
                unparametrize(module, name, nn.Parameter(value, requires_grad=False))
    return model

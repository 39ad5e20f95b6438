"""What the layers of a real run multiply, kept as the recorder sees it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from stripes_sim._arguments import from_tensors
from stripes_sim._recorder import Recorder, UnknownLayerError, running_modules
from stripes_sim._shadow import shadow_of, unparametrize, unwrapped
from stripes_sim.layers import LayerShape
from stripes_sim.trace import plain_kernels

__all__ = ["Seen", "seen_values"]


class Met(NamedTuple):
    """What a layer multiplied in one call; of a matrix product (matrices, tokens, inputs), (matrices, outputs, inputs).

    ``by_sample``: matrices are those of the samples, one sample's after the other's; otherwise tokens are.
    """

    x: Tensor
    weight: Tensor
    by_sample: bool


class Seen(Recorder):  # type: ignore[no-untyped-call]
    """A recorder that keeps the operands of every layer: ``met``, by layer and call."""

    def __init__(self, model: nn.Module, inputs: Sequence[Tensor], where: list[str]) -> None:
        super().__init__(model, inputs, where)
        self.met: dict[LayerShape, list[Met]] = {}

    def _meet(self, layer: LayerShape, x: Tensor, weight: Tensor, matrices: int = 1) -> None:
        # forward may write over its operands later
        found = Met(x.detach().clone(), weight.detach().clone() if layer.kind == "matmul" else weight.detach(), False)
        if layer.is_spatial:
            self.met.setdefault(layer, []).append(found)
        elif by_matrix := _by_matrix(found, matrices):
            self.met.setdefault(layer, []).append(by_matrix)


def _by_matrix(met: Met, matrices: int) -> Met | None:
    """With each matrix once and the tokens that it meets, which may be several of a batch; None if they are mixed."""
    x, weight = (each if each.dim() == 3 else each[None] for each in met[:2])
    each = len(x) // matrices
    neighbours, strided = (
        weight.expand(len(x), -1, -1).unflatten(0, by) for by in ((matrices, each), (each, matrices))
    )
    if bool((neighbours == neighbours[:, :1]).all()):
        return Met(x.unflatten(0, (matrices, each)).flatten(1, 2), neighbours[:, 0], matrices > 1)
    if bool((strided == strided[:1]).all()):
        return Met(x.unflatten(0, (each, matrices)).transpose(0, 1).flatten(1, 2), strided[0], False)
    return None


def seen_values(model: nn.Module, inputs: Any, device: torch.device | str) -> dict[str, tuple[Tensor, Tensor, bool]]:
    """Layer -> inputs, weight (or second operand of a product), and whether it is a product; one call, evaluation mode.

    Inputs are (samples, channels, *size) of a convolution, (samples, tokens, in_channels) of the others, with an axis
    of copies behind the samples where there are several. Samples are along the first axis of the first input. Products
    whose batch cannot be told apart by samples and matrices are left out.

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
    return {
        layer.name: (_calls(layer, calls, samples), _one(calls[0].weight, layer), layer.kind == "matmul")
        for layer, calls in recorder.met.items()
    }


def _calls(layer: LayerShape, calls: Sequence[Met], samples: int) -> Tensor:
    for x, _, _ in calls:
        if x.numel() % samples:
            raise ValueError(
                f"layer {layer.name!r} takes an input of {tuple(x.shape)}, which is not of {samples} samples: give "
                "inputs whose first axis counts samples"
            )
    if layer.is_spatial:
        one = (layer.in_channels, *layer.input_size)
        together = torch.cat([x.reshape(samples, -1, *one) for x, _, _ in calls], dim=1)
    else:
        # copies of one matrix follow each other
        together = torch.stack([_tokens(layer, met, samples) for met in calls], dim=2).flatten(1, 2)
    return together[:, 0] if together.shape[1] == 1 else together


def _tokens(layer: LayerShape, met: Met, samples: int) -> Tensor:
    """(samples, matrices, tokens, inputs)."""
    if layer.kind == "matmul" and met.by_sample and len(met.x) % samples == 0:
        return met.x.unflatten(0, (samples, -1))
    return met.x.reshape(len(met.x), samples, -1, layer.in_channels).transpose(0, 1)


def _one(weight: Tensor, layer: LayerShape) -> Tensor:
    return weight if layer.is_spatial or len(weight) > 1 else weight[0]


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

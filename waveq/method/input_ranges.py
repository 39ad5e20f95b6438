"""Ranges and signs of the layers' inputs from data, before training or instead of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import parametrize

from waveq.method.input_signs import ends_of
from waveq.method.parametrization import WaveParametrization

__all__ = ["InputRange", "calibrate"]

_SAMPLE = 1 << 14  # values that are kept of one input
_MOST = 1 << 20  # values that are kept of one layer


class InputRange(NamedTuple):
    """What calibration found of one layer's inputs.

    Attributes:
        signed: whether the grid has a sign.
        least: the lowest input.
        most: the highest input.
        low: the lowest level.
        high: the highest level.
        clipped: share of the inputs that lie outside the levels, in a sample.
    """

    signed: bool
    least: float
    most: float
    low: float
    high: float
    clipped: float


@torch.no_grad()
def calibrate(model: nn.Module, batches: Iterable[Any]) -> dict[str, InputRange]:
    """Set the ranges, levels and signs of the layers' inputs from data.

    Call it after ``attach(..., activation_bits=...)`` and before training, with a handful of batches, or instead of
    training. Without it the first batches that pass do the same, one for each layer. The batches run in evaluation mode
    with inputs in floating point and weights as they are; nothing but the input quantisers changes. Under
    torch.distributed every rank calls it.

    Args:
        model: attached.
        batches: inputs, tuples or lists that begin with them, or dictionaries of the model's keyword arguments, as a
            loader gives them; moved to the model's device.

    Returns:
        What was found, by layer; layers that no batch reached are left out and stay as they were.

    Raises:
        ValueError: no batches, or a model without input quantisers.

    Example:
        >>> from waveq import attach
        >>> net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> wq = attach(net, bits=8, activation_bits=8)
        >>> found = calibrate(net, [torch.randn(32, 4) for _ in range(3)])
        >>> found["2"].signed, found["2"].clipped < 0.01
        (False, True)
    """
    states = _states(model)
    if not states:
        raise ValueError("the model has no input quantisers: attach(model, activation_bits=...) makes them")
    watches = {name: _Watch() for name in states}
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    count = 0
    with _observed(model, states, watches):
        for batch in batches:
            _run(model, batch, device)
            count += 1
    if count == 0:
        raise ValueError("batches is empty: there is nothing to find the ranges of the inputs from")
    found = {}
    for name, state in states.items():
        values, least, most = watches[name].values(device)
        if values.numel():
            found[name] = _set(state, values, least, most)
    return found


class _Watch:
    """A sample of one layer's inputs, and their ends."""

    def __init__(self) -> None:
        self._samples: list[Tensor] = []
        self._kept = 0
        self._least = self._most = 0.0

    def __call__(self, x: Tensor) -> None:
        if not x.numel():
            return
        least, most = (float(end) for end in x.aminmax())
        self._least, self._most = min(self._least, least), max(self._most, most)
        if self._kept < _MOST:
            flat = x.reshape(-1)
            self._samples.append(flat[:: -(-flat.numel() // _SAMPLE)].float().clone())
            self._kept += self._samples[-1].numel()

    def values(self, device: torch.device) -> tuple[Tensor, float, float]:
        """The sample with the ends in it, and the ends over all ranks (0 lies between them)."""
        if not self._samples:
            return torch.empty(0), 0.0, 0.0
        home = self._samples[0].device
        ends = torch.tensor([-self._least, self._most], device=home)
        values = torch.cat([*self._samples, ends * ends.new_tensor([-1.0, 1.0])])
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(ends, dist.ReduceOp.MAX)
        return values, -float(ends[0]), float(ends[1])


def _states(model: nn.Module) -> dict[str, WaveParametrization]:
    """The parametrisations with an input quantiser, by the name of the first layer that has them."""
    found: dict[int, tuple[str, WaveParametrization]] = {}
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module, "weight"):
            state = module.parametrizations.weight[0]
            if isinstance(state, WaveParametrization) and state.activation is not None:
                found.setdefault(id(state), (name, state))
    return dict(found.values())


@contextmanager
def _observed(
    model: nn.Module, states: Mapping[str, WaveParametrization], watches: Mapping[str, _Watch]
) -> Iterator[None]:
    """Within, the model evaluates, and inputs go to the watches instead of the quantisers."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        for name, state in states.items():
            state.observer = watches[name]
        yield
    finally:
        for state in states.values():
            state.observer = None
        for module, training in modes:
            module.training = training


def _run(model: nn.Module, batch: Any, device: torch.device) -> None:
    if isinstance(batch, Mapping):
        model(**{key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()})
    else:
        model((batch[0] if isinstance(batch, tuple | list) else batch).to(device))


def _set(state: WaveParametrization, values: Tensor, least: float, most: float) -> InputRange:
    activation = state.activation
    assert activation is not None
    if not state.sign.told and (least, most) != (0.0, 0.0):  # zeros do not tell
        state.set_signed(least < 0.0)
    signed = state.signed_now == 1
    activation.fit(values, signed=signed)
    low, high = ends_of(activation, signed, values)
    outside = (values < low) | (values > high)
    state.sign.clipped = float(outside.float().mean())
    return InputRange(signed, least, most, float(low), float(high), state.sign.clipped)

"""Whether a layer's inputs have a sign: told beforehand, seen in the first batch, or found out later.

An unsigned grid cuts negative values to 0, so a layer that got one is watched: its first inputs all, later ones now and
then. A negative value gives it the signed grid from then on, with a warning. Under torch.distributed the ranks look at
the first training batch together, and at what each has found later in ``WaveQ.step``, so that their grids stay alike.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from waveq._kernels.backends import transforming
from waveq.quantizers.activation import ActivationQuantizer, DataStarted

__all__ = ["InputSign", "agree_on_signs", "ends_of", "sign_of"]

_ALWAYS = 16  # inputs that are all looked at
_NOW_AND_THEN = 16  # of so many later ones, one
_SMALL = 1 << 12  # values on a CPU that are always looked at: it takes microseconds
_LOST = 0.25  # of the inputs' sum of squares; normalised inputs lose 15 % to a range of 1


class InputSign:
    """What one layer knows of its inputs' sign beside the buffer ``activation_signed``.

    Attributes:
        layer: the layer's name, for messages.
        told: whether the user said it; nothing is watched then.
        seen: inputs so far.
        found: whether this rank has seen a negative value on an unsigned grid, which the others have to hear of.
        clipped: the share of the first inputs that lay outside a range that does not come from data.
        reported: the layers of this ``attach`` that clip too much; common to all of them, so that one warning is given.
    """

    def __init__(self, layer: str = "", reported: list[str] | None = None) -> None:
        self.layer = layer
        self.reported = [] if reported is None else reported
        self.told = self.found = False
        self.seen = 0
        self.clipped: float | None = None


class Signed(Protocol):
    """What is asked of a layer's parametrisation."""

    activation: ActivationQuantizer | None
    beta: Tensor
    sign: InputSign
    signed_now: int
    training: bool

    def set_signed(self, value: bool) -> None:
        """Whether inputs have a sign."""


def sign_of(state: Signed, x: Tensor) -> bool:
    """Whether a layer's inputs have a sign, as far as is known now that x is here."""
    if state.signed_now == 1 or state.sign.told:
        return state.signed_now == 1
    if state.signed_now < 0:
        return _look_first(state, x.detach())
    if not _is_due(state.sign, x) or not x.detach().amin().item() < 0:
        return False
    if _ranks() > 1:
        state.sign.found = True  # the others have to take the signed grid at the same step
        return False
    _promote(state)
    return True


def agree_on_signs(states: Sequence[Signed], step: int) -> None:
    """Where several ranks train: layers in which any of them has found a negative value take the signed grid on all.

    Args:
        states: the same ones on every rank.
        step: optimiser steps taken.
    """
    if _ranks() == 1 or (step >= _ALWAYS and step % _NOW_AND_THEN):
        return
    watched = [state for state in states if state.activation is not None and not state.sign.told]
    if not watched:
        return
    found = torch.tensor([float(state.sign.found) for state in watched], device=watched[0].beta.device)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    for state, flag in zip(watched, found.tolist(), strict=True):
        state.sign.found = False
        if flag and state.signed_now == 0:
            _promote(state)


def ends_of(activation: ActivationQuantizer, signed: bool, like: Tensor) -> tuple[Tensor, Tensor]:
    """The lowest and the highest value that inputs can take; 0-dim, float32."""
    far = torch.tensor([-1e20, 1e20], device=like.device)
    before = activation.training
    with torch.no_grad():
        low, high = activation.eval()(far, signed=signed).unbind()
    activation.train(before)
    return low, high


def _look_first(state: Signed, x: Tensor) -> bool:
    """Settle the sign by these inputs; zeros (a dry run for shapes) do not tell."""
    told = torch.stack([(x != 0).any(), (x < 0).any()])
    if _ranks() > 1:
        if not state.training:
            return bool(told[1])  # one rank may evaluate alone; what it sees does not bind the others
        told = told.float()
        dist.all_reduce(told, dist.ReduceOp.MAX)
    alive, signed = (bool(flag) for flag in told.tolist())
    if alive:
        state.set_signed(signed)
        _look_at_range(state, x, signed)
    return signed


def _look_at_range(state: Signed, x: Tensor, signed: bool) -> None:
    """Warn of a range that was not made for these inputs."""
    activation = state.activation
    assert activation is not None
    if isinstance(activation, DataStarted):
        return
    low, high = ends_of(activation, signed, x)
    wide = x.float()
    outside, energy = wide - wide.clamp(low, high), wide.square().sum()
    state.sign.clipped = float((outside != 0).float().mean())
    if float(outside.square().sum()) <= _LOST * float(energy):
        return
    state.sign.reported.append(state.sign.layer)
    if len(state.sign.reported) == 1:
        warnings.warn(
            f"layer {state.sign.layer!r}: {state.sign.clipped:.0%} of its first inputs lie outside [{float(low):g}, "
            f"{float(high):g}], the range of activation_quantizer={activation.method!r}, and are clipped (they reach "
            f"from {float(wide.amin()):.3g} to {float(wide.amax()):.3g}). Take a range from the data: "
            'activation_quantizer="range", or "lsq", "dsq", "lqnets", which also learn it. '
            "Other layers may do the same: wq.clipped_inputs() has all shares.",
            stacklevel=2,
        )


def _is_due(sign: InputSign, x: Tensor) -> bool:
    """Whether these inputs are looked at; not where a graph is being recorded, which cannot branch on values."""
    if torch.compiler.is_compiling() or type(x) not in (Tensor, nn.Parameter) or transforming():
        return False
    sign.seen += 1
    if not x.numel() or torch._C._get_tracing_state() is not None:
        return False
    if x.is_cuda and torch.cuda.is_current_stream_capturing():
        return False
    return sign.seen <= _ALWAYS or sign.seen % _NOW_AND_THEN == 0 or (x.is_cpu and x.numel() <= _SMALL)


def _promote(state: Signed) -> None:
    assert state.activation is not None
    state.set_signed(True)
    state.activation.take_sign()
    warnings.warn(
        f"layer {state.sign.layer!r}: its first inputs were not negative, so that they got an unsigned grid, but now "
        "there are negative ones. Inputs have a signed grid from here on, with half as many levels above zero. Say it "
        f"beforehand with activation_signed={{{state.sign.layer!r}: True}}, or show more batches to "
        "waveq.calibrate(model, batches).",
        stacklevel=2,
    )


def _ranks() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1

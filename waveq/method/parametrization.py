"""The parametrisation that makes a layer's weight a quantised one, and the state that travels in the checkpoint."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Hashable
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor, nn

from waveq._kernels.gang import Gang
from waveq._kernels.interface import JointEngine
from waveq._kernels.recipe import Leaf, Plan, Rounding, Wave, number
from waveq._kernels.rounding import WeightMemory, fused_round, largest_weights
from waveq.backends import engine_for, forced, transforming
from waveq.functional import Grid, ScaleRule, grid_scale, magnitude_bits
from waveq.quantizers import ActivationQuantizer, DoReFaActivation
from waveq.quantizers.base import WeightQuantizer

__all__ = ["STATE", "FixedActivation", "WaveParametrization", "parametrization_of", "quantize_input"]

_LN2 = math.log(2.0)
_ANY = 1.0  # stands for max|w| where the engine finds it itself
_Args: TypeAlias = tuple[Any, ...]
_Kwargs: TypeAlias = dict[str, Any]

STATE = ("beta", "total_bits", "quantized", "strength", "velocity", "trend", "activation_signed", "bound")


class WaveParametrization(nn.Module):
    """One layer's weight -> quantised weight, registered through ``torch.nn.utils.parametrize``.

    beta is a leaf tensor that requires a gradient while it is learned, and a buffer: it travels in the ``state_dict``,
    and no optimizer that is built from ``model.parameters()`` sees it.

    Buffers (all 0-dim): ``beta`` float32; ``total_bits`` int64, 0 while learned; ``quantized`` bool, whether the
    forward pass uses quantised weights; ``strength`` float32, the balance of the wave against the task; ``velocity``
    float32, beta's momentum; ``trend`` float32, the running mean of beta's travel per step; ``activation_signed`` int8,
    whether inputs have a sign (-1 until the first one is seen); ``bound`` float32, the largest weight that a
    fitted range leaves.
    """

    beta: Tensor
    total_bits: Tensor
    quantized: Tensor
    strength: Tensor
    velocity: Tensor
    trend: Tensor
    activation_signed: Tensor
    bound: Tensor

    def __init__(
        self,
        quantizer: WeightQuantizer,
        *,
        beta: float,
        total_bits: int,
        quantized: bool,
        hysteresis: float,
        scale_rule: ScaleRule,
        snap: bool,
        task_moves_beta: bool,
        activation: ActivationQuantizer | None,
        device: torch.device,
        gang: Gang | None = None,
    ) -> None:
        super().__init__()
        self.quantizer = quantizer
        self.hysteresis = hysteresis
        self.scale_rule = scale_rule
        self.snap = snap
        self.task_moves_beta = task_moves_beta
        self.activation = activation
        self.memory = WeightMemory()
        self.rounding = 0  # open blocks of ``WaveQ.rounded``; no buffer, so that no checkpoint can hold one
        self.quantizes_inputs_always = False  # whether inputs are quantised where weights are not
        self.unrectified: Tensor | None = None  # an input on its way here whose ReLU was left out
        self.gang = Gang() if gang is None else gang
        for name, value, dtype in (
            ("beta", beta, torch.float32),
            ("total_bits", total_bits, torch.int64),
            ("quantized", quantized, torch.bool),
            ("strength", 1.0, torch.float32),
            ("velocity", 0.0, torch.float32),
            ("trend", 0.0, torch.float32),
            ("activation_signed", -1, torch.int8),
            ("bound", math.inf, torch.float32),
        ):
            self.register_buffer(name, torch.tensor(value, dtype=dtype, device=device))
        self._mirror()

    def _mirror(self) -> None:
        """Copy what decides control flow out of the buffers, so that a forward pass never waits for the device."""
        self._seen = self._marks()
        self.bits_now = int(self.total_bits)
        self.is_quantized = bool(self.quantized)
        self.signed_now = int(self.activation_signed)
        self.settled = self.signed_now >= 0
        self.beta = self.beta.detach().requires_grad_(self.learns)

    def _marks(self) -> tuple[int, ...]:
        """Other ones when anybody wrote those buffers: moving averages of models copy them without asking."""
        kept: dict[str, Any] = self._buffers  # found without nn.Module's search, which takes longer than the rest
        return kept["total_bits"]._version, kept["quantized"]._version, kept["activation_signed"]._version

    @property
    def activation_bits(self) -> int | None:
        """Bits of the layer's inputs; None leaves them in floating point."""
        return None if self.activation is None else self.activation.bits

    @property
    def learns(self) -> bool:
        """Whether the bits are still free."""
        return self.bits_now == 0

    @property
    def grid(self) -> Grid:
        """The grid at the present bits."""
        return self.quantizer.grid(self.bits_now or None)

    def set_quantized(self, value: bool) -> None:
        """Whether the forward pass uses quantised weights."""
        self.quantized.fill_(value)
        self.is_quantized, self._seen = value, self._marks()

    @property
    def quantizes_inputs(self) -> bool:
        """Whether inputs are quantised at present."""
        return self.activation is not None and (self.is_quantized or self.quantizes_inputs_always)

    def may_rectify(self, rectifier: nn.Module) -> bool:
        """Whether the input quantiser does the work of a ReLU before it, were it not for the tensor's kind.

        Only from the step on that follows the first input: a backward pass that computes its forward pass again
        (activation checkpointing) must find the ReLU as it was.
        """
        if self._seen != self._marks():
            self._mirror()
        if not (self.settled and self.signed_now == 0 and self.quantizes_inputs):
            return False
        return cast(ActivationQuantizer, self.activation).replaces(rectifier)

    def rectifies(self, rectifier: nn.Module, x: Any) -> bool:
        """Whether the input quantiser does the work of a ReLU before it for this input."""
        if not isinstance(x, Tensor) or x.is_meta or not self.may_rectify(rectifier):
            return False
        return cast(ActivationQuantizer, self.activation).saves_rectifying(x)

    def end_step(self) -> None:
        """What holds from the next step on; frees the quantised weights and beta's gradient."""
        self.memory.clear()
        if self._seen != self._marks():
            self._mirror()
        kept: dict[str, Any] = self._buffers  # by the dictionary, as in ``_marks``; setting attributes is slow as well
        kept["beta"].grad = None
        if not self.settled:
            self.settled = self.signed_now >= 0

    @torch.no_grad()
    def freeze(self, total_bits: int) -> None:
        """Fix the bits; beta stays as it was learned."""
        self.total_bits.fill_(total_bits)
        self._mirror()

    def wave_beta(self) -> Tensor:
        """The beta that sets the grid: the learned one; once frozen no more than the bits, with ``snap`` just them."""
        if self.learns:
            return self.beta
        return self.bits() if self.snap else torch.minimum(self.beta, self.bits() + self.hysteresis)

    def bits(self) -> Tensor:
        """b: magnitude bits, 0-dim float32, no gradient."""
        if self.learns:
            return magnitude_bits(self.beta, self.hysteresis)
        return (self.total_bits - 1).float()

    def stretch(self) -> Tensor:
        """c(beta), 0-dim; 1 where beta equals the bits."""
        beta = self.wave_beta()
        if not self.task_moves_beta:
            beta = beta.detach()
        return grid_scale(beta, self.bits(), grid=self.grid, rule=self.scale_rule)

    def quantize(self, weight: Tensor) -> Tensor:
        """The layer's weights on their grid, in the weights' dtype; computed in float32 at least."""
        wide = weight.float() if weight.dtype in (torch.float16, torch.bfloat16) else weight
        if self.bits_now == 1:
            return self.quantizer.binarize(wide).to(weight.dtype)
        fused = self._quantize_fused(weight)
        if fused is not None:
            return fused
        quantized: Tensor = self.quantizer(wide, self.bits(), self.stretch())
        return quantized.to(weight.dtype)

    def _quantize_fused(self, weight: Tensor) -> Tensor | None:
        """The same by a compiled kernel, once for a weight as long as it does not change; None where there is none."""
        engine = engine_for(weight) if self.quantizer.compiles() else None
        if engine is None:
            return None
        if engine.joint and torch.is_grad_enabled() and self.joins(weight):
            return self.gang.read(self, weight, cast(JointEngine, engine))
        # in evaluation averaged weights may come and go through .data, which leaves no trace
        memory = self.memory if self.training else WeightMemory()
        (largest,) = largest_weights(engine, [weight], [memory])
        if engine.plain_numbers and self.scale_rule == "exact":
            rounding = self._rounding(weight, number(largest), self.wave_number(), self.grid)
            return fused_round(engine, weight, rounding, memory, self.values_key())
        rounding = self.quantizer.rounding_recipe(weight, largest, self.bits(), self.stretch())
        # on a GPU beta's version stands for its value, which would have to be waited for
        beta = (id(self.beta), self.beta._version, self.bits_now, self.hysteresis, self.scale_rule, self.snap)
        key = (*beta, *self._learned_versions())
        return fused_round(engine, weight, rounding, memory, key)

    def joins(self, weight: Tensor) -> bool:
        """See ``gang.Member``: half precision, evaluation and inexact stretches go layer by layer."""
        return (
            weight.dtype is torch.float32
            and weight.is_cpu
            and self.training
            and self.is_quantized
            and self.bits_now != 1
            and self.scale_rule == "exact"
        )

    def values_key(self) -> Hashable:
        """See ``gang.Member``."""
        beta: Any = self._buffers["beta"]
        return self.bits_now, beta.item(), id(beta), forced(), *self._learned_versions()

    def _learned_versions(self) -> tuple[int, ...]:
        quantizer: Any = self._modules["quantizer"]
        learned: dict[str, Any] = quantizer._parameters
        if not learned:
            return ()
        # which tensors they are counts too: a plan hands gradients to those that it was made with, and loading
        # weights or moving the model may put others in their place
        return tuple(mark for parameter in learned.values() for mark in (id(parameter), parameter._version))

    def plan(self, weight: Tensor) -> Plan:
        """See ``gang.Member``."""
        order, beta, quantizer = self.gang.order, self.wave_number(), self._quantizer()
        grid = quantizer.grid(self.bits_now or None)
        rounding = self._rounding(weight, _ANY, beta, grid)
        if order is None:
            return Plan(rounding)
        return Plan(rounding, Wave(quantizer.coordinate_recipe(weight, _ANY, beta), beta, grid, order))

    def read(self, weight: Tensor) -> Tensor | None:
        """The quantised weight, where all is as usual in training; None asks for the long way."""
        if not (self.training and self.is_quantized and torch.is_grad_enabled()) or transforming():
            return None
        if self._seen != self._marks():
            return None
        seen = self.gang.remembered(self, weight)
        if seen is None:
            engine = engine_for(weight) if self.joins(weight) and self._quantizer().compiles() else None
            if engine is None or not engine.joint:
                return None
            seen = self.gang.fill(self, weight, cast(JointEngine, engine))
        return self.gang.hand_out(self, seen)

    def riding_wave(self, weight: Tensor) -> tuple[Tensor, int] | None:
        """R_k of the weights as they were read last, differentiable; None where they have to be walked over again.

        A vector with the waves of several layers, and this layer's place in it.
        """
        if self.gang.order is None or self._seen != self._marks() or not (self.training and torch.is_grad_enabled()):
            return None
        return None if torch.compiler.is_compiling() or transforming() else self.gang.wave(self, weight)

    def _rounding(self, weight: Tensor, largest: float, beta: float, grid: Grid) -> Rounding:
        """The recipe in plain numbers; a dozen 0-dim tensors cost more."""
        bits = self.bits_at(beta) if self.bits_now == 0 else float(self.bits_now - 1)
        growth, deficit = 2.0**beta, grid.deficit
        rounding = self._quantizer().rounding_recipe(weight, largest, bits, (2.0**bits - deficit) / (growth - deficit))
        by_task, by_wave = self.task_moves_beta, self.gang.sine_moves_beta
        if self.bits_now == 0 and (by_task or by_wave):
            # d ln(stretch) / d beta, of which the pitch is a multiple
            slope = -_LN2 * growth / (growth - deficit) if by_task else 0.0
            leaf = Leaf(cast(Tensor, self._buffers["beta"]), pitch=number(rounding.pitch) * slope, by_wave=by_wave)
            rounding.leaves = (*rounding.leaves, leaf)
        return rounding

    def _quantizer(self) -> WeightQuantizer:
        return cast(WeightQuantizer, self._modules["quantizer"])

    def _beta_number(self) -> float:
        found: float = cast(Tensor, self._buffers["beta"]).item()
        return found

    def bits_number(self) -> float:
        """``bits`` as a plain number; on a GPU it has to be waited for."""
        return float(self.bits_now - 1) if self.bits_now else self.bits_at(self._beta_number())

    def bits_at(self, beta: float) -> float:
        """b where beta has come to, while bits are learned."""
        return float(math.ceil(_single(_single(beta) - _single(self.hysteresis))))

    def wave_number(self) -> float:
        """``wave_beta`` as a plain number."""
        if not self.bits_now:
            return self._beta_number()
        bits = float(self.bits_now - 1)
        return bits if self.snap else min(self._beta_number(), _single(bits + _single(self.hysteresis)))

    def forward(self, weight: Tensor) -> Tensor:
        """What the layer sees as its weight."""
        # a compiler cannot follow versions; it guards what the mirror holds, and ``end_step`` looks at them
        if not torch.compiler.is_compiling() and self._seen != self._marks():
            self._mirror()
        return self.quantize(weight) if self.is_quantized or self.rounding else weight

    @torch.no_grad()
    def level_scale(self, weight: Tensor) -> float | None:
        """Distance between neighbouring levels, in units of the weights; None where it is not one number."""
        pitch = self.quantizer.pitch(weight.float(), self.bits(), self.stretch())
        return None if pitch is None else float(pitch)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> WaveParametrization:
        """Move with the model; beta stays a float32 leaf, of which ``Module.to`` alone would make a non-leaf."""
        kept = {name: getattr(self, name).detach() for name in STATE}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, before in kept.items():
            after = getattr(self, name).detach()
            setattr(self, name, after if after.dtype == before.dtype else before.to(after.device))
        self.beta.requires_grad_(self.learns)
        self._seen = self._marks()
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        state_dict.setdefault(f"{prefix}bound", self.bound)  # checkpoints from before there was a float road
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._mirror()


def _single(value: float) -> float:
    """Rounded to float32, so that plain numbers decide as the tensors do."""
    return float(np.float32(value))


def parametrization_of(module: nn.Module) -> WaveParametrization:
    """The parametrisation of an attached layer's weight."""
    found = module.parametrizations.weight[0]  # type: ignore[union-attr, index]
    assert isinstance(found, WaveParametrization)
    return found


class FixedActivation:
    """The input quantiser that a finalised layer keeps: nothing of it is in the ``state_dict``.

    Attributes:
        bits: bits of the inputs.
        signed: whether inputs have a sign.
        quantizer: the method with its ranges or levels as they were learned; None is DoReFa's, which has none.
    """

    def __init__(self, bits: int, *, signed: bool, quantizer: ActivationQuantizer | None = None) -> None:
        self.bits, self.signed = bits, signed
        self.quantizer = DoReFaActivation(bits) if quantizer is None else copy.deepcopy(quantizer).eval()
        self.quantizer.requires_grad_(False)

    def __call__(self, _module: nn.Module, args: _Args, kwargs: _Kwargs | None = None) -> _Args | tuple[_Args, _Kwargs]:
        """A forward pre-hook, with keywords or without."""
        x = args[0] if args else (kwargs or {})["input"]
        if not x.is_meta:  # otherwise a dry run for shapes
            for tensor in self.quantizer.state_dict().values():
                if tensor.device != x.device:  # it is no part of the model, so that model.to() does not move it
                    self.quantizer.to(x.device)
            x = self.quantizer(x, signed=self.signed)
        changed = _with_input(x, args, kwargs or {})
        return changed[0] if kwargs is None else changed


def quantize_input(module: nn.Module, args: _Args, kwargs: _Kwargs) -> tuple[_Args, _Kwargs] | None:
    """Forward pre-hook, with keywords: quantise a layer's input where its parametrisation says so."""
    state = parametrization_of(module)
    if state.activation is None or not state.quantizes_inputs:
        return None
    x = args[0] if args else kwargs["input"]
    if x.is_meta:
        return None
    if (unrectified := state.unrectified) is not None:
        state.unrectified = None
        if x is unrectified:
            return _with_input(state.activation.rectified(x), args, kwargs)
    if state.signed_now < 0:
        _look_for_signs(state, x.detach())
    return _with_input(state.activation(x, signed=state.signed_now == 1), args, kwargs)


def _with_input(x: Tensor, args: _Args, kwargs: _Kwargs) -> tuple[_Args, _Kwargs]:
    return ((x, *args[1:]), kwargs) if args else (args, {**kwargs, "input": x})


def _look_for_signs(state: WaveParametrization, x: Tensor) -> None:
    """Whether inputs have a sign; a batch of zeros (a dry run for shapes) does not tell."""
    if bool((x != 0).any()):
        state.signed_now = int(bool((x < 0).any()))
        state.activation_signed.fill_(state.signed_now)
        state._seen = state._marks()

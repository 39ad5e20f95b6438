"""The parametrisation that makes a layer's weight a quantised one, and the state that travels in the checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from waveq._kernels.backends import engine_for, transforming
from waveq._kernels.constants import constants
from waveq._kernels.groups import Groups, Memory, round_alone
from waveq._kernels.parts import Parts
from waveq._kernels.rounding import Sines, stacked
from waveq.functional import Grid, ScaleRule, exact_scale, frequency, grid_scale, magnitude_bits
from waveq.method.frozen import Frozen
from waveq.method.idle_scales import with_idle
from waveq.method.input_bits import InputBits
from waveq.method.input_signs import InputSign
from waveq.method.kept_weights import KeptWeight, can_keep
from waveq.method.notes import noted
from waveq.method.seal import seal_of, warn_averaged, was_averaged
from waveq.method.settling import BLOCKS
from waveq.method.watched import Watched
from waveq.quantizers import ActivationQuantizer
from waveq.quantizers.activation import DataStarted
from waveq.quantizers.base import WeightQuantizer

__all__ = ["STATE", "WaveParametrization", "parametrization_of"]

STATE = ("beta", "total_bits", "quantized", "strength", "velocity", "trend", "activation_signed", "bound", "seal")
_UNBOUNDED = torch.finfo(torch.float32).max  # finite, for those who check that all of a checkpoint is


class WaveParametrization(nn.Module):
    """One layer's weight -> quantised weight, registered through ``torch.nn.utils.parametrize``.

    beta is a leaf tensor that requires a gradient while it is learned, and a buffer: it travels in the ``state_dict``,
    and no optimizer that is built from ``model.parameters()`` sees it.

    Buffers (0-dim but for two): ``beta`` float32; ``total_bits`` int64, 0 while learned; ``quantized`` int8, whether
    the forward pass uses quantised weights; ``strength`` float32, the balance of the wave against the task;
    ``velocity`` float32, beta's momentum; ``trend`` (8,) float32, beta's travel in the blocks of ``settling``;
    ``activation_signed`` int8, whether inputs have a sign (-1 until the first one is seen); ``bound`` float32, the
    largest weight that a fitted range leaves, the largest of all numbers until one is fitted, (C,) where C channels
    have levels of their own; ``seal`` int64, see ``seal``.
    """

    beta: Tensor
    total_bits: Tensor
    quantized: Tensor
    strength: Tensor
    velocity: Tensor
    trend: Tensor
    activation_signed: Tensor
    bound: Tensor
    seal: Tensor

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
        groups: Groups | None = None,
        inputs: InputBits | None = None,
    ) -> None:
        super().__init__()
        self.quantizer = quantizer
        self.first_beta = beta
        self.hysteresis = hysteresis
        self.scale_rule = scale_rule
        self.snap = snap
        self.task_moves_beta = task_moves_beta
        self.activation = activation
        self.frozen: Frozen | None = None  # only where freezing is asked for
        self.inputs = inputs  # the bits of ``activation``, where they are learned
        self.memory = Memory()
        self.kept = KeptWeight()
        self.rounding = 0  # open blocks of ``WaveQ.rounded``; no buffer, so that no checkpoint can hold one
        self.quantizes_inputs_always = False  # whether inputs are quantised where weights are not
        self.attached_bits = total_bits  # 0 where they were to be learned
        self.total_steps: int | None = None  # of the run; a note for checkpoints
        self.sign = InputSign()
        self.observer: Callable[[Tensor], None] | None = None  # sees inputs instead of the quantiser (``calibrate``)
        self.reads = self.input_calls = 0  # of the weight, and of the input quantiser
        self.compiled = False  # whether a compiled graph reads the weight, which counts nothing
        self.ran_somewhere = False  # whether a rank is known to have read it
        self.watched: Watched | None = None
        self.unrectified: Tensor | None = None  # an input on its way here whose ReLU was left out
        self.groups = Groups() if groups is None else groups
        for name, value, dtype in (
            ("beta", beta, torch.float32),
            ("total_bits", total_bits, torch.int64),
            ("quantized", quantized, torch.int8),
            ("strength", 1.0, torch.float32),
            ("velocity", 0.0, torch.float32),
            ("trend", [0.0] * BLOCKS, torch.float32),
            ("activation_signed", -1, torch.int8),
            ("bound", _UNBOUNDED if quantizer.channels is None else [_UNBOUNDED] * quantizer.numbers, torch.float32),
            ("seal", seal_of(total_bits, quantized), torch.int64),
        ):
            self.register_buffer(name, torch.tensor(value, dtype=dtype, device=device))
        self.seal_now = int(self.seal)  # as the run itself wrote it last
        self._mirror()

    def _mirror(self) -> None:
        """Copy what decides control flow out of the buffers, so that a forward pass never waits for the device."""
        if was_averaged(self.seal, self.seal_now, int(self.total_bits), int(self.quantized)):
            self._restore()
        self._seen = self._marks()
        self.bits_now = int(self.total_bits)
        self.is_quantized = bool(self.quantized)
        self.signed_now = int(self.activation_signed)
        self.settled = self.signed_now >= 0
        self.beta = self.beta.detach().requires_grad_(self.learns)
        self._put_seal()

    def _put_seal(self) -> None:
        self.seal_now = seal_of(self.bits_now, self.is_quantized)
        self.seal.fill_(self.seal_now)

    def _restore(self) -> None:
        """Bits, and whether they are used, as they were before somebody averaged them."""
        warn_averaged(f"{int(self.total_bits)} bits of a layer", f"{self.bits_now or 'learned'} bits")
        self.total_bits.fill_(self.bits_now)
        self.quantized.fill_(self.is_quantized)
        self.activation_signed.fill_(self.signed_now)

    def _marks(self) -> tuple[int, ...]:
        """Other ones when anybody wrote those buffers: moving averages of models copy them without asking."""
        kept: dict[str, Any] = self._buffers  # found without nn.Module's search, which takes longer than the rest
        return kept["total_bits"]._version, kept["quantized"]._version, kept["activation_signed"]._version

    @property
    def activation_bits(self) -> int | None:
        """Bits of the layer's inputs; None leaves them in floating point."""
        return None if self.activation is None else self.activation.bits

    @property
    def ran(self) -> bool:
        """Whether anybody has read the weight so far, in training or evaluation."""
        return self.compiled or self.reads > 0 or self.ran_somewhere

    @property
    def learns(self) -> bool:
        """Whether the bits are still free."""
        return self.bits_now == 0

    @property
    def grid(self) -> Grid:
        """The grid at the present bits."""
        quantizer: Any = self._modules["quantizer"]
        found: Grid = quantizer.grid(self.bits_now or None)
        return found

    def set_quantized(self, value: bool) -> None:
        """Whether the forward pass uses quantised weights."""
        self.quantized.fill_(value)
        self.is_quantized, self._seen = value, self._marks()
        self._put_seal()

    def set_signed(self, value: bool) -> None:
        """Whether inputs have a sign."""
        self.activation_signed.fill_(value)
        self.signed_now, self._seen = int(value), self._marks()

    @property
    def quantizes_inputs(self) -> bool:
        """Whether inputs are quantised at present."""
        if self.activation is None or self.observer is not None:
            return False
        return self.is_quantized or self.quantizes_inputs_always

    def may_rectify(self, rectifier: nn.Module) -> bool:
        """Whether the input quantiser does the work of a ReLU before it, were it not for the tensor's kind.

        Only from the step on that follows the first input: a backward pass that computes its forward pass again
        (activation checkpointing) must find the ReLU as it was.
        """
        if self._seen != self._marks():
            self._mirror()
        if not (self.settled and self.signed_now == 0 and self.quantizes_inputs):
            return False
        if self.inputs is not None and not self.inputs.settled:
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
        self.kept.clear()
        if self._seen != self._marks():
            self._mirror()
        kept: dict[str, Any] = self._buffers  # by the dictionary, as in ``_marks``; setting attributes is slow as well
        kept["beta"].grad = None
        if self.inputs is not None:
            self.inputs.end_step()
        if self.signed_now >= 0 and not self.settled:
            self.settled = True

    @torch.no_grad()
    def freeze(self, total_bits: int) -> None:
        """Fix the bits; beta stays as it was learned."""
        self.total_bits.fill_(total_bits)
        self._mirror()

    @torch.no_grad()
    def follow(self, other: WaveParametrization) -> None:
        """Take over all buffers: bits, signs and what is learned beside the optimizer; parameters stay."""
        for own, theirs in zip(self.buffers(), other.buffers(), strict=True):
            own.detach().copy_(theirs.to(own.device))
        self._mirror()
        for mine, yours in zip(self.modules(), other.modules(), strict=True):
            if isinstance(mine, DataStarted) and isinstance(yours, DataStarted):
                mine._begun = yours._begun
        if self.inputs is not None:
            self.inputs.notice()

    def settle(self, beta: Tensor, total_bits: Tensor | None) -> tuple[Tensor, Tensor]:
        """What follows from beta, elementwise, for layers that were attached alike.

        Args:
            beta: 0-dim, or (L,) for L layers.
            total_bits: the same shape; 0 where bits are learned, None where all of them are.

        Returns:
            b, magnitude bits, without gradient; the beta that sets the grid: the learned one, once frozen no more than
            the bits, with ``snap`` just them.
        """
        bits, wave_beta = magnitude_bits(beta, self.hysteresis), beta
        if total_bits is not None:
            learned = total_bits == 0
            bits = torch.where(learned, bits, (total_bits - 1).to(beta.dtype))
            settled = bits if self.snap else torch.minimum(beta, bits + self.hysteresis)
            wave_beta = torch.where(learned, beta, settled)
        return bits, wave_beta

    def stretch_of(self, wave_beta: Tensor, bits: Tensor, grid: Grid) -> Tensor:
        """c(beta), elementwise; 1 where the beta that sets the grid equals the bits."""
        moving = wave_beta if self.task_moves_beta else wave_beta.detach()
        return grid_scale(moving, bits, grid=grid, rule=self.scale_rule)

    def settle_alike(self, layers: Sequence[Any], grid: Grid, parts: Parts | None) -> tuple[Tensor, ...]:
        """See ``rounding.Layer``: for L layers that were attached alike.

        Args:
            layers: their parametrisations.
            grid: theirs.
            parts: the rows of each; None for one.
        """
        betas, fixed = [layer._buffers["beta"] for layer in layers], tuple(layer.bits_now for layer in layers)
        if all(fixed) and betas[0].is_cpu:  # nothing moves: kept from step to step, as long as nobody writes to a beta
            key = fixed, grid, parts, *[beta.item() for beta in betas]
            if self.__dict__.get("_fixed_key") != key:
                with torch.inference_mode(False), torch.no_grad():
                    self.__dict__["_fixed"] = self._settle_all(
                        betas, constants(fixed, torch.int64, betas[0].device), grid, parts
                    )
                self.__dict__["_fixed_key"] = key
            found: tuple[Tensor, ...] = self.__dict__["_fixed"]
            return found
        total_bits = constants(fixed, torch.int64, betas[0].device) if any(fixed) else None
        return self._settle_all(betas, total_bits, grid, parts)

    def _settle_all(
        self, betas: Sequence[Tensor], total_bits: Tensor | None, grid: Grid, parts: Parts | None
    ) -> tuple[Tensor, ...]:
        beta = stacked(betas, parts)
        if parts is not None and total_bits is not None:
            total_bits = parts.spread(total_bits)
        bits, at = self.settle(beta, total_bits)
        steps, periods = frequency(bits, grid), frequency(at, grid)
        if self.scale_rule == "exact":
            stretch = exact_scale(steps, periods if self.task_moves_beta else periods.detach())
        else:
            stretch = self.stretch_of(at, bits, grid)
        return beta, bits, at, steps, periods, stretch

    def wave_beta(self) -> Tensor:
        """The beta that sets the grid, 0-dim; see ``settle``."""
        return self._settled()[1]

    def bits(self) -> Tensor:
        """b: magnitude bits, 0-dim, no gradient."""
        return self._settled()[0]

    def stretch(self) -> Tensor:
        """c(beta), 0-dim."""
        bits, wave_beta = self._settled()
        return self.stretch_of(wave_beta, bits, self.grid)

    def _settled(self) -> tuple[Tensor, Tensor]:
        return self.settle(self.beta, None if self.learns else self.total_bits)

    def quantize(self, weight: Tensor) -> Tensor:
        """The layer's weights on their grid, in the weights' dtype; computed in float32 at least."""
        wide = weight.float() if weight.dtype in (torch.float16, torch.bfloat16) else weight
        if self.bits_now == 1:
            return self.quantizer.binarize(wide).to(weight.dtype)
        engine = engine_for(weight) if self.quantizer.compiles("forward") else None
        if engine is not None:
            if torch.is_grad_enabled() and self.joins():
                return self.groups.read(self, weight, engine)
            return round_alone(self, weight, engine)
        bits, wave_beta = self._settled()
        quantized: Tensor = self.quantizer(wide, bits, self.stretch_of(wave_beta, bits, self.grid))
        return quantized.to(weight.dtype)

    def read(self, weight: Tensor) -> Tensor | None:
        """The quantised weight, where all is as usual; None asks for the long way."""
        if can_keep(weight) and not self.groups.alone:
            if not (self.is_quantized or self.rounding) or self._seen != self._marks():
                return None
            kept = self.kept.current(weight, (self.bits_now, id(self._buffers["beta"])))
            return None if kept is None else self._counted(kept)
        if not (self.joins() and torch.is_grad_enabled()) or transforming() or self._seen != self._marks():
            return None
        found = self.groups.remembered(self, weight)
        if found is None:
            engine = engine_for(weight) if self.quantizer.compiles("forward") else None
            found = None if engine is None else self.groups.read(self, weight, engine)
        return None if found is None else self._counted(found)

    def _counted(self, weight: Tensor) -> Tensor:
        """The weight that somebody reads."""
        kept = self.__dict__  # past nn.Module's own way to set attributes, which takes longer
        kept["reads"] += 1
        if (watched := kept["watched"]) is not None:
            watched.hand_out(weight)
        return weight

    def joins(self) -> bool:
        """See ``groups.Reader``."""
        return self.training and self.is_quantized and self.bits_now != 1 and not self.groups.alone

    def marks(self) -> Hashable:
        """See ``groups.Reader``."""
        kept: dict[str, Any] = self._buffers  # by the dictionaries, as in ``_marks``
        quantizer: Any = self._modules["quantizer"]
        beta, learned = kept["beta"], quantizer._parameters
        # on a GPU beta's version stands for its value, which would have to be waited for; which tensors they are counts
        # too: gradients go to those that the node was made with, and loading weights may put others in their place
        value = beta.item() if beta.is_cpu else beta._version
        marks = self.bits_now, value, id(beta)
        return (*marks, *[mark for p in learned.values() for mark in (id(p), p._version)]) if learned else marks

    def riding(self, weight: Tensor) -> tuple[Sines, int] | None:
        """The waves of the group that the weights were last read in, and the layer's place there.

        None where they were not read as they are now, or without the wave.
        """
        if (
            not torch.is_grad_enabled()
            or self._seen != self._marks()
            or torch.compiler.is_compiling()
            or transforming()
        ):
            return None
        group = self.memory.current(self, weight)
        return None if group is None or group.sines is None else (group.sines, self.memory.place)

    def forward(self, weight: Tensor) -> Tensor:
        """What the layer sees as its weight."""
        # a compiler cannot follow versions; it guards what the mirror holds, and ``end_step`` looks at them
        if torch.compiler.is_compiling():
            self.compiled = True
            return self.quantize(weight) if self.is_quantized or self.rounding else weight
        if self._seen != self._marks():
            self._mirror()
        if self.is_quantized or self.rounding:
            return self._counted(
                self._quantize_once(weight) if can_keep(weight) and not self.groups.alone else self.quantize(weight)
            )
        self.__dict__["reads"] += 1
        return with_idle(weight, [each for each in self.parameters() if each.requires_grad])

    def _quantize_once(self, weight: Tensor) -> Tensor:
        """``quantize`` where no gradient is asked for: made anew only when something has changed."""
        marks = self.bits_now, id(self.beta)
        found = self.kept.current(weight, marks)
        if found is None:
            quantizer: Any = self._modules["quantizer"]
            beside = [self.beta, *quantizer.parameters(), *quantizer.buffers()]
            with torch.inference_mode(False), torch.no_grad():  # a tensor that any mode can use later
                found = self.quantize(weight)
            self.kept.keep(weight, marks, beside, found)
        return found

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
        state_dict.setdefault(f"{prefix}seal", self.seal)
        state_dict.setdefault(f"{prefix}_extra_state", self.get_extra_state())  # and before they said what they fit
        if f"{prefix}trend" in state_dict and state_dict[f"{prefix}trend"].ndim == 0:
            state_dict[f"{prefix}trend"] = torch.zeros_like(self.trend)  # checkpoints from when it was a running mean
        if self.inputs is None:  # a run that learned them may go on with the bits that it found
            for key in [key for key in state_dict if key.startswith(f"{prefix}inputs.")]:
                del state_dict[key]
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.bound.clamp_(max=_UNBOUNDED)  # which was infinite in older ones
        self._mirror()

    def get_extra_state(self) -> Tensor:
        """How the layer was attached, for the one that loads it to compare; see ``fingerprint``."""
        return noted(
            {
                "version": 1,
                "quantizer": self.quantizer.method,
                "scale": self.quantizer.scale,
                "granularity": self.quantizer.granularity,
                "inputs": None if self.activation is None else self.activation.method,
                "input_bits": self.activation_bits if self.inputs is None else "learn",
                "bits": self.attached_bits,
                "total_steps": self.total_steps,
            }
        )

    def set_extra_state(self, state: Any) -> None:
        """It was compared before anything was loaded."""


def parametrization_of(module: nn.Module, tensor: str = "weight") -> WaveParametrization:
    """The parametrisation of an attached layer's weight."""
    found = module.parametrizations[tensor][0]  # type: ignore[index]
    assert isinstance(found, WaveParametrization)
    return found

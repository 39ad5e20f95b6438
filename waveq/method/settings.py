"""What ``attach`` decided for a model and for each of its layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from waveq._kernels.sharded import gathered
from waveq.method.budget import AnyBudget
from waveq.method.options import Forward, Method
from waveq.method.pair_costs import PairCosts
from waveq.method.parametrization import WaveParametrization
from waveq.method.presets import Preset
from waveq.method.schedules import Course, Schedule
from waveq.quantizers import WeightQuantizer
from waveq.quantizers.base import Granularity

__all__ = ["Settings", "WaveLayer"]


class Counter(Protocol):
    """``multiplications.Multiplications``."""

    def settle(self) -> bool:
        """At the first step: keep the counts; whether they were not known before."""


@dataclass(frozen=True)
class WaveLayer:
    """A quantised weight: its name, every module that uses it, and their common parametrisation."""

    name: str
    modules: tuple[nn.Module, ...]
    state: WaveParametrization
    tensors: tuple[str, ...] = ("weight",)
    """Their names for it."""

    @property
    def weight(self) -> nn.Parameter:
        """The float weight under training; ``module.weight`` is the quantised one."""
        found: Any = self.modules[0]  # by the dictionaries, because nn.Module's own search takes longer than the rest
        original: nn.Parameter = found._modules["parametrizations"]._modules[self.tensors[0]]._parameters["original"]
        return original

    @property
    def values(self) -> Tensor:
        """The float weight without gradient; a sharded one is gathered, for which every process must ask."""
        return gathered(self.weight.detach())

    def kept(self, name: str) -> Tensor:
        """A buffer of the parametrisation; found by the dictionary, for the same reason."""
        found: Any = self.state._buffers[name]
        return found  # type: ignore[no-any-return]

    @property
    def beta(self) -> float:
        """Real magnitude bits; once frozen as they were learned."""
        found: float = self.state.beta.detach().item()
        return found

    @property
    def total_bits(self) -> int:
        """Whole total bits, as they are or would be frozen now."""
        return int(self.state.bits()) + 1

    @property
    def real_bits(self) -> float:
        """Total bits, beta + 1 while they are learned."""
        return self.beta + 1.0 if self.state.learns else float(self.state.bits_now)

    @property
    def ran(self) -> bool:
        """Whether anybody has read the weight so far."""
        return self.state.ran

    @property
    def follows_bits(self) -> bool:
        """Whether the quantiser wants to know where its bits have gone."""
        return type(self.state.quantizer).follow_bits is not WeightQuantizer.follow_bits

    def follow_bits(self, before: int, now: int) -> None:
        """Tell the quantiser."""
        self.state.quantizer.follow_bits(self.values, before, now)

    def freeze(self, total_bits: int) -> None:
        """Fix the bits; with ``snap`` the levels start from the weights as they are."""
        self.state.freeze(total_bits)
        if self.state.snap:  # otherwise the grid of the learned beta stays, and its range with it
            self.state.quantizer.restart(self.values, total_bits)

    def wave_input(self, wave_on: Literal["quantizer", "raw"]) -> Tensor:
        """The tensor that the wave acts on, float32 at least, differentiable in the weights."""
        weight = self.weight
        wide = weight.float() if weight.dtype in (torch.float16, torch.bfloat16) else weight
        if wave_on == "raw":
            return wide
        # An all-zero layer divides by its largest weight's stand-in, which would blow the crest's rounding noise up.
        quantizer = self.state.quantizer
        alive = quantizer.spread(quantizer.largest_of(weight.detach()) != 0, weight)
        if self.state.bits_now == 1:
            return quantizer.binary_coordinate(wide) * alive
        return quantizer.coordinate(wide, self.state.wave_beta().detach()) * alive


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What ``attach`` decided, after presets and overrides."""

    preset: Preset
    quantizer: str
    schedule: Schedule
    total_steps: int | None
    wave_on: Literal["quantizer", "raw"]
    order: int
    balance: bool
    beta_lr: float
    beta_range: tuple[float, float]
    travel: float
    """How far a beta may have to go, in bits."""
    bit_costs: Mapping[str, float]
    """What one bit of each operand costs, with mean 1, where that does not depend on other bits."""
    budget: AnyBudget | None
    skipped: tuple[str, ...]
    granularity: Granularity = "layer"
    pairs: PairCosts | None = None
    """What layers cost by the bits of both operands, where it depends on both."""
    counter: Counter | None = None
    """Who counts the multiplications of the layers, where a budget wants them."""
    forward: Forward = "quantized"
    bounds_from: int | None = None
    """The step at which ranges are fitted; None where they are not."""
    freezing: Course | None = None
    """How weights freeze on their levels; None where they do not."""
    described: Mapping[str, Any] = field(default_factory=dict)
    method: Method = field(default_factory=Method)
    """The options themselves, with the model's own names for its layers."""

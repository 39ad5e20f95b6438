"""What ``attach`` decided for a model and for each of its layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from waveq.method.budget import Budget
from waveq.method.options import Forward, Method
from waveq.method.parametrization import WaveParametrization
from waveq.method.presets import Preset
from waveq.method.schedules import Course, Schedule
from waveq.quantizers.base import Granularity

__all__ = ["Settings", "WaveLayer"]


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
    bit_costs: Mapping[str, float]
    budget: Budget | None
    skipped: tuple[str, ...]
    granularity: Granularity = "layer"
    forward: Forward = "quantized"
    bounds_from: int | None = None
    """The step at which ranges are fitted; None where they are not."""
    freezing: Course | None = None
    """How weights freeze on their levels; None where they do not."""
    described: Mapping[str, Any] = field(default_factory=dict)
    method: Method = field(default_factory=Method)
    """The options themselves, with the model's own names for its layers."""

"""What has bits of its own: the weight of a layer and, where they are learned too, its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from waveq.method.input_bits import InputBits
from waveq.method.operand_names import input_name
from waveq.method.settings import WaveLayer

__all__ = ["InputOperand", "Operand", "operands_of", "preset_inputs", "real_bits"]


class BitState(Protocol):
    """The module that holds an operand's beta."""

    hysteresis: float
    first_beta: float
    beta: Tensor
    trend: Tensor
    bits_now: int

    @property
    def learns(self) -> bool:
        """Whether the bits are still free."""


class Operand(Protocol):
    """A weight (``WaveLayer``) or the inputs of a layer (``InputOperand``)."""

    @property
    def name(self) -> str:
        """In messages, and among all operands."""

    @property
    def state(self) -> BitState:
        """Where its beta lives."""

    @property
    def beta(self) -> float:
        """Total bits less one, real; once frozen as they were learned."""

    @property
    def total_bits(self) -> int:
        """Whole total bits, as they are or would be frozen now."""

    @property
    def ran(self) -> bool:
        """Whether the layer ran so far."""

    @property
    def follows_bits(self) -> bool:
        """Whether ``follow_bits`` does anything."""

    def kept(self, name: str) -> Tensor:
        """A buffer of the state."""

    def follow_bits(self, before: int, now: int) -> None:
        """beta has moved from one number of whole total bits to another one, or within one."""

    def freeze(self, total_bits: int) -> None:
        """Fix the bits."""


@dataclass(frozen=True)
class InputOperand:
    """The inputs of a layer, whose bits are learned."""

    layer: WaveLayer

    @property
    def name(self) -> str:
        """The layer's with a word behind it."""
        return input_name(self.layer.name)

    @property
    def state(self) -> InputBits:
        """Where beta lives."""
        found = self.layer.state.inputs
        assert found is not None
        return found

    @property
    def beta(self) -> float:
        """Total bits less one, real."""
        found: float = self.state.beta.detach().item()
        return found

    @property
    def total_bits(self) -> int:
        """Whole total bits."""
        return int(self.state.bits()) + 1

    @property
    def ran(self) -> bool:
        """Whether the layer ran."""
        return self.layer.state.ran

    @property
    def follows_bits(self) -> bool:
        """Always: ranges start anew."""
        return True

    def kept(self, name: str) -> Tensor:
        """A buffer; found by the dictionary, as ``WaveLayer.kept`` does."""
        found: Any = self.state._buffers[name]
        return found  # type: ignore[no-any-return]

    def follow_bits(self, before: int, now: int) -> None:
        """The quantiser takes the bits."""
        self.state.follow_bits(now, signed=self.layer.state.signed_now == 1)

    def freeze(self, total_bits: int) -> None:
        """Fix the bits."""
        self.state.freeze(total_bits, signed=self.layer.state.signed_now == 1)


def operands_of(layers: Sequence[WaveLayer]) -> list[Operand]:
    """All weights, then the inputs whose bits are or were learned.

    Args:
        layers: what ``attach`` made.
    """
    return [*layers, *(InputOperand(layer) for layer in layers if layer.state.inputs is not None)]


def preset_inputs(layers: Sequence[WaveLayer]) -> dict[str, int]:
    """Bits of the inputs that are quantised and not learned, by ``input_name``.

    Args:
        layers: what ``attach`` made.
    """
    return {
        input_name(layer.name): bits
        for layer in layers
        if layer.state.inputs is None and (bits := layer.state.activation_bits) is not None
    }


def real_bits(operands: Sequence[Operand]) -> dict[str, float]:
    """Total bits by operand, beta + 1 while they are learned; a device is waited for once."""
    learned = [operand for operand in operands if operand.state.learns]
    home = learned[0].kept("beta").device if learned else None
    betas = torch.stack([each.kept("beta").detach().to(home) for each in learned]).tolist() if learned else []
    found = dict(zip([each.name for each in learned], betas, strict=True))
    return {
        each.name: found[each.name] + 1.0 if each.name in found else float(each.state.bits_now) for each in operands
    }

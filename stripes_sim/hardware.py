"""Machines to run: an accelerator, and the family's members as its presets.

``Stripes(...)``, ``DaDianNao(...)``, ``Loom(...)`` and ``BitFusion(...)`` differ only in their defaults. The same
numbers stand in ``configs/*.toml`` with a source each; `stripes_sim.load_hardware` reads those and a user's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stripes_sim._packed import pack
from stripes_sim.bits import checked_batch, resolve_bits, stationary_bits, streamed_bits
from stripes_sim.costs import layer_costs
from stripes_sim.dataflows import dataflow_named
from stripes_sim.layers import LayerShape
from stripes_sim.parameters import UNITS, Parameters
from stripes_sim.result import Result

__all__ = ["UNITS", "Accelerator", "BitFusion", "DaDianNao", "Loom", "Stripes"]


@dataclass(frozen=True, kw_only=True)
class Accelerator(Parameters):
    """A tiled accelerator: its parameters (`UNITS` explains every one) and what it does with a workload.

    Raises:
        TypeError, ValueError: a parameter of the wrong type, out of range, or none of its choices.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        dataflow_named(self.serial).check(self)

    def run(
        self,
        layers: Sequence[LayerShape],
        weight_bits: int | Mapping[str, int],
        activation_bits: int | Mapping[str, int] = 16,
        *,
        batch: int = 1,
        default_bits: int | None = None,
        cache_bits: int | None = None,
    ) -> Result:
        """Cycles and energy of a workload at the given bits.

        Args:
            layers: the workload, in execution order (see `stripes_sim.trace`).
            weight_bits: total stored bits, 1 to 16: an int for all layers, or a mapping by name.
            activation_bits: the same for activations; layers without weights may be left out and stay at 16.
            batch: samples per run.
            default_bits: bits of layers that a mapping leaves out; without it a missing layer is an error.
            cache_bits: bits of what attention's products find stored before the run; by default their activation bits.

        Raises:
            ValueError: unknown or missing layers, bits out of range, or bits that the machine cannot hold.

        >>> from stripes_sim import LayerShape
        >>> fc = LayerShape(name="fc", kind="linear", in_channels=512, out_channels=256)
        >>> Stripes().run([fc], 8).compute_cycles, Stripes().run([fc], 4).compute_cycles
        (16, 8)
        """
        batch = checked_batch(batch)
        if cache_bits is not None:
            cache_bits = int(resolve_bits(["cache"], cache_bits, argument="cache_bits")[0])
        pack(layers)
        weight = stationary_bits(layers, weight_bits, default_bits=default_bits)
        activation = streamed_bits(layers, activation_bits, default_bits=default_bits)[:, None]
        return Result(
            hardware=self,
            layers=tuple(layers),
            weight_bits=weight,
            activation_bits=activation,
            batch=batch,
            cache_bits=cache_bits,
            costs=layer_costs(self, layers, weight, activation, batch=batch, cache_bits=cache_bits),
        )

    @property
    def macs_per_cycle(self) -> int:
        """Products of full-width operands that the array finishes per cycle at best."""
        width = np.array(self.pe_width_bits)
        return self.lane_count // int(dataflow_named(self.serial).lane_cycles(self, np.array(1.0), width, width))


@dataclass(frozen=True, kw_only=True)
class Stripes(Accelerator):
    """Bit-serial in one operand: the weights (default, what learned weight bits need) or the activations.

    ``Stripes(serial="activations")`` is the machine as published (Judd et al., MICRO 2016).
    """


@dataclass(frozen=True, kw_only=True)
class DaDianNao(Accelerator):
    """Bit-parallel baseline (Chen et al., MICRO 2014): bits do not change its time, only its traffic if packed."""

    name: str = "DaDianNao"
    serial: str = "none"
    columns: int = 1
    storage: Literal["packed", "padded"] = "padded"


@dataclass(frozen=True, kw_only=True)
class Loom(Accelerator):
    """Serial in both operands (Sharify et al., DAC 2018), with DaDianNao's peak at 16 x 16 bits."""

    name: str = "Loom"
    serial: str = "both"
    rows: int = 256


@dataclass(frozen=True, kw_only=True)
class BitFusion(Accelerator):
    """Units that split into 2-, 4- or 8-bit multipliers (Sharma et al., ISCA 2018), in its 45 nm configuration."""

    name: str = "BitFusion"
    serial: str = "spatial"
    lanes: int = 16
    columns: int = 1
    rows: int = 32
    tiles: int = 1
    pe_width_bits: int = 8
    clock_hz: float = 500e6
    weight_buffer_bytes: int = 64 * 1024
    activation_buffer_bytes: int = 32 * 1024
    output_buffer_bytes: int = 16 * 1024
    buffers: Literal["whole", "double"] = "double"
    mapping: Literal["closed", "search"] = "search"
    weight_buffer_bits_per_cycle: int = 16384
    activation_buffer_bits_per_cycle: int = 1024
    buffer_bank_bytes: int = 2048
    dram_bytes_per_s: float = 12e9
    leakage: Literal["density", "measured", "off"] = "measured"

"""Machines to run: an accelerator, and the family's members as its presets.

``Stripes(...)``, ``DaDianNao(...)``, ``Loom(...)`` and ``BitFusion(...)`` differ only in their defaults. The same
numbers stand in ``configs/*.toml`` with a source each; `stripes_sim.load_hardware` reads those and a user's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from stripes_sim._packed import Ints, pack
from stripes_sim.bits import checked_batch, resolve_bits, stationary_bits, streamed_bits
from stripes_sim.costs import layer_costs
from stripes_sim.dataflows import Sensed, dataflow_named
from stripes_sim.layers import LayerShape
from stripes_sim.parameters import UNITS, Parameters
from stripes_sim.result import Result
from stripes_sim.values import Values, checked_values

__all__ = [
    "UNITS",
    "Accelerator",
    "BitFusion",
    "DaDianNao",
    "DynamicStripes",
    "Laconic",
    "Loom",
    "Pragmatic",
    "Stripes",
]


_OPTIONS = frozenset(
    {"group_columns", "trim_zeros", "dynamic_weights", "column_registers", "first_stage_bits", "booth"}
)


@dataclass(frozen=True, kw_only=True)
class Accelerator(Parameters):
    """A tiled accelerator: its parameters (`UNITS` explains every one) and what it does with a workload.

    Raises:
        TypeError, ValueError: a parameter of the wrong type, out of range, or none of its choices.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        dataflow = dataflow_named(self.serial)
        for option in sorted(_OPTIONS - dataflow.options):
            if getattr(self, option) != getattr(Parameters, option):
                raise ValueError(
                    f"{option}={getattr(self, option)!r} says nothing of a machine with serial={self.serial!r}: "
                    "leave it out"
                )
        dataflow.check(self)

    def run(
        self,
        layers: Sequence[LayerShape],
        weight_bits: int | Mapping[str, int],
        activation_bits: int | Mapping[str, int] = 16,
        *,
        batch: int = 1,
        default_bits: int | None = None,
        cache_bits: int | None = None,
        activations: Mapping[str, Any] | None = None,
        weights: Mapping[str, Any] | None = None,
    ) -> Result:
        """Cycles and energy of a workload at the given bits.

        Args:
            layers: the workload, in execution order (see `stripes_sim.trace`).
            weight_bits: total stored bits, 1 to 16: an int for all layers, or a mapping by name.
            activation_bits: the same for activations; layers without weights may be left out and stay at 16.
            batch: samples per run.
            default_bits: bits of layers that a mapping leaves out; without it a missing layer is an error.
            cache_bits: bits of what attention's products find stored before the run; by default their activation bits.
            activations: integers that the layers multiply, by name, for machines whose cycles depend on them (dynamic,
                pragmatic, laconic, both): (samples, channels, *input_size) of a convolution, (samples, tokens,
                in_channels) of the others; `stripes_sim.capture` finds them. Results are means over runs of ``batch``
                samples. Negative ones are in two's complement.
            weights: the same of weights, as torch stores them, for machines that look at them.

        Raises:
            TypeError, ValueError: unknown or missing layers, bits out of range, bits that the machine cannot hold,
                values that do not fit, or values that the machine needs and nobody gave.

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
        values = self._values(layers, activations, weights, weight, activation, batch)
        return Result(
            hardware=self,
            layers=tuple(layers),
            weight_bits=weight,
            activation_bits=activation,
            batch=batch,
            cache_bits=cache_bits,
            values=values,
            costs=layer_costs(self, layers, weight, activation, batch=batch, cache_bits=cache_bits, values=values),
        )

    def _values(
        self,
        layers: Sequence[LayerShape],
        activations: Mapping[str, Any] | None,
        weights: Mapping[str, Any] | None,
        weight_bits: Ints,
        activation_bits: Ints,
        batch: int,
    ) -> Values | None:
        if activations is None and weights is None:
            return None
        dataflow = dataflow_named(self.serial)
        if not isinstance(dataflow, Sensed):
            raise ValueError(
                f"{self.name} ({dataflow.title}) takes the same time for all values: leave activations and weights "
                "out, or take a machine with serial 'dynamic', 'pragmatic', 'laconic' or 'both'"
            )
        if activations is None:
            raise ValueError(f"{self.name} needs the values of activations, not of weights alone")
        return checked_values(
            layers,
            activations,
            weights,
            weight_bits=weight_bits,
            activation_bits=activation_bits,
            batch=batch,
            wants_weights=dataflow.wants_weights(self),
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
class DynamicStripes(Accelerator):
    """Serial activations, as many bits as the values at work need (Delmas et al., 2017; DNNsim's ShapeShifter)."""

    name: str = "Dynamic Stripes"
    serial: str = "dynamic"


@dataclass(frozen=True, kw_only=True)
class Pragmatic(Accelerator):
    """The set bits of activations in turn (Albericio et al., MICRO 2017), with a first shift of two bits (PRA-2b)."""

    name: str = "Pragmatic"
    serial: str = "pragmatic"
    first_stage_bits: int = 2


@dataclass(frozen=True, kw_only=True)
class Laconic(Accelerator):
    """The terms of activations and weights in turn, both recoded (Sharify et al., ISCA 2019)."""

    name: str = "Laconic"
    serial: str = "laconic"
    booth: bool = True


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

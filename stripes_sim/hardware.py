"""Accelerators as data: one frozen record of parameters, and the family's members as its presets.

``Stripes(...)``, ``DaDianNao(...)``, ``Loom(...)`` and ``BitFusion(...)`` differ only in their defaults. The same
numbers stand in ``configs/*.toml`` with a source each; `stripes_sim.load_hardware` reads those and a user's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, get_args

from stripes_sim.bits import nearest

if TYPE_CHECKING:
    from stripes_sim.layers import LayerShape
    from stripes_sim.result import Result

__all__ = ["UNITS", "Accelerator", "BitFusion", "DaDianNao", "Loom", "Stripes"]

Serial = Literal["weights", "activations", "both", "none", "spatial"]
Storage = Literal["packed", "padded"]
Dram = Literal["lpddr4", "ddr3", "hbm2"]

UNITS: dict[str, tuple[str, str]] = {
    "name": ("", "what results call the machine"),
    "serial": ("", "serial operand: weights, activations, both, none (bit-parallel) or spatial (composable units)"),
    "lanes": ("products", "products that a PE adds up at once"),
    "columns": ("windows", "windows that a tile works on at once"),
    "rows": ("filters", "filters that a tile works on at once"),
    "tiles": ("tiles", "tiles fed by one activation stream"),
    "pe_width_bits": ("bit", "widest operand that one PE holds; wider ones take several side by side"),
    "serial_bits": ("bit", "activation bits per cycle where both operands are serial"),
    "clock_hz": ("Hz", "clock"),
    "space_to_depth": ("", "fold a strided 3-channel first layer into more channels (spatial machines: unroll it)"),
    "storage": ("", "packed: a value takes its bits in memory; padded: a power of two of at least data_width_bits"),
    "data_width_bits": ("bit", "memory word of padded storage"),
    "weight_buffer_bytes": ("byte", "on-chip weight memory"),
    "activation_buffer_bytes": ("byte", "on-chip activation memory"),
    "weight_buffer_bits_per_cycle": ("bit/cycle", "what the weight memory delivers"),
    "activation_buffer_bits_per_cycle": ("bit/cycle", "what the activation memory moves"),
    "buffer_bank_bytes": ("byte", "bank size of both memories (sets the energy of an access)"),
    "buffer_banks": ("banks", "banks of the weight memory (DNNsim's access counter)"),
    "buffer_bank_width_bits": ("bit", "width of one bank (DNNsim's access counter)"),
    "resident_weights": ("", "the network's weights stay on chip between inferences"),
    "dram": ("", "off-chip technology: lpddr4, ddr3 or hbm2"),
    "dram_bytes_per_s": ("byte/s", "off-chip bandwidth"),
    "node_nm": ("nm", "technology node (energy and area are scaled to it)"),
    "supply_v": ("V", "supply voltage"),
    "compat": ("", "dnnsim: repeat that simulator where it is known to be wrong"),
}
"""Unit and meaning of every parameter."""


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """A tiled accelerator; `UNITS` explains every field. See `stripes_sim.cycles` for how they act.

    Raises:
        TypeError, ValueError: a parameter of the wrong type, out of range, or none of its choices.
    """

    name: str = "Stripes"
    serial: Serial = "weights"
    lanes: int = 16
    columns: int = 16
    rows: int = 16
    tiles: int = 16
    pe_width_bits: int = 16
    serial_bits: int = 1
    clock_hz: float = 980e6
    space_to_depth: bool = True
    storage: Storage = "packed"
    data_width_bits: int = 16
    weight_buffer_bytes: int = 32 * 2**20
    activation_buffer_bytes: int = 4 * 2**20
    weight_buffer_bits_per_cycle: int = 65536
    activation_buffer_bits_per_cycle: int = 4096
    buffer_bank_bytes: int = 4096
    buffer_banks: int = 256
    buffer_bank_width_bits: int = 256
    resident_weights: bool = False
    dram: Dram = "lpddr4"
    dram_bytes_per_s: float = 25.6e9
    node_nm: float = 45
    supply_v: float = 0.9
    compat: Literal["dnnsim"] | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, self._checked(field.name, getattr(self, field.name)))

    def run(
        self,
        layers: Sequence[LayerShape],
        weight_bits: int | Mapping[str, int],
        activation_bits: int | Mapping[str, int] = 16,
        *,
        batch: int = 1,
        default_bits: int | None = None,
    ) -> Result:
        """Cycles and energy of a workload at the given bits.

        Args:
            layers: the workload, in execution order (see `stripes_sim.trace`).
            weight_bits: total stored bits, 1 to 16: an int for all layers, or a mapping by name.
            activation_bits: the same for activations; layers without weights may be left out and stay at 16.
            batch: samples per run.
            default_bits: bits of layers that a mapping leaves out; without it a missing layer is an error.

        Raises:
            ValueError: unknown or missing layers, bits out of range, or bits that the machine cannot hold.

        >>> from stripes_sim import LayerShape
        >>> fc = LayerShape(name="fc", kind="linear", in_channels=512, out_channels=256)
        >>> Stripes().run([fc], 8).compute_cycles, Stripes().run([fc], 4).compute_cycles
        (16, 8)
        """
        from stripes_sim.simulate import simulate

        return simulate(self, layers, weight_bits, activation_bits, batch=batch, default_bits=default_bits)

    @property
    def macs_per_cycle(self) -> int:
        """Products of full-width operands that the array finishes per cycle at best."""
        lanes = self.lanes * self.columns * self.rows * self.tiles
        if self.serial in ("none", "spatial"):
            return lanes
        steps = self.pe_width_bits
        return lanes // (steps * -(-steps // self.serial_bits) if self.serial == "both" else steps)

    def _checked(self, field: str, value: object) -> object:
        default = next(f.default for f in fields(Accelerator) if f.name == field)
        choices = _CHOICES.get(field)
        if choices is not None:
            if value not in choices:
                hint = nearest(str(value), [str(choice) for choice in choices])
                raise ValueError(f"{field} must be one of {choices}, but it is {value!r}{hint}")
            return value
        if isinstance(default, (bool, str)):
            if not isinstance(value, type(default)):
                raise TypeError(f"{field} must be a {type(default).__name__}, but it is {value!r}")
            return value
        unit = UNITS[field][0]
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{field} must be a number of {unit}, but it is {value!r}")
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{field} must be more than 0 {unit}, but it is {value!r}")
        if isinstance(default, int) and field not in _REAL:
            if value != int(value):
                raise TypeError(f"{field} must be a whole number of {unit}, but it is {value!r}")
            return int(value)
        return float(value)


_CHOICES: dict[str, tuple[object, ...]] = {
    "serial": get_args(Serial),
    "storage": get_args(Storage),
    "dram": get_args(Dram),
    "compat": ("dnnsim", None),
}
_REAL = frozenset({"node_nm", "supply_v", "clock_hz", "dram_bytes_per_s"})


@dataclass(frozen=True, kw_only=True)
class Stripes(Accelerator):
    """Bit-serial in one operand: the weights (default, what learned weight bits need) or the activations.

    ``Stripes(serial="activations")`` is the machine as published (Judd et al., MICRO 2016).
    """


@dataclass(frozen=True, kw_only=True)
class DaDianNao(Accelerator):
    """Bit-parallel baseline (Chen et al., MICRO 2014): bits do not change its time, only its traffic if packed."""

    name: str = "DaDianNao"
    serial: Serial = "none"
    columns: int = 1
    storage: Storage = "padded"


@dataclass(frozen=True, kw_only=True)
class Loom(Accelerator):
    """Serial in both operands (Sharify et al., DAC 2018), with DaDianNao's peak at 16 x 16 bits."""

    name: str = "Loom"
    serial: Serial = "both"
    rows: int = 256


@dataclass(frozen=True, kw_only=True)
class BitFusion(Accelerator):
    """Units that split into 2-, 4- or 8-bit multipliers (Sharma et al., ISCA 2018), in its 45 nm configuration."""

    name: str = "BitFusion"
    serial: Serial = "spatial"
    lanes: int = 16
    columns: int = 1
    rows: int = 32
    tiles: int = 1
    pe_width_bits: int = 8
    clock_hz: float = 500e6
    weight_buffer_bytes: int = 64 * 1024
    activation_buffer_bytes: int = 48 * 1024
    weight_buffer_bits_per_cycle: int = 16384
    activation_buffer_bits_per_cycle: int = 1024
    buffer_bank_bytes: int = 2048
    dram_bytes_per_s: float = 12e9

"""What an accelerator is made of: one frozen record of numbers, each with its unit, checked when it is made.

What they do together is said above: the way of computing in `stripes_sim.dataflows`, memory in `stripes_sim.memory`,
energy in `stripes_sim.energy`. The machines that a user makes are in `stripes_sim.hardware`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal, get_args

from stripes_sim.bits import nearest

__all__ = ["UNITS", "Parameters"]

Storage = Literal["packed", "padded"]
Dram = Literal["lpddr4", "ddr3", "hbm2"]
Mapping = Literal["closed", "search"]
Buffers = Literal["whole", "double"]
Halo = Literal["read", "kept"]
Leakage = Literal["density", "measured", "off"]

UNITS: dict[str, tuple[str, str]] = {
    "name": ("", "what results call the machine"),
    "serial": (
        "",
        "serial operand: weights, activations, both, none (bit-parallel), spatial (composable units); by values "
        "dynamic, pragmatic, laconic",
    ),
    "lanes": ("products", "products that a PE adds up at once"),
    "columns": ("windows", "windows that a tile works on at once"),
    "rows": ("filters", "filters that a tile works on at once"),
    "tiles": ("tiles", "tiles fed by one activation stream"),
    "pe_width_bits": ("bit", "widest operand that one PE holds; wider ones take several side by side"),
    "serial_bits": ("bit", "activation bits per cycle where both operands are serial"),
    "group_columns": ("columns", "columns that share one precision, found from their values"),
    "trim_zeros": ("", "that precision leaves out the zero bits below the lowest set one, too"),
    "dynamic_weights": ("", "where both operands are serial: weights have a precision of their values, too"),
    "column_registers": ("steps", "steps that a column may run ahead of the slowest one"),
    "first_stage_bits": ("bit", "bits of the shift by which lanes of a term-serial column may differ in one cycle"),
    "booth": ("", "term-serial operands are recoded, so that a run of three or more ones takes two terms"),
    "clock_hz": ("Hz", "clock"),
    "space_to_depth": ("", "fold a strided 3-channel first layer into more channels (spatial machines: unroll it)"),
    "storage": ("", "packed: a value takes its bits in memory; padded: a power of two of at least data_width_bits"),
    "data_width_bits": ("bit", "memory word of padded storage"),
    "weight_buffer_bytes": ("byte", "on-chip weight memory"),
    "activation_buffer_bytes": ("byte", "on-chip activation memory"),
    "weight_buffer_bits_per_cycle": ("bit/cycle", "what the weight memory delivers"),
    "activation_buffer_bits_per_cycle": ("bit/cycle", "what the activation memory moves"),
    "output_buffer_bytes": ("byte", "on-chip memory of outputs alone; 0: they share the activation memory"),
    "buffers": ("", "whole: a tile may fill a buffer; double: half of one, while the other half is being filled"),
    "mapping": ("", "closed: traffic of layers that do not fit is a lower bound; search: of their best tiling"),
    "halo": ("", "inputs that neighbouring tiles both meet: read again, or kept for the next tile"),
    "buffer_bank_bytes": ("byte", "bank size of both memories (sets the energy of an access)"),
    "buffer_banks": ("banks", "banks of the weight memory (DNNsim's access counter)"),
    "buffer_bank_width_bits": ("bit", "width of one bank (DNNsim's access counter)"),
    "resident_weights": ("", "the network's weights stay on chip between inferences"),
    "resident_cache": ("", "what was stored before a run (caches, graph inputs but the first) stays on chip, too"),
    "dram": ("", "off-chip technology: lpddr4, ddr3 or hbm2"),
    "dram_bytes_per_s": ("byte/s", "off-chip bandwidth"),
    "dram_burst_bits": ("bit", "what one access off chip moves at least; runs of a tile are rounded up to it"),
    "node_nm": ("nm", "technology node (energy and area are scaled to it)"),
    "supply_v": ("V", "supply voltage"),
    "leakage": ("", "static power: density (assumed, of the area), measured (synthesis, SRAM banks) or off"),
    "compat": ("", "dnnsim: repeat that simulator where it is known to be wrong"),
}
"""Unit and meaning of every parameter."""


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """The numbers of a tiled accelerator; `UNITS` explains every field.

    Raises:
        TypeError, ValueError: a parameter of the wrong type, out of range, or none of its choices.
    """

    name: str = "Stripes"
    serial: str = "weights"
    lanes: int = 16
    columns: int = 16
    rows: int = 16
    tiles: int = 16
    pe_width_bits: int = 16
    serial_bits: int = 1
    group_columns: int = 1
    trim_zeros: bool = False
    dynamic_weights: bool = False
    column_registers: int = 0
    first_stage_bits: int = 0
    booth: bool = False
    clock_hz: float = 980e6
    space_to_depth: bool = True
    storage: Storage = "packed"
    data_width_bits: int = 16
    weight_buffer_bytes: int = 32 * 2**20
    activation_buffer_bytes: int = 4 * 2**20
    weight_buffer_bits_per_cycle: int = 65536
    activation_buffer_bits_per_cycle: int = 4096
    output_buffer_bytes: int = 0
    buffers: Buffers = "whole"
    mapping: Mapping = "closed"
    halo: Halo = "read"
    buffer_bank_bytes: int = 4096
    buffer_banks: int = 256
    buffer_bank_width_bits: int = 256
    resident_weights: bool = False
    resident_cache: bool = False
    dram: Dram = "lpddr4"
    dram_bytes_per_s: float = 25.6e9
    dram_burst_bits: int = 1
    node_nm: float = 45
    supply_v: float = 0.9
    leakage: Leakage = "density"
    compat: Literal["dnnsim"] | None = None

    def __post_init__(self) -> None:
        # fields that a user's own machine adds are for its dataflow to check
        for field in fields(Parameters):
            object.__setattr__(self, field.name, _checked(field.name, getattr(self, field.name), field.default))

    @property
    def lane_count(self) -> int:
        """Lanes of the whole array: products that are under way at once."""
        return self.lanes * self.columns * self.rows * self.tiles


def _checked(field: str, value: object, default: object) -> object:
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
    if not (math.isfinite(value) and (value > 0 or value == 0 == default)):
        least = "at least" if default == 0 else "more than"
        raise ValueError(f"{field} must be {least} 0 {unit}, but it is {value!r}")
    if isinstance(default, int) and field not in _REAL:
        if value != int(value):
            raise TypeError(f"{field} must be a whole number of {unit}, but it is {value!r}")
        if value > _LARGEST:
            raise ValueError(f"{field} must be at most 2^53 {unit}, but it is {value!r}")
        return int(value)
    return float(value)


# above it not every whole number is a float64
_LARGEST = 2**53
_CHOICES: dict[str, tuple[object, ...]] = {
    "storage": get_args(Storage),
    "dram": get_args(Dram),
    "buffers": get_args(Buffers),
    "mapping": get_args(Mapping),
    "halo": get_args(Halo),
    "leakage": get_args(Leakage),
    "compat": ("dnnsim", None),
}
_REAL = frozenset({"node_nm", "supply_v", "clock_hz", "dram_bytes_per_s"})

"""Machines from TOML files: those that ship, and a user's own by path.

A file names a ``base`` preset (stripes, dadiannao, loom, bitfusion, dynamic_stripes, pragmatic, laconic), any parameter
of `stripes_sim.hardware.UNITS`, and where its numbers come from in a ``[sources]`` table of texts.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

from stripes_sim._reading import read_text
from stripes_sim.bits import nearest
from stripes_sim.energy import area_mm2, leakage_w
from stripes_sim.hardware import (
    UNITS,
    Accelerator,
    BitFusion,
    DaDianNao,
    DynamicStripes,
    Laconic,
    Loom,
    Pragmatic,
    Stripes,
)
from stripes_sim.text import aligned

__all__ = ["Machine", "hardware_names", "load_hardware", "load_machine"]

_PRESETS: dict[str, type[Accelerator]] = {
    "stripes": Stripes,
    "dadiannao": DaDianNao,
    "loom": Loom,
    "bitfusion": BitFusion,
    "dynamic_stripes": DynamicStripes,
    "pragmatic": Pragmatic,
    "laconic": Laconic,
}
_NO_SOURCE = "default of the preset, no source given"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """An accelerator with the source of each parameter; prints as a table."""

    hardware: Accelerator
    sources: dict[str, str]
    origin: str

    def rows(self) -> list[dict[str, Any]]:
        """One dict per parameter: parameter, value, unit, meaning, source; then the area and leakage that follow."""
        rows: list[dict[str, Any]] = [
            {
                "parameter": key,
                "value": getattr(self.hardware, key),
                "unit": unit,
                "meaning": meaning,
                "source": self.sources.get(key, _NO_SOURCE),
            }
            for key, (unit, meaning) in UNITS.items()
        ]
        for part, value in area_mm2(self.hardware).items():
            rows.append(_derived(f"area_{part}_mm2", value, "mm2", f"area, {part}"))
        rows.append(_derived("leakage_w", leakage_w(self.hardware), "W", "leakage power"))
        return rows

    def __str__(self) -> str:
        cells = [
            (row["parameter"], _value(row["value"]), row["unit"], row["meaning"], row["source"]) for row in self.rows()
        ]
        return f"{self.origin}\n\n" + aligned(("parameter", "value", "unit", "meaning", "source"), cells, left=5)


def _derived(name: str, value: float, unit: str, meaning: str) -> dict[str, Any]:
    source = "assumed: follows from the area and leakage constants of stripes_sim.energy"
    return {"parameter": name, "value": round(value, 4), "unit": unit, "meaning": meaning, "source": source}


def _value(value: object) -> str:
    if isinstance(value, float) and value >= 1e6:
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def hardware_names() -> list[str]:
    """The machines that ship.

    >>> hardware_names()
    ['bitfusion', 'dadiannao', 'dynamic_stripes', 'laconic', 'loom', 'pragmatic', 'stripes', 'stripes_activations']
    """
    folder = resources.files("stripes_sim.configs")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_hardware(name_or_path: str | Path) -> Accelerator:
    """The machine of that name, or of a user's TOML file; see `load_machine`.

    >>> load_hardware("stripes").serial
    'weights'
    """
    return load_machine(name_or_path).hardware


def load_machine(name_or_path: str | Path) -> Machine:
    """A machine with the source of each number.

    Args:
        name_or_path: one of `hardware_names` (case does not matter), or a path to a TOML file (ends in ``.toml``).

    Raises:
        ValueError: no such machine or file, no valid TOML, an unknown key, or a value out of range; the message names
            the file, the key, the value, what was expected and the nearest known name.

    >>> load_machine("loom").sources["serial_bits"]
    'published: the LM1b variant, Sharify et al.'
    """
    text, origin = _read(name_or_path)
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is no TOMLDecodeError
        raise ValueError(f"{origin}: not valid TOML: {error}") from None
    sources = data.pop("sources", {})
    base = data.pop("base", "stripes")
    if not isinstance(base, str) or base not in _PRESETS:
        raise ValueError(
            f"{origin}: base must be one of {tuple(_PRESETS)}, but it is {base!r}{nearest(str(base), [*_PRESETS])}"
        )
    known = [field.name for field in fields(Accelerator)]
    for key in data:
        if key not in known:
            raise ValueError(
                f"{origin}: unknown key {key!r}{nearest(key, known)} (known: base, sources, {', '.join(known)})"
            )
    if not isinstance(sources, dict):
        raise ValueError(f"{origin}: sources must be a table of texts, but it is {sources!r}")
    for key, source in sources.items():
        if key not in known or not isinstance(source, str):
            raise ValueError(f"{origin}: [sources] {key} = {source!r} is no text for a parameter{nearest(key, known)}")
    try:
        hardware = _PRESETS[base](**data)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{origin}: {error}") from None
    return Machine(hardware=hardware, sources=dict(sources), origin=origin)


def _read(name_or_path: str | Path) -> tuple[str, str]:
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.endswith(".toml"):
        path = Path(name_or_path)
        try:
            return read_text(path), str(path)
        except FileNotFoundError as error:
            raise ValueError(f"hardware file {text}: cannot be read ({error.strerror})") from None
    name = text.lower().replace("-", "_")
    if name not in hardware_names():
        raise ValueError(
            f"no hardware {text!r}{nearest(name, hardware_names())} (known: {', '.join(hardware_names())}, "
            "or a path ending in .toml)"
        )
    return (resources.files("stripes_sim.configs") / f"{name}.toml").read_text(encoding="utf-8"), name

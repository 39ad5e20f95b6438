"""What an export tells of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from waveq.exporting.integers import Integers

__all__ = ["Exported", "exported"]


@dataclass(frozen=True)
class Exported:
    """A file that was written, and what was measured before it was.

    Attributes:
        to: the target's name.
        path: the file.
        file_bytes: its size.
        packed_bytes: what the weights of the policy would take with every code at its own bits, with their scales.
        float_bytes: what the same weights take in float32.
        carriers: the type that carries each layer's codes: "int4", "3 bits packed".
        difference: the largest between what the file gives and what torch gives on the example; weights where the file
            computes nothing. None where nothing could be compared.
        largest: the largest output of torch in size (the largest weight), to read ``difference`` by.
        note: what else is to be said, a sentence without its full stop.
    """

    to: str
    path: Path
    file_bytes: int
    packed_bytes: int
    float_bytes: int
    carriers: Mapping[str, str]
    difference: float | None
    largest: float
    note: str = ""

    def __str__(self) -> str:
        layers = "; ".join(f"{name}: {carrier}" for name, carrier in self.carriers.items())
        lines = [
            f"{self.path}: {self.file_bytes:,} bytes. Quantised weights: {self.packed_bytes:,} bytes packed, "
            f"{self.float_bytes:,} in float32.",
            f"Carried by: {layers}.",
        ]
        if self.note:
            lines.append(f"{self.note}.")
        if self.difference is not None:
            lines.append(f"Largest difference from torch: {self.difference:.2g} where values reach {self.largest:.3g}.")
        return "\n".join(lines)


def exported(
    to: str,
    path: Path,
    file_bytes: int,
    found: Mapping[str, Integers],
    carriers: Mapping[str, str],
    measured: tuple[float | None, float],
    note: str = "",
) -> Exported:
    """The report on some layers.

    Args:
        measured: the largest difference, and the largest value.
        note: see ``Exported``.
    """
    packed = sum(each.packed_bytes for each in found.values())
    floats = sum(4 * each.codes.numel() for each in found.values())
    return Exported(to, path, file_bytes, packed, floats, dict(carriers), *measured, note)

"""How few and how many bits there are, and what has a scale; read without torch, by policies and files as well."""

from __future__ import annotations

from numbers import Integral
from typing import Literal

__all__ = [
    "BETA_MAX",
    "BETA_MIN",
    "MAX_INPUT_BITS",
    "MAX_TOTAL_BITS",
    "Granularity",
    "check_activation_bits",
    "check_total_bits",
]

BETA_MIN, BETA_MAX = 1.0, 7.0  # 2 to 8 total bits; beta = 0 is a global minimum of R, where every layer would end
MAX_TOTAL_BITS = 9
MAX_INPUT_BITS = 8
Granularity = Literal["layer", "channel"]
"""What has a scale of its own."""


def check_total_bits(total_bits: object, *, layer: str | None = None) -> int:
    """The bits as an int, or a ValueError that names the layer and the range."""
    return _checked(total_bits, "the bits", layer, f"from 1 to {MAX_TOTAL_BITS} (sign included)", MAX_TOTAL_BITS)


def check_activation_bits(bits: object, *, layer: str | None = None) -> int:
    """The bits as an int, or a ValueError that names the layer and the range."""
    return _checked(bits, "activation bits", layer, f"from 1 to {MAX_INPUT_BITS}", MAX_INPUT_BITS)


def _checked(bits: object, what: str, layer: str | None, allowed: str, most: int) -> int:
    # numpy's integers are welcome
    if isinstance(bits, Integral) and not isinstance(bits, bool) and 1 <= int(bits) <= most:
        return int(bits)
    where = f" of layer {layer!r}" if layer else ""
    raise ValueError(f"{what}{where} must be a whole number {allowed}, not {bits!r}")

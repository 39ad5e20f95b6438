"""How few and how many bits there are; read without torch, by policies, files and the command line as well."""

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
    where = f" of layer {layer!r}" if layer else ""
    whole = isinstance(total_bits, Integral) and not isinstance(total_bits, bool)  # numpy's integers are welcome
    if not whole or not 1 <= total_bits <= MAX_TOTAL_BITS:  # type: ignore[operator]
        raise ValueError(
            f"the bits{where} must be a whole number from 1 to {MAX_TOTAL_BITS} (sign included), not {total_bits!r}"
        )
    return int(total_bits)  # type: ignore[call-overload, no-any-return]


def check_activation_bits(bits: object, *, layer: str | None = None) -> int:
    """The bits as an int, or a ValueError that names the layer and the range."""
    if isinstance(bits, bool) or not isinstance(bits, Integral) or not 1 <= bits <= 8:  # type: ignore[operator]
        where = f" of layer {layer!r}" if layer else ""
        raise ValueError(f"activation bits{where} must be a whole number from 1 to 8, not {bits!r}")
    return int(bits)

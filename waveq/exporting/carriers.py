"""Which integer type of ONNX carries a code, and the codes in its bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from waveq.exporting.integers import Integers

__all__ = ["Carrier", "carrier_for", "carriers", "raw_bytes", "whole_codes"]


@dataclass(frozen=True)
class Carrier:
    """A type of ONNX.

    Attributes:
        bits: it has so many.
        opset: the first that has it.
    """

    bits: int
    opset: int

    def name(self, signed: bool) -> str:
        """As ``onnx.TensorProto`` calls it: INT4, UINT8."""
        return f"{'' if signed else 'U'}INT{self.bits}"


_CARRIERS = (Carrier(2, 25), Carrier(4, 21), Carrier(8, 1), Carrier(16, 21))


def carrier_for(bits: int, opset: int | None) -> Carrier:
    """The smallest type with so many bits, of an opset or of any (None).

    Raises:
        ValueError: the opset has none.

    Example:
        >>> carrier_for(3, None).name(signed=True), carrier_for(2, 20).bits
        ('INT4', 8)
    """
    for carrier in _CARRIERS:
        if bits <= carrier.bits and (opset is None or carrier.opset <= opset):
            return carrier
    raise ValueError(f"codes of {bits} bits need opset {_CARRIERS[-1].opset} of ONNX, not {opset}")


def whole_codes(each: Integers) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], int]:
    """(codes, scale, bits) without an offset: weight = scale * code.

    A grid without a zero becomes 2 code + 1 with half the scale, which is exact, and takes one more bit (none at 1).
    Adding scale/2 afterwards would be rounded a second time, and cost a pass over the weights.
    """
    codes, scale = each.codes.cpu().numpy(), each.scale.cpu().float().numpy()
    if each.offset == 0.0:
        return codes, scale, each.bits
    return 2 * codes.astype(np.int16) + 1, np.asarray(scale / 2), each.bits + 1


def carriers(found: Mapping[str, Integers], opset: int | None) -> dict[str, Carrier]:
    """The type for every layer's codes."""
    return {name: carrier_for(whole_codes(each)[2], opset) for name, each in found.items()}


def raw_bytes(codes: np.ndarray[Any, Any], carrier: Carrier) -> bytes:
    """Little-endian bytes as ONNX has them: of types under a byte the first code lies in the lowest bits.

    Example:
        >>> raw_bytes(np.array([1, -1, 2]), Carrier(4, 21)).hex()
        'f102'
    """
    flat = codes.reshape(-1)
    if carrier.bits >= 8:
        return flat.astype(f"<i{carrier.bits // 8}").tobytes()
    each = 8 // carrier.bits
    unsigned = (flat.astype(np.int16) & (2**carrier.bits - 1)).astype(np.uint8)
    padded = np.concatenate([unsigned, np.zeros(-len(unsigned) % each, np.uint8)]).reshape(-1, each)
    shifted = padded << (np.arange(each, dtype=np.uint8) * carrier.bits)
    packed: np.ndarray[Any, Any] = np.bitwise_or.reduce(shifted, axis=1).astype(np.uint8)
    return packed.tobytes()

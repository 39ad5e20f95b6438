"""The grid of a finalised layer's inputs as a scale and the ends of its whole numbers."""

from __future__ import annotations

from dataclasses import dataclass

from waveq.method.fixed_input import FixedInput
from waveq.quantizers.activation import DoReFaActivation
from waveq.quantizers.base import TINY
from waveq.quantizers.dsq import DSQActivation
from waveq.quantizers.lsq import LSQActivation, lsq_steps
from waveq.quantizers.pact import PACTActivation
from waveq.quantizers.ranged import RangedActivation

__all__ = ["InputGrid", "input_grid"]


@dataclass(frozen=True)
class InputGrid:
    """x_q = scale * clip(round(x / scale), low, high).

    Attributes:
        scale: positive.
        low: 0, or negative for inputs with a sign.
        high: positive.
        bits: k.
    """

    scale: float
    low: int
    high: int
    bits: int


def input_grid(layer: str, fixed: FixedInput) -> InputGrid:
    """The grid of a layer's inputs.

    Raises:
        ValueError: a method whose levels are not whole multiples of a scale: LQ-Nets, signs alone, DSQ with a sign.

    Example:
        >>> input_grid("fc", FixedInput(4, signed=False))
        InputGrid(scale=0.06666666666666667, low=0, high=15, bits=4)
    """
    quantizer, bits, signed = fixed.quantizer, fixed.bits, fixed.signed
    below, above = lsq_steps(bits, signed=signed)
    if isinstance(quantizer, LSQActivation):
        return InputGrid(max(float(quantizer.step), TINY), -below, above, bits)
    span: float | None = None
    if isinstance(quantizer, DoReFaActivation):
        span = 1.0
    elif isinstance(quantizer, PACTActivation):
        span = max(float(quantizer.alpha), TINY)
    elif isinstance(quantizer, RangedActivation) or (isinstance(quantizer, DSQActivation) and not signed):
        span = max(float(quantizer.range), TINY)
    if span is None or above == 0:
        sign = "with a sign" if signed else "without a sign"
        raise ValueError(
            f"the inputs of layer {layer!r} ({quantizer.method!r}, {bits} bits, {sign}) have levels that are no whole "
            "multiples of a scale, which this target cannot hold"
        )
    return InputGrid(span / above, -above if signed else 0, above, bits)

"""Weight and activation quantisers: one file a method, one registry, one grid description each."""

from __future__ import annotations

from waveq._bits import check_activation_bits, check_total_bits
from waveq.quantizers.activation import (
    ActivationQuantizer,
    DoReFaActivation,
    quantize_activation,
)
from waveq.quantizers.base import Given, Levels, WeightQuantizer
from waveq.quantizers.registry import (
    Quantizer,
    activation_quantizer_class,
    activation_quantizer_names,
    find_quantizer,
    make_activation_quantizer,
    make_quantizer,
    quantize_weight,
    quantizer_class,
    quantizer_names,
    register,
    scale_modes,
)

__all__ = [
    "ActivationQuantizer",
    "DoReFaActivation",
    "Given",
    "Levels",
    "Quantizer",
    "WeightQuantizer",
    "activation_quantizer_class",
    "activation_quantizer_names",
    "check_activation_bits",
    "check_total_bits",
    "find_quantizer",
    "make_activation_quantizer",
    "make_quantizer",
    "quantize_activation",
    "quantize_weight",
    "quantizer_class",
    "quantizer_names",
    "register",
    "scale_modes",
]

"""Quantised inputs of a plain float model's layers, the same for every policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn

from waveq.method.attachment import attach_method
from waveq.method.input_quantizers import restore_inputs
from waveq.method.input_ranges import calibrate
from waveq.method.options import Method
from waveq.policy import Policy

__all__ = ["quantize_inputs"]


def quantize_inputs(model: nn.Module, method: Method, x: Tensor) -> dict[str, int]:
    """Put the input quantisers before the layers that ``attach`` would put before them.

    Their ranges, levels and signs are those that ``waveq.calibrate`` finds in a batch that goes through the float
    model; a Policy brings its own, as training left them.

    Args:
        model: plain; changed in place.
        method: ``activation_bits``, ``activation_quantizer``, and which layers there are (``skip``, ``also``).
        x: a first batch.

    Returns:
        Bits by layer.

    Raises:
        ValueError: see ``attach`` and ``waveq.restore_inputs``.

    Example:
        >>> import torch; from waveq.method.options import Method
        >>> net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> quantize_inputs(net, Method(activation_bits=4), torch.randn(5, 3))
        {'2': 4}
    """
    if method.activation_bits is None:
        return {}
    if isinstance(method.activation_bits, Policy):
        restore_inputs(model, method.activation_bits)
        return dict(method.activation_bits.activation_bits)
    given = method.activation_bits
    if "learn" in (given.values() if isinstance(given, Mapping) else (given,)):
        raise ValueError(f"activation_bits={given!r}: policies are evaluated with bits, 1 to 8, or those of a Policy")
    # the float road reads float weights; what it would do to them later needs steps, which are never taken
    asked = replace(method, quantizer="dorefa", bits=8, scale="max", forward="float", fit_range=False, freezing="off")
    wq = attach_method(model, replace(asked, schedule="constant", lambda_w=0.0))
    calibrate(model, [x])
    found = wq.policy()
    wq.remove()
    restore_inputs(model, found)
    return dict(found.activation_bits)

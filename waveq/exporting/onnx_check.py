"""An ONNX file against torch on the same inputs, before it is written."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

__all__ = ["compare", "outputs_of_torch", "require_close"]

_CLOSE = 1e-4  # of the largest output; sums in another order differ by 1e-6
_CLOSE_WITH_LEVELS = 0.2  # inputs on a rounding boundary may come out one level away, and so may all behind them


@torch.no_grad()
def outputs_of_torch(model: nn.Module, example: tuple[Tensor, ...]) -> list[Tensor]:
    """What a copy of the model gives in evaluation mode, tensors in order."""
    given = copy.deepcopy(model).cpu().eval()(*example)
    return [each for each in pytree.tree_leaves(given) if isinstance(each, Tensor)]


def compare(runtime: Any, data: bytes, model: nn.Module, example: tuple[Tensor, ...]) -> tuple[float, float]:
    """(the largest difference, the largest output of torch) where ONNX Runtime runs the file on the CPU."""
    expected = outputs_of_torch(model, example)
    options = runtime.SessionOptions()
    # without it, ONNX Runtime rounds the inputs of some linear layers of 4 bits to 8 bits: no fault of the file
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    options.log_severity_level = 4  # it prints what it then raises
    try:
        session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        feeds = {given.name: value.numpy() for given, value in zip(session.get_inputs(), example, strict=True)}
        found = session.run(None, feeds)
    except Exception as error:  # it has a dozen kinds with nothing in common
        told = str(error).strip().partition("\n")[0]
        raise ValueError(f"ONNX Runtime does not run what was exported, and nothing was written: {told}") from error
    return largest_difference(expected, [torch.as_tensor(each) for each in found])


def largest_difference(expected: list[Tensor], found: list[Tensor]) -> tuple[float, float]:
    """(the largest difference, the largest expected value in size)."""
    pairs = zip(expected, found, strict=True)
    difference = max(float((one.double() - other.double()).abs().max()) for one, other in pairs)
    return difference, max(float(one.abs().max()) for one in expected)


def require_close(measured: tuple[float, float], quantised_inputs: bool) -> None:
    """Refuse a file that computes something else.

    Raises:
        ValueError: with both numbers.
    """
    difference, largest = measured
    if not difference <= (_CLOSE_WITH_LEVELS if quantised_inputs else _CLOSE) * max(largest, 1e-3):
        raise ValueError(
            f"what was exported differs from torch by {difference:.3g} where outputs reach {largest:.3g}: nothing was "
            "written"
        )

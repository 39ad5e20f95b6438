"""The slow twin of PolicyEvaluator: one deep copy of the model per policy, one pass over the loader, nothing shared."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from waveq.quantizers import quantize_activation, quantize_weight


def scores_of(
    model: nn.Module,
    policy: Mapping[str, int],
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    quantizer: str = "dorefa",
    scale: str = "max",
    activation_bits: Mapping[str, tuple[int, bool]] | None = None,
) -> Tensor:
    """Scores (samples, classes) of one policy; activation_bits gives (bits, signed) by layer."""
    twin = copy.deepcopy(model).eval()
    for name, bits in policy.items():
        layer = twin.get_submodule(name)
        layer.weight.data = quantize_weight(layer.weight.data, bits, quantizer=quantizer, scale=scale)
    for name, (bits, signed) in (activation_bits or {}).items():
        twin.get_submodule(name).register_forward_pre_hook(
            lambda _module, args, bits=bits, signed=signed: (quantize_activation(args[0], bits, signed=signed),)
        )
    with torch.no_grad():
        return torch.cat([twin(x) for x, _ in batches])


def predictions_of(
    model: nn.Module,
    names: tuple[str, ...],
    policies: npt.NDArray[np.uint8],
    batches: list[tuple[Tensor, Tensor]],
    **settings: object,
) -> npt.NDArray[np.int64]:
    """Predicted classes (N, samples) of N policies, one after the other."""
    rows = [dict(zip(names, map(int, row), strict=True)) for row in policies]
    return np.stack([scores_of(model, row, batches, **settings).argmax(dim=1).numpy() for row in rows])  # type: ignore[arg-type]

"""The optimizer of all trainings: SGD, with a rate of its own for what quantisers learn."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.lab.settings import Setting

__all__ = ["sgd", "weights_and_scales"]


def weights_and_scales(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """What the network had before quantisers were attached, and what they have added."""
    weights, scales = [], []
    for name, parameter in network.named_parameters():
        added = "parametrizations." in name and not name.endswith(".original")
        (scales if added else weights).append(parameter)
    return weights, scales


def sgd(network: nn.Module, lr: float, setting: Setting) -> torch.optim.SGD:
    """SGD over both, the scales at ``setting.scale_rate`` times the rate."""
    weights, scales = weights_and_scales(network)
    groups = [{"params": weights}, {"params": scales, "lr": lr * setting.scale_rate}]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=lr,
        momentum=setting.momentum,
        weight_decay=setting.weight_decay,
    )

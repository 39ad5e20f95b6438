"""Plain float checkpoints load into a model under training; a model's own checkpoints load as they are."""

from __future__ import annotations

from typing import Any

from torch import nn

from waveq.method.parametrization import STATE, parametrization_of

__all__ = ["ROOT_STATE", "accept_plain_root", "accept_plain_weight"]

ROOT_STATE = ("waveq_step", "waveq_dual")


def accept_plain_weight(
    module: nn.Module, state_dict: dict[str, Any], prefix: str, *_unused: Any, tensor: str = "weight"
) -> None:
    """Load-state-dict pre-hook of a quantised layer: ``weight`` (or ``tensor``) becomes what is trained.

    What the plain checkpoint does not know (betas, learned scales) keeps its present value. A checkpoint with any of
    the method's own keys is left alone, so that a truly missing key is still reported.
    """
    plain = prefix + tensor
    if plain not in state_dict:
        return
    inner = f"{prefix}parametrizations.{tensor}."
    state_dict[inner + "original"] = state_dict.pop(plain)
    for name, value in parametrization_of(module, tensor).state_dict().items():
        state_dict.setdefault(f"{inner}0.{name}", value)


def accept_plain_root(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_unused: Any) -> None:
    """Load-state-dict pre-hook of the model: a checkpoint without any state of the method keeps the present step."""
    marker = f".{STATE[0]}"
    if any(key.endswith(marker) and "parametrizations." in key for key in state_dict):
        return
    for name in ROOT_STATE:
        state_dict.setdefault(prefix + name, getattr(module, name))

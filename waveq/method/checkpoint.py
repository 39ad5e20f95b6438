"""Plain float checkpoints load into a model under training; a model's own checkpoints load as they are."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from waveq.method.fingerprint import compare_checkpoint, inputs_of
from waveq.method.fixed_input import FIXED_INPUT
from waveq.method.notes import read_note
from waveq.method.parametrization import STATE, parametrization_of

__all__ = ["ROOT_COUNTS", "ROOT_SEAL", "ROOT_STATE", "accept_plain_root", "accept_plain_weight", "drop_root_state"]

ROOT_STATE = ("waveq_step", "waveq_dual")
ROOT_SEAL = "waveq_seal"
ROOT_COUNTS = "waveq_multiplications"  # where a budget counts them


def drop_root_state(model: nn.Module) -> None:
    """Take the method's buffers off a model, as far as they are there."""
    for name in (*ROOT_STATE, ROOT_SEAL, ROOT_COUNTS):
        model._buffers.pop(name, None)


def accept_plain_weight(
    module: nn.Module, state_dict: dict[str, Any], prefix: str, *_unused: Any, tensor: str = "weight"
) -> None:
    """Load-state-dict pre-hook of a quantised layer: ``weight`` (or ``tensor``) becomes what is trained.

    What the plain checkpoint does not know (betas, learned scales) keeps its present value; the input quantiser of a
    finalised one goes on from there. A checkpoint with any of the method's own keys is left alone, so that a truly
    missing key is still reported.
    """
    plain = prefix + tensor
    if plain not in state_dict:
        return
    inner, state = f"{prefix}parametrizations.{tensor}.", parametrization_of(module, tensor)
    fixed = f"{prefix}{FIXED_INPUT}."
    told = read_note(state_dict.get(f"{fixed}_extra_state"))
    if told is not None and (told.get("method"), told.get("bits")) == inputs_of(state):
        del state_dict[f"{fixed}_extra_state"]
        state_dict[f"{inner}0.activation_signed"] = torch.full_like(state.activation_signed, bool(told["signed"]))
        for key in [key for key in state_dict if key.startswith(f"{fixed}quantizer.")]:
            state_dict[key.replace(f"{fixed}quantizer.", f"{inner}0.activation.")] = state_dict.pop(key)
    state_dict[inner + "original"] = state_dict.pop(plain)
    for name, value in state.state_dict().items():
        state_dict.setdefault(f"{inner}0.{name}", value)


def accept_plain_root(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_unused: Any) -> None:
    """Load-state-dict pre-hook of the model: a checkpoint without any state of the method keeps the present step.

    Raises:
        RuntimeError: the checkpoint is of a model that was attached otherwise; nothing has been loaded.
    """
    compare_checkpoint(module, state_dict, prefix)
    state_dict.setdefault(prefix + ROOT_SEAL, getattr(module, ROOT_SEAL))
    if ROOT_COUNTS in module._buffers:
        state_dict.setdefault(prefix + ROOT_COUNTS, getattr(module, ROOT_COUNTS))
    else:
        state_dict.pop(prefix + ROOT_COUNTS, None)  # of a run with a budget that counts them
    marker = f".{STATE[0]}"
    if any(key.endswith(marker) and "parametrizations." in key for key in state_dict):
        return
    for name in ROOT_STATE:
        state_dict.setdefault(prefix + name, getattr(module, name))

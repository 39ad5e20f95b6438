"""Search, then rewind: bits are found in a short run, then the network is trained from its float weights with them.

A network whose bits are learned is trained while they move, on grids that it will not keep, and its rate has fallen by
the time they stand still. Methods that choose bits elsewhere (HAWQ, HAQ) train fully afterwards; so does this.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from waveq._archive import load_archive
from waveq._names import nearest
from waveq.method.arguments import resolve_schedule
from waveq.method.attachment import attach_method
from waveq.method.checkpoint import ROOT_SEAL, ROOT_STATE
from waveq.method.handle import WaveQ
from waveq.method.presets import get_preset
from waveq.method.start import plain_state
from waveq.method.wrappers import unwrapped

__all__ = ["rewind"]


def rewind(
    wq: WaveQ,
    start: nn.Module | Mapping[str, Any] | str | PathLike[str],
    *,
    total_steps: int | None = None,
    **changes: Any,
) -> WaveQ:
    """End the search for bits: the model has its float weights again, with the bits that were learned as preset ones.

    Everything is as if the float model were attached with ``bits=wq.policy()`` and the other options of the search:
    parameters and buffers are those of ``start`` (batch norm's statistics too), learned scales and the ranges and signs
    of inputs begin anew, and so does the schedule. What is no part of a ``state_dict`` stays as it is:
    ``requires_grad``, training mode, buffers that are not persistent.

    Build a new optimizer and a new schedule of its rate afterwards, from ``model.parameters()``: an old optimizer's
    momentum belongs to other weights. One that still holds any is refused at its first step.

    Args:
        wq: the handle of the search; it says afterwards where the search stood, and can do nothing more.
        start: the model itself, whose weights ``attach`` has copied to main memory where bits are learned (or the
            ones that were loaded into it before the first step); or the float model's ``state_dict`` from before
            ``attach``, as copies, or a file of it, which a resumed search needs: its process never saw the start.
        total_steps: optimiser steps of the run that follows; needed wherever a schedule depends on it.
        changes: options of ``attach`` that shall differ from the search's: ``schedule="constant"``.

    Returns:
        The handle of the run that follows.

    Raises:
        ValueError: a start that does not fit, is not known, or is the model's own memory; a wrong option. The run is
            then as it was. What ``attach`` refuses of the float weights (NaN) leaves them in the plain model.
        TypeError: the model is inside DistributedDataParallel or the like; take it out, and wrap it again afterwards.
        RuntimeError: the search was finalised or removed.

    Example:
        >>> import torch
        >>> from waveq import attach
        >>> net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> first = net[0].weight.detach().clone()
        >>> wq = attach(net, total_steps=1)
        >>> loss = net(torch.randn(8, 4)).square().mean() + wq.penalty()
        >>> loss.backward(); wq.step()
        >>> wq = rewind(wq, net, total_steps=4)
        >>> wq.learning, wq.steps, bool((net[0].parametrizations.weight.original == first).all())
        (False, 0, True)
    """
    wq._require_live("rewind")
    wq._guards.shards.require_whole("rewind")
    model = unwrapped(wq._model)
    weights = _kept(wq, start) if isinstance(start, nn.Module) else _read(start)
    _require_fit(wq, weights)
    if wq.learning:
        warnings.warn(
            f"rewind() at step {wq.steps} of {wq.total_steps}: the bits were still being learned and are fixed as they "
            "stand.",
            stacklevel=2,
        )
        wq.freeze()
    policy = wq.policy()
    method = wq.settings.method.with_policy(policy, total_steps, **changes)
    resolve_schedule(method, get_preset(method.preset), learning=False)  # refuses while the run is as it was
    search = {name: wq.settings.described[name] for name in ("schedule", "total_steps", "target")}
    search |= {"steps": wq.steps, "betas": dict(policy.betas)}
    search |= {"input_betas": found} if (found := wq.input_betas()) else {}
    wq.remove()
    model.load_state_dict(weights)
    rewound = attach_method(model, method, search=search)
    _fresh[rewound] = weakref.WeakSet()
    return rewound


def _kept(wq: WaveQ, model: nn.Module) -> Mapping[str, Any]:
    if unwrapped(model) is not wq._model:
        raise ValueError(
            f"start is a {type(model).__name__} that the search did not run on; give the model of the search, or the "
            "state_dict() of a float one, whose weights it shall have"
        )
    if wq.start is None or wq.start.weights is None:
        why = (
            "no bits were learned in this run"
            if wq.start is None
            else "a checkpoint was loaded into the search, or it is a copy"
        )
        raise ValueError(
            f"the float weights that the search began with are not known here ({why}): give them as start, the "
            "state_dict from before attach(), or a file of it"
        )
    return wq.start.weights


def _read(start: Mapping[str, Any] | str | PathLike[str]) -> Mapping[str, Any]:
    if isinstance(start, Mapping):
        return start
    if not isinstance(start, str | PathLike):
        raise TypeError(f"start must be the model, a state_dict or a file of one, not {type(start).__name__}")
    try:
        content = load_archive(Path(start))
    except ValueError as error:
        raise ValueError(f"start: {error}") from None
    if not isinstance(content, Mapping):
        raise ValueError(f"start: {start} holds no state_dict")
    return content


def _require_fit(wq: WaveQ, start: Mapping[str, Any]) -> None:
    """Refuse what the float model could not load, before anything is touched.

    Raises:
        ValueError: names a tensor.
    """
    if any(name in start for name in (*ROOT_STATE, ROOT_SEAL)):
        raise ValueError(
            "start is the state_dict of an attached model; the float weights are wanted, as they were before attach(): "
            "start = copy.deepcopy(model.state_dict()), or the model itself"
        )
    expected = plain_state(wq)
    for name in start:
        if name not in expected:
            raise ValueError(f"start has {name!r}, which the model does not have{nearest(name, expected)}")
    own = {value.untyped_storage().data_ptr() for value in expected.values() if _has_memory(value)}
    for name, value in expected.items():
        if name not in start:
            raise ValueError(f"start lacks {name!r} of the model: the float model's whole state_dict is wanted")
        given = start[name]
        if not isinstance(value, Tensor):
            continue
        if not isinstance(given, Tensor) or given.shape != value.shape:
            what = f"of shape {tuple(given.shape)}" if isinstance(given, Tensor) else type(given).__name__
            raise ValueError(f"start[{name!r}] must be a tensor of shape {tuple(value.shape)}, not {what}")
        if _has_memory(given) and given.untyped_storage().data_ptr() in own:
            raise ValueError(
                f"start[{name!r}] is the model's own memory, which training has changed: take copies before attach(), "
                "start = copy.deepcopy(model.state_dict())"
            )


def _has_memory(value: Any) -> bool:
    return isinstance(value, Tensor) and not value.is_meta and value.numel() > 0


# ---------------------------------------------------------------------- optimizers of the search

_fresh: weakref.WeakKeyDictionary[WaveQ, weakref.WeakSet[Optimizer]] = weakref.WeakKeyDictionary()
"""Runs that have not taken a step since they were rewound, each with the optimizers that may move its parameters."""


def _before_step(optimizer: Optimizer, *_unused: Any) -> None:
    for wq, known in list(_fresh.items()):
        if wq.steps > 0 or wq._left:
            del _fresh[wq]
        elif optimizer not in known:
            _refuse_stale(optimizer, wq._model)
            known.add(optimizer)


def _refuse_stale(optimizer: Optimizer, model: nn.Module) -> None:
    ours = {id(parameter) for parameter in model.parameters()}
    moved = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    held = sum(1 for parameter in moved if id(parameter) in ours and optimizer.state.get(parameter))
    if held:
        raise RuntimeError(
            f"this {type(optimizer).__name__} is the search's: of {held} of the model's parameters it still holds "
            "momentum that belongs to other weights. Build a new optimizer from model.parameters() after rewind()"
        )


register_optimizer_step_pre_hook(_before_step)  # never taken off: torch walks over its hooks while it calls them

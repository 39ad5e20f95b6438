"""Looking at a run changes nothing, whatever is looked at and whoever wrote the model's buffers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import waveq
from tests.training import OPTIMIZERS, batches, mlp, train
from waveq.method.view import View

LOOKS: dict[str, Callable[[waveq.WaveQ], object]] = {
    "steps": lambda wq: wq.steps,
    "total_steps": lambda wq: wq.total_steps,
    "phase": lambda wq: wq.phase,
    "learning": lambda wq: wq.learning,
    "strengths": lambda wq: wq.strengths(),
    "bits": lambda wq: wq.bits(),
    "input_bits": lambda wq: wq.input_bits(),
    "input_betas": lambda wq: wq.input_betas(),
    "cost": lambda wq: wq.cost(),
    "betas": lambda wq: wq.betas(),
    "mean_bits": lambda wq: wq.mean_bits(),
    "wave": lambda wq: wq.wave(),
    "history": lambda wq: wq.history(),
    "plot": lambda wq: wq.plot(),
    "on_levels": lambda wq: wq.on_levels(),
    "frozen_weights": lambda wq: wq.frozen_weights(),
    "forecast": lambda wq: wq.forecast(),
    "summary": lambda wq: wq.summary(),
    "diagnose": lambda wq: wq.diagnose(),
    "policy": lambda wq: wq.policy(),
    "metrics": lambda wq: wq.metrics(),
    "scales": lambda wq: wq.scales(),
    "repr": repr,
    "relus_left_out": lambda wq: wq.relus_left_out,
    "clipped_inputs": lambda wq: wq.clipped_inputs(),
}


def run(steps: int, *, seed: int = 0, **options: Any) -> tuple[nn.Module, waveq.WaveQ]:
    model = mlp(seed)
    wq = waveq.attach(model, **{"total_steps": 40, "target": {"mean_bits": 3.0}, "quantizer": "wrpn", **options})
    train(model, wq, OPTIMIZERS["sgd"](model.parameters()), batches(steps))
    return model, wq


def everything(model: nn.Module, wq: waveq.WaveQ) -> dict[str, Any]:
    """What the handle and its progress hold (containers by what is in them), and the model's tensors."""
    held = {f"handle.{name}": value for name, value in vars(wq).items()}
    held |= {f"progress.{name}": value for name, value in vars(wq._progress).items()}
    held = {name: list(value) if isinstance(value, list | dict) else value for name, value in held.items()}
    written = {f"version of {name}": tensor._version for name, tensor in model.state_dict(keep_vars=True).items()}
    return held | written | {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]
        for name, value in one.items()
    )


def loaded() -> tuple[nn.Module, waveq.WaveQ]:
    """A handle that has not noticed yet that its model comes from a checkpoint of phase 2."""
    saved, _ = run(8)
    model, wq = run(0, seed=3)
    model.load_state_dict(saved.state_dict())
    return model, wq


@pytest.mark.parametrize(
    "look", [pytest.param(look, marks=pytest.mark.slow) if look == "plot" else look for look in LOOKS]
)
@pytest.mark.parametrize(
    "make",
    [
        lambda: run(8),
        loaded,
        lambda: run(40),
        lambda: run(20, forward="float"),
        lambda: run(3, bits=4, target=None),
        lambda: run(8, activation_bits="learn", target={"bitops": 0.5}),
    ],
    ids=["phase 2", "loaded", "frozen", "float road", "preset bits", "inputs too"],
)
def test_looking_changes_nothing(look: str, make: Callable[[], tuple[nn.Module, waveq.WaveQ]]) -> None:
    model, wq = make()
    before = everything(model, wq)
    first, second = LOOKS[look](wq), LOOKS[look](wq)
    assert str(first) == str(second)
    assert same(before, everything(model, wq))


def test_every_look_is_tried_and_all_else_is_known_to_change_something() -> None:
    public = {name for name in dir(View) if not name.startswith("_")}
    assert public == set(LOOKS) - {"repr"}
    assert {name for name in dir(waveq.WaveQ) if not name.startswith("_")} - public == {
        "penalty", "backward_penalty", "step", "freeze", "rounded", "finalize", "finalize_copy", "remove",
        "forget_weights",
    }  # fmt: skip

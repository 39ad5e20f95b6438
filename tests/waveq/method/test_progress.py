"""Where a run stands, whoever wrote the model's buffers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import waveq
from tests.training import OPTIMIZERS, batches, mlp, train
from waveq.method.price import pressure, price_factor

TARGET = {"mean_bits": 3.0}


def run(steps: int, *, seed: int = 0, **options: Any) -> tuple[nn.Module, waveq.WaveQ]:
    model = mlp(seed)
    wq = waveq.attach(model, **{"total_steps": 40, "target": TARGET, "quantizer": "wrpn", **options})
    train(model, wq, OPTIMIZERS["sgd"](model.parameters()), batches(steps))
    return model, wq


def loaded() -> tuple[nn.Module, waveq.WaveQ]:
    """A handle that has not noticed yet that its model comes from a checkpoint of phase 2."""
    saved, _ = run(8)
    model, wq = run(0, seed=3)
    model.load_state_dict(saved.state_dict())
    return model, wq


def test_a_checkpoint_is_seen_by_a_look_and_kept_by_a_step() -> None:
    model, wq = loaded()
    assert (wq.steps, wq.phase) == (8, 2)
    (saved, _), dual = run(8), int(model.waveq_dual)  # type: ignore[arg-type]
    assert dual != 0
    wq.step()
    assert (wq.steps, int(model.waveq_step)) == (9, 9)  # type: ignore[arg-type]
    assert int(model.waveq_dual) == dual  # type: ignore[arg-type]  # no gradients, no move, no new price
    model.load_state_dict(saved.state_dict())
    assert wq.steps == 8


def test_tensors_written_without_a_hook_are_seen_too() -> None:
    """As moving averages of models do it, and ``load_state_dict(assign=True)``."""
    model, wq = run(2)
    model.waveq_step.copy_(torch.tensor(30))  # type: ignore[operator, union-attr]
    assert (wq.steps, wq.phase) == (30, 3)
    model.waveq_step = torch.tensor(5)
    assert (wq.steps, wq.phase) == (5, 2)
    again, twin = copy.deepcopy((model, wq))
    again.waveq_step.fill_(6)  # type: ignore[operator, union-attr]
    assert (wq.steps, twin.steps) == (5, 6)


def test_the_price_is_the_schedules_times_what_the_budget_makes_of_it() -> None:
    model, wq = run(9)
    lambda_w, lambda_beta = wq.settings.schedule(9)
    push = pressure(wq.mean_bits(), start=8.0, limit=3.0, progress=(9 - wq.settings.schedule.rise) / 12)
    dual = int(model.waveq_dual) * 2.0**-32  # type: ignore[arg-type]
    assert dual > 0.0
    assert wq.strengths() == (lambda_w, pytest.approx(lambda_beta * price_factor(dual, push)))
    _, free = run(9, target=None)
    assert free.strengths() == free.settings.schedule(9)


def test_the_price_rises_by_the_pressure_before_the_betas_moved() -> None:
    model, wq = run(6)
    push = wq._progress.pressure()
    before = int(model.waveq_dual)  # type: ignore[arg-type]
    train(model, wq, OPTIMIZERS["sgd"](model.parameters()), batches(1))
    moved = (int(model.waveq_dual) - before) * 2.0**-32  # type: ignore[arg-type]
    assert moved == pytest.approx(20.0 * push / wq._progress.phase2_steps, rel=1e-6)
    assert push != wq._progress.pressure()


def test_the_share_of_phase_2_is_clamped() -> None:
    wq = waveq.attach(mlp(), total_steps=40)
    shares = []
    for _ in range(40):
        shares.append(wq._progress.phase2_share)
        wq.step()
    assert shares[0] == shares[2] == 0.0
    assert shares[3] == pytest.approx(1 / 12)
    assert shares[14] == shares[-1] == 1.0


@pytest.mark.slow
def test_where_a_run_stood_is_known_after_leaving() -> None:
    for leave in ("finalize", "remove"):
        model, wq = run(40)
        getattr(wq, leave)()
        assert (wq.steps, wq.phase, wq.strengths()[0]) == (40, 3, wq.settings.schedule(40)[0])
        assert not hasattr(model, "waveq_step")
        other = waveq.attach(model, bits=4)
        other.step()
        assert (wq.steps, other.steps) == (40, 1)

"""Loops that clear gradients early, other optimizers, the very first step, and layers with nothing in them."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import waveq
from tests.training import batches, mlp
from waveq.method.parametrization import parametrization_of


def run(order: str, steps: int = 12, **options: Any) -> tuple[nn.Module, list[float]]:
    model = mlp()
    wq = waveq.attach(model, **{"bits": 3, "lambda_w": 1.0, **options})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for x, y in batches(steps):
        (F.cross_entropy(model(x), y) + wq.penalty()).backward()
        if order == "step, zero":
            optimizer.step()
            wq.step()
            optimizer.zero_grad()
        if order == "zero, step":
            optimizer.step()
            optimizer.zero_grad()
            wq.step()
    return model, [float(parametrization_of(model[place]).strength) for place in (0, 2, 4)]


@pytest.mark.parametrize(
    "options",
    [{}, {"quantizer": "lsq"}, {"bits": "learn", "total_steps": 12}, {"quantizer": "dorefa", "scale": "none"}],
    ids=str,
)
def test_gradients_may_be_cleared_before_or_after_the_step(options: dict[str, Any]) -> None:
    (one, strengths), (other, same) = (run(order, **options) for order in ("step, zero", "zero, step"))
    assert strengths == same
    assert 1.0 not in strengths
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)


def test_two_optimizers_bring_their_own_layers() -> None:
    model = mlp()
    wq = waveq.attach(model, bits=3)
    optimizers = [torch.optim.SGD(model[place].parameters(), lr=0.01) for place in (0, 2, 4)]
    x, y = batches(1)[0]
    (F.cross_entropy(model(x), y) + wq.penalty()).backward()
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    wq.step()
    assert all(float(parametrization_of(model[place]).strength) != 1.0 for place in (0, 2, 4))


def test_an_update_by_hand_that_clears_gradients_early_is_told_once() -> None:
    model = mlp()
    wq = waveq.attach(model, bits=3)
    told = []
    for x, y in batches(25):
        (F.cross_entropy(model(x), y) + wq.penalty()).backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.01 * p.grad  # type: ignore[operator]
        model.zero_grad()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            wq.step()
        told += [str(each.message) for each in caught]
    assert len(told) == 1
    assert "before zero_grad()" in told[0]


def test_a_copy_of_model_and_handle_listens_too() -> None:
    model = mlp()
    wq = waveq.attach(model, bits=3)
    twin, other = copy.deepcopy((model, wq))
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.01)
    x, y = batches(1)[0]
    (F.cross_entropy(twin(x), y) + other.penalty()).backward()
    optimizer.step()
    optimizer.zero_grad()
    other.step()
    assert float(parametrization_of(twin[2]).strength) != 1.0
    assert float(parametrization_of(model[2]).strength) == 1.0


@pytest.mark.parametrize("options", [{}, {"forward": "float", "total_steps": 50}, {"quantizer": "wrpn"}], ids=str)
def test_no_wave_acts_before_its_balance_is_known(options: dict[str, Any]) -> None:
    model = mlp()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1e-6)
    wq = waveq.attach(model, bits=3, lambda_w=1.0, **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for x, y in batches(4):
        optimizer.zero_grad()
        (F.cross_entropy(model(x), y) + wq.penalty()).backward()
        task = [p.grad.norm() for p in model.parameters() if p.grad is not None]
        optimizer.step()
        wq.step()
        assert max(task) < 2.0
    assert max(float(p.detach().abs().max()) for name, p in model.named_parameters() if "original" in name) < 0.05


def test_a_learned_run_s_wave_begins_with_its_balance() -> None:
    model = mlp()
    rise = 7
    wq = waveq.attach(model, bits=3, total_steps=30, schedule=lambda step: (float(step >= rise), 0.0))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for x, y in batches(rise):
        optimizer.zero_grad()
        (F.cross_entropy(model(x), y) + wq.penalty()).backward()
        optimizer.step()
        wq.step()
    assert float(parametrization_of(model[2]).strength) != 1.0


@pytest.mark.parametrize("sizes", [(6, 0), (0, 6)], ids=["no outputs", "no inputs"])
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors:UserWarning")
def test_layers_without_weights_are_left_out(sizes: tuple[int, int]) -> None:
    model = nn.ModuleDict({"used": nn.Linear(6, 4), "empty": nn.Linear(*sizes)})
    wq = waveq.attach(model, total_steps=10, schedule="constant", activation_bits=4)
    assert wq.names == ("used",)
    assert wq.settings.skipped == ("empty",)
    (model["used"](torch.randn(3, 6)).sum() + wq.penalty()).backward()
    wq.step()
    wq.freeze()
    wq.finalize()

"""A learned step moves by a tenth at most, whatever the optimizer and its momentum want."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import waveq
from waveq.method.parametrization import parametrization_of
from waveq.method.step_bounds import MOST_CHANGE


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))


def steps_of(model: nn.Module) -> list[torch.Tensor]:
    return [parameter for name, parameter in model.named_parameters() if name.endswith(".step")]


def test_no_gradient_takes_a_step_through_zero_or_far_away():
    model = network()
    wq = waveq.attach(model, quantizer="lsq", bits=2, activation_bits=2, activation_quantizer="lsq")
    model(torch.randn(4, 8))
    steps = steps_of(model)
    assert len(steps) == 3  # two weights, the inputs of one layer
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
    for sign in (1.0, 1.0, 1.0, -1.0):
        before = [step.detach().clone() for step in steps]
        for step in steps:
            step.grad = torch.full_like(step, 1e6 * sign)
        optimizer.step()
        for old, step in zip(before, steps, strict=True):
            assert step > 0
            assert 1 / (1 + MOST_CHANGE) - 1e-6 < step / old < 1 + MOST_CHANGE + 1e-6
    assert not wq.learning


@pytest.mark.parametrize("lr", [1e-4, 1e-2])
def test_steps_that_move_as_usual_are_left_alone(lr):
    held, free = network(), network()
    handles = [waveq.attach(model, quantizer="lsq", bits=3) for model in (held, free)]
    x = torch.randn(32, 8, generator=torch.Generator().manual_seed(1))
    for model in (held, free):
        model(x).square().mean().backward()
    expected = [step.detach() - lr * step.grad for step in steps_of(free) if step.grad is not None]
    torch.optim.SGD(held.parameters(), lr=lr).step()
    for step, value in zip(steps_of(held), expected, strict=True):
        torch.testing.assert_close(step.detach(), value)
    assert len(handles) == 2


def test_a_copy_is_held_and_a_finished_model_is_not():
    model = network()
    wq = waveq.attach(model, quantizer="lsq", bits=3)
    other, handle = copy.deepcopy((model, wq))
    (step, _) = steps_of(other)
    old = step.item()
    step.grad = torch.tensor(1e6)
    torch.optim.SGD(other.parameters(), lr=1.0).step()
    assert step.item() == pytest.approx(old / (1 + MOST_CHANGE))
    kept = parametrization_of(other[0]).quantizer.step
    handle.remove()
    kept.grad = torch.tensor(1e6)
    torch.optim.SGD([kept], lr=1.0).step()
    assert kept.item() < -1e5


def test_a_layer_that_begins_with_zeros_finds_its_step():
    model = nn.Sequential(nn.Linear(8, 4))
    nn.init.zeros_(model[0].weight)
    wq = waveq.attach(model, quantizer="lsq", bits=3)
    (step,) = steps_of(model)
    optimizer = torch.optim.SGD([step], lr=1.0)
    for _ in range(60):
        step.grad = torch.full_like(step, -0.1)
        optimizer.step()
    assert step.item() > 0.01
    assert not wq.learning


def test_one_long_gradient_and_its_momentum_do_not_throw_the_step_away():
    """What the first batch did to 144 depthwise weights: a gradient ten times the step, at the network's rate."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(16, 16, 3, groups=16))
    wq = waveq.attach(model, quantizer="lsq", bits=2)
    (step,) = steps_of(model)
    start = step.item()
    optimizer = torch.optim.SGD([step], lr=0.02, momentum=0.9)
    for gradient in (11.0 * start, *[0.0] * 7):
        step.grad = torch.full_like(step, gradient)
        optimizer.step()
    assert start - 0.02 * 11.0 * start * sum(0.9**k for k in range(8)) < 0  # where it would be
    assert 0.4 < step.item() / start < 0.5
    assert not wq.learning

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import waveq
from tests.training import batches, mlp, originals, train
from waveq.method.parametrization import parametrization_of
from waveq.method.settings import WaveLayer
from waveq.method.wave_strength import rebalance


@pytest.mark.slow
def test_wave_on_weights_of_a_finalised_model_does_not_throw_them_off() -> None:
    """Fine-tuning from the grid: a balance that made up for a vanishing pull would destroy the weights."""
    model = mlp()
    data = batches(60)
    waveq.attach(model, bits=4, quantizer="wrpn").finalize()
    wq = waveq.attach(model, bits=4, quantizer="wrpn")
    start = originals(model)
    train(model, wq, torch.optim.SGD(model.parameters(), lr=0.05), data)
    moved = max(float((p.detach() - start[name]).abs().max()) for name, p in model.named_parameters())
    assert moved < 1.0


@pytest.mark.slow
@pytest.mark.parametrize("lambda_w", [0.1, 1.0, 3.0])
def test_balance_does_not_feed_on_itself(lambda_w: float) -> None:
    model = mlp()
    wq = waveq.attach(model, bits=4, quantizer="wrpn", lambda_w=lambda_w)
    strengths = []
    for batch in batches(200):
        train(model, wq, torch.optim.SGD(model.parameters(), lr=0.0), [batch])
        strengths.append(float(parametrization_of(model[2]).strength))
    early, late = strengths[20], strengths[-1]
    assert 0.3 < late / early < 3.0


def test_strength_is_the_ratio_of_the_lengths_by_hand() -> None:
    """One layer, WRPN without scale, so that u = w: the wave's gradient has a closed form for every shift."""
    model = nn.Sequential(nn.Linear(50, 1, bias=False))
    wq = waveq.attach(model, bits=3, quantizer="wrpn", scale="none", preset="recommended")
    state = parametrization_of(model[0])
    weight = model[0].parametrizations.weight.original
    n, beta, count = 3.0, 2.0, 50
    theta2 = 2 * math.pi * weight.detach() * n
    pull = math.pi * n / 2**beta / count * torch.sin(theta2)
    task = torch.randn(1, 50, generator=torch.Generator().manual_seed(0))
    task -= (task * pull).sum() / pull.square().sum() * pull  # what the task asks for across the wave's pull
    weight.grad = task + 0.3 * pull
    rebalance(WaveLayer("0", (model[0],), state), wq.settings)
    length = math.pi * n / 2**beta / count * math.sqrt(count / 2)  # rms of a sine over all phases
    assert float(state.strength) == pytest.approx(float(task.norm()) / length, rel=1e-4)
    weight.grad = 5 * task
    rebalance(WaveLayer("0", (model[0],), state), wq.settings)
    assert float(state.strength) == pytest.approx((0.8 + 0.2 * 5) * float(task.norm()) / length, rel=1e-4)


def test_overflowing_and_missing_gradients_keep_the_strength() -> None:
    model = nn.Sequential(nn.Linear(50, 1, bias=False))
    wq = waveq.attach(model, bits=3)
    layer = WaveLayer("0", (model[0],), parametrization_of(model[0]))
    rebalance(layer, wq.settings)
    layer.weight.grad = torch.full_like(layer.weight, math.inf)
    rebalance(layer, wq.settings)
    assert float(layer.state.strength) == 1.0

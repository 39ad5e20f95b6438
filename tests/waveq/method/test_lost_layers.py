"""A layer of which rounding leaves nothing is named."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import waveq


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))


@pytest.mark.parametrize("step", [6e10, -0.1, 1e-12])
def test_a_learned_scale_that_ran_away_is_named(step: float) -> None:
    model = net()
    wq = waveq.attach(model, quantizer="lsq", bits=2)
    assert wq.diagnose() == []
    with torch.no_grad():
        model[2].parametrizations.weight[0].quantizer.step.fill_(step)  # type: ignore[union-attr, index]
    assert [text.split(" (")[0] for text in wq.diagnose()] == ["rounding leaves nothing of 2"]
    wq.finalize()
    assert "a parameter group of their own" in wq.diagnose()[0]


def test_levels_far_apart_are_named_where_nothing_scales_them() -> None:
    model = net()
    with torch.no_grad():
        model[0].weight.mul_(0.01)
    wq = waveq.attach(model, quantizer="wrpn", scale="none", bits=3)
    assert "rounding leaves nothing of 0 (" in wq.diagnose()[0]


@pytest.mark.parametrize("quantizer", ["dorefa", "wrpn", "lsq", "dsq", "midrise", "pact", "ttq"])
def test_usual_layers_are_not(quantizer: str) -> None:
    assert waveq.attach(net(), quantizer=quantizer, bits=2).diagnose() == []


def test_released_scales_layers_of_zeros_and_small_ones_are_not() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(2, 2))
    with torch.no_grad():
        model[1].weight.zero_()
        model[2].weight.mul_(1e-3)
    assert waveq.attach(model, bits=3, preset="released", scale="none").diagnose() == []

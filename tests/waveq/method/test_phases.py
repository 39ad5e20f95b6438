"""What begins with a phase: quantised weights in the forward pass, and bits that are fixed."""

from __future__ import annotations

import pytest
import torch

import waveq
from tests.training import beta_of, mlp
from waveq.method.parametrization import parametrization_of
from waveq.method.phases import enter_phase, freeze_bits


def handle(**options: object) -> tuple[torch.nn.Sequential, waveq.WaveQ]:
    model = mlp()
    wq = waveq.attach(model, total_steps=40, **options)  # type: ignore[arg-type]
    with torch.no_grad():
        for name, beta in (("0", 3.04), ("2", 3.06), ("4", 5.5)):
            beta_of(model, name).fill_(beta)
    return model, wq


def test_bits_freeze_to_the_ceiling_less_the_hysteresis() -> None:
    _, wq = handle()
    freeze_bits(wq._all, wq.settings)
    assert wq.bits() == {"0": 4, "2": 5, "4": 7}


def test_bits_freeze_within_the_budget_and_what_is_frozen_stays() -> None:
    model, wq = handle(target={"mean_bits": 5.0})
    parametrization_of(model[4]).freeze(8)
    freeze_bits(wq._all, wq.settings)
    assert wq.bits() == {"0": 3, "2": 4, "4": 8}  # 4 + 5 + 8 would be 17 of 15: the bits least used go first


@pytest.mark.parametrize(
    ("options", "quantised"),
    [
        ({}, (False, True, True)),
        ({"preset": "paper"}, (True, True, True)),
        ({"preset": "released"}, (False, False, True)),
        ({"forward": "float"}, (False, True, False)),
        ({"forward": "float", "preset": "paper"}, (False, False, False)),
    ],
)
def test_the_forward_pass_by_phase(options: dict[str, object], quantised: tuple[bool, ...]) -> None:
    _, wq = handle(**options)
    for phase, wanted in zip((1, 2, 3), quantised, strict=True):
        enter_phase(wq._all, wq.settings, phase)
        assert all(layer.state.is_quantized is wanted for layer in wq._all)
        assert wq.learning is (phase < 3)

"""Learned bits begin where they are put: betas, ranges and inputs' quantisers there, and the way to the budget."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import waveq
from waveq.method.parametrization import parametrization_of


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))


def train(model: nn.Module, wq: waveq.WaveQ, steps: int) -> None:
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(steps):
        x = torch.randn(64, 8, generator=generator)
        loss = nn.functional.cross_entropy(model(x), (x[:, 0] > 0).long()) + wq.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        wq.step()


def test_a_number_is_for_weights_and_inputs():
    wq = waveq.attach(
        network(), quantizer="lsq", activation_quantizer="lsq", activation_bits="learn", total_steps=9, start_bits=3.5
    )
    assert wq.betas() == pytest.approx(dict.fromkeys("024", 2.5))
    assert wq.input_betas() == pytest.approx(dict.fromkeys("24", 2.5))
    assert set(wq.bits().values()) == {4}


def test_a_policy_brings_the_inputs_and_what_it_does_not_name_begins_with_the_most():
    policy = waveq.Policy({"0": 3, "4": 5}, activation_bits={"4": 2})
    model = network()
    wq = waveq.attach(
        model, quantizer="lsq", activation_quantizer="lsq", activation_bits="learn", total_steps=9, start_bits=policy
    )
    assert wq.betas() == {"0": 2.0, "2": 7.0, "4": 4.0}
    assert wq.input_betas() == {"2": 7.0, "4": 1.0}
    activation = parametrization_of(model[4]).activation
    assert activation is not None
    assert activation.bits == 2


def test_ranges_are_those_of_the_bits_that_are_begun_with():
    """LSQ's range for 2 bits is half of the largest weight, from which the range of 8 bits is counted."""
    far, near, preset = network(), network(), network()
    for model in (far, near, preset):
        nn.init.normal_(model[2].weight, generator=torch.Generator().manual_seed(2))
    waveq.attach(far, quantizer="lsq", total_steps=9)
    waveq.attach(near, quantizer="lsq", total_steps=9, start_bits=2)
    waveq.attach(preset, quantizer="lsq", bits=2)
    spans = [parametrization_of(model[2]).quantizer.span.item() for model in (far, near, preset)]  # type: ignore[attr-defined]
    assert spans[1] == pytest.approx(spans[2])
    assert spans[1] < 0.75 * spans[0]


def test_a_search_that_begins_on_the_budget_stays_near_it_and_keeps_it():
    model = network()
    wq = waveq.attach(model, target={"mean_bits": 3.5}, schedule="search", total_steps=40, start_bits=3.5)
    seen = []
    for _ in range(4):
        train(model, wq, 10)
        seen.append(wq.cost())
    assert all(2.7 < cost < 4.3 for cost in seen)
    assert sum(wq.bits().values()) / 3 <= 3.5


def test_rewinding_forgets_where_the_search_began():
    model = network()
    wq = waveq.attach(model, schedule="search", total_steps=5, start_bits=3)
    train(model, wq, 5)
    assert not waveq.rewind(wq, model).learning


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"start_bits": {"O": 3}}, r"start_bits names 'O', which is no quantised layer; did you mean '0'|\(known"),
        ({"start_bits": 1.0}, r"start_bits must be from 2 to 8 total bits, not 1\.0 \(layer '0'\)"),
        ({"start_bits": 9}, r"start_bits must be from 2 to 8 total bits, not 9 \(layer '0'\)"),
        ({"start_bits": 3, "bits": 4}, "with preset bits nothing is learned"),
        ({"start_bits": True}, "start_bits must be a number of total bits or a mapping of layers to them, not True"),
    ],
)
def test_starts_that_are_none_are_refused(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        waveq.attach(network(), total_steps=9, **options)

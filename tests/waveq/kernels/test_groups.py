"""Layers rounded together, with the wave riding along: the same as each by itself."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import waveq
from tests.training import batches, beta_of, mlp
from waveq._kernels.backends import use_backend
from waveq._kernels.cpu.engine import NumbaEngine
from waveq.method.parametrization import parametrization_of


def attached(**choices: Any) -> tuple[nn.Sequential, waveq.WaveQ]:
    """A network in phase 2, every beta between two whole bits, strengths that differ by layer."""
    model = mlp()
    handle = waveq.attach(model, **{"schedule": lambda _step: (0.2, 0.02), "total_steps": 10**6, **choices})
    handle.step()
    with torch.no_grad():
        for place, name in enumerate(handle.names):
            beta_of(model, name).fill_(3.4)
            parametrization_of(model.get_submodule(name)).strength.fill_(0.5 + place)
    return model, handle


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.fixture
def rounded_layers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many layers each call has rounded."""
    calls: list[int] = []
    original = NumbaEngine.round
    monkeypatch.setattr(NumbaEngine, "round", lambda self, w, table: calls.append(len(w)) or original(self, w, table))
    return calls


def test_all_layers_are_rounded_in_one_call_from_the_second_step_on(rounded_layers: list[int]) -> None:
    model, handle = attached()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for x, _ in batches(3):
        (model(x).square().mean() + handle.penalty()).backward()
        optimizer.step()
        handle.step()
    assert rounded_layers == [1, 1, 1, 3, 3]


def test_layers_that_are_no_longer_read_are_no_longer_rounded(rounded_layers: list[int]) -> None:
    model, handle = attached()
    x = batches(1)[0][0]
    for part in (model, model, model[:1], model[:1], model):
        part(x)
        handle.step()
    assert rounded_layers == [1, 1, 1, 3, 3, 1, 1, 1, 1]


@pytest.mark.parametrize("choices", [{}, {"preset": "paper"}, {"quantizer": "lsq"}, {"quantizer": "wrpn"}], ids=str)
def test_the_wave_that_rides_along_is_the_wave(choices: dict[str, Any], rounded_layers: list[int]) -> None:
    results = []
    for ride in (True, False):
        model, handle = attached(**choices)
        x = batches(1)[0][0]
        outcome = model(x).square().mean()
        if not ride:
            for layer in handle._layers.values():
                layer.state.memory.clear()  # so that the penalty walks over the weights by itself
        rounded_layers.clear()
        penalty = handle.penalty()
        assert (rounded_layers == []) is ride
        (3.0 * (outcome + penalty)).backward()
        betas = [beta_of(model, name).grad for name in handle.names]
        results.append((penalty.detach(), *gradients(model).values(), *betas))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=1e-6)


def test_task_and_wave_may_go_back_one_after_the_other() -> None:
    ends = []
    for apart in (False, True):
        model, handle = attached()
        task, wave = model(batches(1)[0][0]).square().mean(), handle.penalty()
        if apart:
            task.backward()
            wave.backward()
        else:
            (task + wave).backward()
        ends.append(gradients(model))
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value)


def test_the_wave_alone_goes_back_without_the_task() -> None:
    model, handle = attached()
    model(batches(1)[0][0])
    with use_backend("plain"):
        expected = torch.autograd.grad(handle.penalty(), model[2].parametrizations.weight.original)[0]
    handle.step()
    with torch.no_grad():
        beta_of(model, "2").fill_(3.4)
    model(batches(1)[0][0])
    ours = torch.autograd.grad(handle.penalty(), model[2].parametrizations.weight.original)[0]
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-7)


def test_a_weight_changed_before_its_backward_pass_is_refused() -> None:
    model, _ = attached()
    outcome = model(batches(1)[0][0]).sum()
    with torch.no_grad():
        model[2].parametrizations.weight.original.mul_(0.5)
    with pytest.raises(RuntimeError, match="changed in place between the forward and the backward pass"):
        outcome.backward()


def test_a_weight_changed_after_it_was_rounded_with_the_others_is_rounded_again() -> None:
    model, handle = attached()
    x = batches(1)[0][0]
    model(x)
    handle.step()
    _ = model[0].weight  # rounds all three
    with torch.no_grad():
        model[4].parametrizations.weight.original.mul_(-1.0)
        expected = parametrization_of(model[4]).quantize(model[4].parametrizations.weight.original)
    torch.testing.assert_close(model[4].weight, expected)
    with torch.no_grad():
        beta_of(model, "2").fill_(1.0)
    assert len(model[2].weight.unique()) <= 4


def test_a_layer_of_zeros_has_no_pull_beside_others() -> None:
    model, handle = attached()
    with torch.no_grad():
        model[2].parametrizations.weight.original.zero_()
    model(batches(1)[0][0])
    handle.penalty().backward()
    grad = model[2].parametrizations.weight.original.grad
    assert grad is not None
    assert not grad.any()


def test_a_copied_model_has_groups_of_its_own(rounded_layers: list[int]) -> None:
    model, _ = attached()
    x = batches(1)[0][0]
    model(x)
    twin = copy.deepcopy(model)
    rounded_layers.clear()
    with torch.no_grad():
        twin[0].parametrizations.weight.original.mul_(2.0)
    assert not torch.equal(twin[0].weight, model[0].weight)
    assert rounded_layers == [1]
    groups = {id(parametrization_of(net[place]).groups) for net in (model, twin) for place in (0, 2, 4)}
    assert len(groups) == 2


@pytest.mark.filterwarnings("ignore:step.. after an optimizer has moved the weights, but penalty:UserWarning")
@pytest.mark.slow
@pytest.mark.parametrize("way", ["load_state_dict", "to"])
def test_gradients_reach_the_beta_that_took_another_one_s_place(way: str) -> None:
    """Loading a checkpoint and moving the model make new betas; at a clamp or at rest their value is the same."""
    found = []
    for form in ("plain", "numba"):
        with use_backend(form):
            model, handle = attached(schedule=lambda _step: (0.2, 0.0), beta_lr=1e-9)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
            for x, _ in batches(4):
                model(x).square().mean().backward()
                optimizer.step()
                handle.step()
                optimizer.zero_grad()
            if way == "to":
                model.to("cpu")
            else:
                model.load_state_dict({key: value.clone() for key, value in model.state_dict().items()})
            model(x).square().mean().backward()
            found.append([beta_of(model, name).grad for name in handle.names])
    assert all(slope is not None for slope in found[1])
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-7)

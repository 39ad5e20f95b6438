"""The short way to a quantised weight gives way to torch's own wherever something is out of the ordinary."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import waveq
from tests.training import mlp


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2.0 * weight


def test_a_second_read_takes_the_short_way_and_sees_the_same() -> None:
    model = mlp()
    waveq.attach(model, bits=3)
    first = model[0].weight
    calls = []
    hook = nn.modules.module.register_module_forward_pre_hook(lambda module, _args: calls.append(type(module).__name__))
    second = model[0].weight
    hook.remove()
    assert calls == []
    assert torch.equal(first, second)
    assert second.grad_fn is not first.grad_fn


def test_a_parametrisation_on_top_is_seen() -> None:
    model = mlp()
    waveq.attach(model, bits=3)
    before = model[0].weight.detach().clone()
    parametrize.register_parametrization(model[0], "weight", Doubled())
    torch.testing.assert_close(model[0].weight.detach(), 2.0 * before)


def test_a_hook_on_the_parametrisation_is_called() -> None:
    model = mlp()
    waveq.attach(model, bits=3)
    before, seen = model[0].weight.detach().clone(), []
    model[0].parametrizations.weight[0].register_forward_hook(lambda _m, _args, out: seen.append(out) or -out)
    torch.testing.assert_close(model[0].weight.detach(), -before)
    assert len(seen) == 1


def test_torch_s_own_cache_is_honoured() -> None:
    model = mlp()
    waveq.attach(model, bits=3)
    with parametrize.cached():
        assert model[0].weight is model[0].weight
    assert model[0].weight is not model[0].weight


def test_assigning_a_weight_is_answered_by_torch() -> None:
    model = mlp()
    waveq.attach(model, bits=3)
    with pytest.raises(RuntimeError, match="right_inverse"):
        model[0].weight = torch.full((24, 6), 0.25)


def test_copies_and_removal() -> None:
    model = mlp()
    handle = waveq.attach(model, bits=3)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin[0].parametrizations.weight.original.mul_(-1.0)
    torch.testing.assert_close(twin[0].weight.detach(), -model[0].weight.detach())
    handle.remove()
    assert type(model[0]) is nn.Linear
    assert isinstance(model[0].weight, nn.Parameter)
    assert parametrize.is_parametrized(twin[0])

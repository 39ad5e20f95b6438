"""Learned scales while weights are in floating point: DistributedDataParallel must not wait for their gradients."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

import waveq
from tests.training import OPTIMIZERS, batches, mlp, train
from waveq.method.idle_scales import with_idle


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_values_and_gradients_of_the_weight_are_its_own_and_the_others_zero(one_process: None) -> None:
    weight, idle = torch.randn(3, 2, requires_grad=True), torch.tensor(0.5, requires_grad=True)
    used = with_idle(weight, [idle])
    assert torch.equal(used, weight)
    used.square().sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, 2 * weight)
    assert idle.grad is not None
    assert idle.grad.item() == 0.0
    with torch.no_grad():
        assert with_idle(weight, [idle]) is weight
    assert with_idle(weight, []) is weight


@pytest.mark.slow
@pytest.mark.parametrize("find_unused", [False, True])
def test_a_wrapped_network_learns_bits_from_float_weights_on(one_process: None, find_unused: bool) -> None:
    model = mlp()
    wq = waveq.attach(model, total_steps=100, activation_bits=4)
    parallel = nn.parallel.DistributedDataParallel(model, find_unused_parameters=find_unused)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    train(parallel, wq, optimizer, batches(3))
    assert wq.phase == 1
    train(parallel, wq, optimizer, batches(40))
    assert not wq.learning


@pytest.mark.slow
def test_no_optimizer_decays_what_no_step_has_used(one_process: None) -> None:
    model = mlp()
    wq = waveq.attach(model, quantizer="lsq", total_steps=100)
    before = {scale: scale.detach().clone() for scale in wq.scales()}
    parallel = nn.parallel.DistributedDataParallel(model)
    train(parallel, wq, torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=1.0), batches(3))
    assert wq.phase == 1
    assert before
    assert all(torch.equal(scale, value) for scale, value in before.items())

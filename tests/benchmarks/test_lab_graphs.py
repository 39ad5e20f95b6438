"""Recorded steps take the batches, rates and updates of the ordinary loop; here without a GPU to record them on."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

import waveq
from benchmarks.lab.graphs import can_be_recorded, cosine, may_be_recorded, sgd_step, train_by_graph
from benchmarks.lab.job import Job
from benchmarks.lab.training import run_job, run_side_by_side, train_in_loop
from waveq.zoo import build


def test_the_update_is_that_of_torch_sgd():
    torch.manual_seed(0)
    one, steps = nn.Linear(5, 3), 6
    other = copy.deepcopy(one)
    optimizer = torch.optim.SGD(one.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    weights = list(other.parameters())
    velocities, rate = [torch.zeros_like(weight) for weight in weights], torch.zeros(())
    for step in range(steps):
        x = torch.randn(4, 5)
        for network in (one, other):
            network.zero_grad()
            network(x).square().sum().backward()
        optimizer.step()
        schedule.step()
        rate.fill_(cosine(0.1, step, steps))
        sgd_step(weights, velocities, rate, momentum=0.9, weight_decay=0.01)
    for mine, torchs in zip(other.parameters(), one.parameters(), strict=True):
        torch.testing.assert_close(mine, torchs)


@pytest.mark.parametrize("bits", [None, 3])
def test_both_ways_train_alike(tiny, bits):
    setting = replace(tiny, flip=True, batch=16, scale_rate=0.1)
    x = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    part, ends = (x, x.mean((1, 2, 3)).gt(0).long()), []
    for train in (train_in_loop, train_by_graph):
        torch.manual_seed(0)
        network = build("digitsnet", width=0.5)
        handle = None
        if bits is not None:
            handle = waveq.attach(
                network, quantizer="lsq", bits=bits, lambda_w=0.0, activation_bits=4, activation_quantizer="lsq"
            )
        assert can_be_recorded(handle)
        train(network, handle, part, 5, 0.05, setting, 7)
        if handle is not None:
            handle.finalize()
        ends.append(torch.cat([weight.detach().flatten() for weight in network.parameters()]))
    torch.testing.assert_close(ends[1], ends[0], atol=1e-5, rtol=1e-4)


def test_what_moves_by_itself_is_not_recorded():
    assert not can_be_recorded(waveq.attach(build("digitsnet", width=0.5), total_steps=10))
    for more in ({"lambda_w": 0.1}, {"forward": "float"}, {"scale": "max", "fit_range": True}):
        handle = waveq.attach(build("digitsnet", width=0.5), bits=3, total_steps=10, **{"lambda_w": 0.0, **more})
        assert not can_be_recorded(handle)


@pytest.mark.slow
def test_jobs_side_by_side_end_like_jobs_alone(tiny, where):
    jobs = [Job(setting=tiny, seed=0, attach={"quantizer": "lsq", "bits": bits, "lambda_w": 0.0}) for bits in (2, 4)]
    jobs.append(Job(setting=tiny, seed=1, attach={"bits": 4}))
    assert [may_be_recorded(job) for job in jobs] == [True, True, False]
    together = list(run_side_by_side(jobs, replace(where, graphs=2)))
    for job, result in zip(jobs, together, strict=True):
        alone = run_job(job, where)
        assert result["bits"] == alone["bits"]
        assert result["test"] == pytest.approx(alone["test"], abs=2.0)

"""Bits found before training, by the methods that a learned policy is compared with; training data alone."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import torch
from torch import nn

from benchmarks.lab.data import Part, endless
from benchmarks.lab.job import Job
from stripes_sim import LayerShape, Stripes, cost_table
from waveq import PolicyEvaluator
from waveq.allocate import (
    greedy_sensitivity,
    hessian_losses,
    ilp,
    learned_step_bits,
    mean_bits_costs,
    random_at_cost,
    squared_errors,
    uniform,
)
from waveq.allocate.losstables import hessian_traces, measured_table
from waveq.layers import quantizable

__all__ = ["METHODS", "Allocation", "allocate", "costs_of"]

METHODS = ("uniform", "random", "greedy", "hawq", "steps")
BITS = tuple(range(2, 9))
_CALIBRATION_IMAGES = 1024
_HESSIAN_PROBES = 16
_LEARNING_SHARE = 0.35  # of the steps, for learned step sizes


@dataclass(frozen=True)
class Allocation:
    """Bits by layer, and how many of the job's steps are left to train with them.

    Attributes:
        bits: of the weights.
        steps_left: after a search that trained.
        input_bits: of the layers' inputs; those of layers that are missing stay in floating point.
    """

    bits: dict[str, int]
    steps_left: int
    input_bits: dict[str, int] = field(default_factory=dict)


def costs_of(names: tuple[str, ...], layers: list[LayerShape], objective: str) -> dict[str, dict[int, float]]:
    """Cost by layer and total bits: "mean_bits", or what Stripes says ("energy_pj", "cycles")."""
    if objective == "mean_bits":
        return mean_bits_costs(names, BITS)
    return cost_table(layers, Stripes(), bits=BITS).by_layer(objective)


def allocate(network: nn.Module, layers: list[LayerShape], train: Part, job: Job, steps: int, lr: float) -> Allocation:
    """What the job's method makes of its budget; ``network`` is a copy that may be changed.

    The limit is in mean bits, or a share of the cost at 8 bits everywhere ("share_of": 8 says so; shares of 3 bits are
    `benchmarks.lab.search`'s). "steps" learns its bits in the first
    third of the training, as a policy learned by WaveQ does; all others cost no step of it.
    """
    wanted = dict(job.allocation or {})
    method, objective, limit = wanted["method"], wanted["objective"], wanted["limit"]
    if method not in METHODS:
        raise ValueError(f"allocation method {method!r} (known: {', '.join(METHODS)})")
    names = tuple(quantizable(network))
    costs = costs_of(names, layers, objective)
    # mean_bits_costs is the mean itself; the others' unit is a share of their 8-bit cost
    budget = limit if objective == "mean_bits" else limit * sum(row[8] for row in costs.values())
    if method == "steps":
        return _learned_steps(network, costs, budget, train, job, steps, lr)
    few = (train[0][:_CALIBRATION_IMAGES], train[1][:_CALIBRATION_IMAGES])
    if method == "uniform":
        return Allocation(uniform(costs, costs, budget), steps)
    if method == "random":
        return Allocation(random_at_cost(costs, costs, budget, seed=job.seed), steps)
    if method == "greedy":
        evaluator = PolicyEvaluator(network, few, quantizer="dorefa", scale="max")
        return Allocation(greedy_sensitivity(measured_table(evaluator, BITS), costs, budget), steps)
    traces = hessian_traces(network, few, probes=_HESSIAN_PROBES, seed=job.seed)
    errors = squared_errors(network, dict.fromkeys(names, BITS), quantizer="dorefa", scale="max")
    return Allocation(ilp(hessian_losses(network, traces, errors), costs, budget), steps)


def _learned_steps(
    network: nn.Module,
    costs: dict[str, dict[int, float]],
    budget: float,
    train: Part,
    job: Job,
    steps: int,
    lr: float,
) -> Allocation:
    learning = round(_LEARNING_SHARE * steps)
    generator = torch.Generator().manual_seed(job.seed)
    stream = itertools.islice(endless(train, job.setting.batch, generator), learning)
    network.train()
    bits = learned_step_bits(network, costs, budget, batches=stream, learning_rate=lr, momentum=job.setting.momentum)
    return Allocation(bits, steps - learning)

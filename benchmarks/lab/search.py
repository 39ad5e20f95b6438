"""Bits under a budget of multiplications x bits, by every method that the claim is measured against, and by WaveQ.

A method either looks at the float network (uniform, random, greedy, ilp, hawq), which costs no step, or trains for a
share of the job's steps (learned, refined, interpolation, steps). In both cases the float network is then trained with
the bits preset for the steps that are left, so that all methods take as many steps in all.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import waveq
from benchmarks.lab.choices import FLOAT_INPUTS, MACHINE, Choices, Policy, choices_of
from benchmarks.lab.data import Part, endless
from benchmarks.lab.job import Job
from benchmarks.lab.losses import Losses
from benchmarks.lab.optimizer import sgd
from benchmarks.lab.relaxed import WAYS, learned_bits
from stripes_sim import LayerShape

__all__ = ["LEARNING", "LOOKING", "ONE_RUN", "learning", "needs_losses", "search"]

ONE_RUN = "one run"
"""WaveQ without a search of its own: bits are learned while the network is trained, over all steps."""
LOOKING = ("uniform", "random", "greedy", "ilp", "hawq")
Start = Mapping[str, int] | float | None
LEARNING = ("learned", *WAYS)
_TABLE = range(1, 10)  # bits that a table of costs may be asked for


def needs_losses(allocation: Mapping[str, Any] | None) -> bool:
    """Whether a method reads the measured losses."""
    return allocation is not None and bool({allocation["method"], allocation.get("start")} & {"greedy", "ilp", "hawq"})


def search(
    network: nn.Module, layers: list[LayerShape], train: Part, job: Job, steps: int, lr: float, losses: Losses | None
) -> tuple[Policy, int]:
    """The policy that the job's method finds, and the steps that are left to train with it.

    The job's ``allocation`` says ``method``, ``objective`` and ``limit`` (share of 3 bits everywhere); "uniform" takes
    ``bits``, a pair, in the place of a limit, "random" a ``draw``, and those that learn the ``share`` of the steps;
    "learned" also where to ``start``: "even" bits, or those of "hawq" or "ilp".

    Args:
        network: float; not changed.
        layers: its shapes.
        train: images to learn from.
        job: what is asked for.
        steps: of the whole job.
        lr: of the search, as of the training.
        losses: of ``benchmarks.lab.losses``, for those that need them.
    """
    wanted = dict(job.allocation or {})
    method, choices = wanted["method"], choices_of(layers, wanted["objective"])
    if method == "uniform":
        weight_bits, input_bits = wanted["bits"]
        return choices.uniform(weight_bits, input_bits), steps
    if method == "random":
        return choices.random(wanted["limit"], wanted["draw"]), steps
    if method in ("greedy", "ilp", "hawq"):
        assert losses is not None
        weights = losses["hessian" if method == "hawq" else "weights"]
        looking = choices.greedy if method == "greedy" else choices.ilp
        return looking(weights, losses["inputs"], wanted["limit"]), steps
    if method not in LEARNING:
        raise ValueError(f"allocation method {method!r} (known: {', '.join((*LOOKING, *LEARNING))})")
    searching = round(wanted["share"] * steps)
    if not 0 < searching < steps:
        raise ValueError(
            f"--share {wanted['share']:g} of {steps} steps: {searching} to search with, {steps - searching} left"
        )
    generator = torch.Generator().manual_seed(job.seed)
    stream = itertools.islice(endless(train, job.setting.batch, generator, flip=job.setting.flip), searching)
    own = copy.deepcopy(network)
    if method in WAYS:
        momentum = job.setting.momentum
        found = learned_bits(
            own, choices, wanted["limit"], method, stream=stream, steps=searching, lr=lr, momentum=momentum
        )
        return found, steps - searching
    start = _start(choices, wanted["limit"], wanted.get("start"), losses)
    return _wave(own, choices, job, stream, searching, lr, start), steps - searching


def _start(choices: Choices, limit: float, where: str | None, losses: Losses | None) -> Start:
    """Where betas begin: "even" bits that cost the limit, what "hawq" or "ilp" finds, or None, the most bits."""
    if where is None:
        return None
    if where == "even":
        return choices.even(limit)
    assert losses is not None
    weights, inputs = choices.ilp(losses["hessian" if where == "hawq" else "weights"], losses["inputs"], limit)
    return waveq.Policy(weights, activation_bits=inputs)


def learning(choices: Choices, limit: float) -> dict[str, Any]:
    """What ``attach`` is told to learn bits within a limit."""
    # attach counts shares of 8 bits everywhere
    share = limit * choices.reference() / choices.total(choices.uniform(8, 8))
    name = choices.objective if choices.objective in MACHINE else "multiplications"
    told: dict[str, Any] = {"bits": "learn", "target": {name: share}}
    if choices.objective != "bitops":
        return {**told, "layer_costs": choices.by_weight}
    costs = {
        name: {w: {a: choices.cost_of(name, w, a if quantised else FLOAT_INPUTS) for a in (*row, 16)} for w in row}
        for (name, row), quantised in zip(choices.by_weight.items(), choices.quantised().values(), strict=True)
    }
    return {**told, "activation_bits": "learn", "layer_costs": costs}


def _wave(
    network: nn.Module,
    choices: Choices,
    job: Job,
    stream: Any,
    steps: int,
    lr: float,
    start: Start,
) -> Policy:
    """WaveQ's own short run; ``start`` says where the betas begin, the most bits else."""
    wanted = dict(job.allocation or {})
    arguments = {key: value for key, value in job.attach.items() if key not in ("lambda_w", "reestimate_bn")}
    arguments |= learning(choices, wanted["limit"])
    arguments["start_bits"] = start
    handle = waveq.attach(network, schedule="search", total_steps=steps, **arguments)
    optimizer = sgd(network, lr, job.setting)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    network.train()
    for x, y in stream:
        loss = F.cross_entropy(network(x), y) + handle.penalty()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        cosine.step()
        handle.step()
    policy = handle.policy()
    return dict(policy), dict(policy.activation_bits)

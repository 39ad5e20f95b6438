"""One training of one network, done: from its float network to the accuracy on the test part."""

from __future__ import annotations

import copy
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import waveq
from benchmarks.lab import grids as grids  # registers them
from benchmarks.lab import networks as networks
from benchmarks.lab.allocation import Allocation, allocate
from benchmarks.lab.choices import OBJECTIVES, choices_of
from benchmarks.lab.data import Images, Part, batches, endless, images_of
from benchmarks.lab.job import Job, Where
from benchmarks.lab.losses import Losses, read_or_measure
from benchmarks.lab.optimizer import sgd
from benchmarks.lab.search import ONE_RUN, learning, needs_losses, search
from benchmarks.lab.settings import Setting
from stripes_sim import LayerShape, Stripes, cost_table, trace
from waveq.train.run_folder import load_weights
from waveq.zoo import build

__all__ = [
    "FLOAT_BITS",
    "Observer",
    "accuracy",
    "float_network",
    "losses_of",
    "run_job",
]

FLOAT_BITS = 16  # what a layer in floating point costs on the accelerator
Observer = Callable[[int, nn.Module, "waveq.WaveQ | None"], None]


def float_network(setting: Setting, seed: int, where: Where) -> nn.Module:
    """The float network that all jobs of a seed start from: trained once, then read from the folder."""
    network = _fresh(setting, seed, where)
    if setting.init:
        network.load_state_dict(load_weights(setting.init))
        return network
    name = Job(setting=setting, seed=seed).key()
    path = where.folder / f"float-{setting.network}-{seed}-{name}.pt"
    if path.exists():
        network.load_state_dict(torch.load(path, map_location=where.device, weights_only=True))
        return network
    data = images_of(setting, where.device, where.data_dir)
    steps = setting.pretrain_epochs * (len(data.train[1]) // setting.batch)
    _train(network, None, data.train, steps, setting.pretrain_lr, setting, seed, where, None)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{time.time_ns()}")
    torch.save(network.state_dict(), partial)
    partial.rename(path)
    return network


def run_job(job: Job, where: Where, observe: Observer | None = None) -> dict[str, Any]:
    """Train and measure.

    Args:
        job: what to do.
        where: device and folder.
        observe: called with the number of steps taken, the model and the handle: before the first and after each.

    Returns:
        Accuracies in percent (``test``, ``validation``, ``validation_before_rounding`` of the weights in training),
        ``bits`` and ``input_bits`` by layer, ``cost`` as a share of 3 bits everywhere where the bits
        were chosen within one (else NaN), ``mean_bits``, ``energy_pj`` and ``cycles`` of one image on
        Stripes, ``seconds``, ``warnings``, and whether it ``diverged``: then the accuracies are those of a network of
        NaN, which is to guess.
    """
    run = _begin(job, where)
    _train(*run.training(), where, observe)
    return _measured(run)


@dataclass(frozen=True, eq=False)
class _Run:
    """A job that is ready to be trained."""

    job: Job
    data: Images
    network: nn.Module
    layers: list[LayerShape]
    handle: waveq.WaveQ | None
    steps: int
    lr: float
    started: float

    def training(self) -> tuple[nn.Module, waveq.WaveQ | None, Part, int, float, Setting, int]:
        """What a training wants to know; the seed of the order of images is not the float network's."""
        seed = self.job.seed + 1000
        return self.network, self.handle, self.data.train, self.steps, self.lr, self.job.setting, seed


def _begin(job: Job, where: Where) -> _Run:
    started = time.perf_counter()
    setting = job.setting
    data = images_of(setting, where.device, where.data_dir)
    network = _fresh(setting, job.seed, where) if job.scratch else float_network(setting, job.seed, where)
    layers = trace(network, (setting.channels, setting.size, setting.size))
    epochs = setting.epochs if job.epochs is None else job.epochs
    epochs += setting.pretrain_epochs if job.scratch else 0
    steps = epochs * (len(data.train[1]) // setting.batch)
    lr = (setting.pretrain_lr if job.scratch else setting.lr) if job.lr is None else job.lr
    arguments = dict(job.attach)
    arguments.pop("reestimate_bn", None)
    if job.allocation is not None and job.allocation["method"] == ONE_RUN:
        choices = choices_of(layers, job.allocation["objective"])
        arguments = {**arguments, **learning(choices, job.allocation["limit"])}
        del arguments["lambda_w"]  # the wave as the preset has it
    elif job.allocation is not None:
        found = _found(network, layers, data.train, job, steps, lr, where)
        arguments["bits"], steps = found.bits, found.steps_left
        if found.input_bits:
            arguments["activation_bits"] = found.input_bits
    handle = _attach(network, arguments, layers, steps) if arguments else None
    return _Run(job, data, network, layers, handle, steps, lr, started)


def _measured(run: _Run) -> dict[str, Any]:
    network, handle, layers, data = run.network, run.handle, run.layers, run.data
    before = accuracy(network, data.validation)
    bits, input_bits = {layer.name: FLOAT_BITS for layer in layers}, {}
    diverged = not all(bool(torch.isfinite(parameter).all()) for parameter in network.parameters())
    if handle is not None:
        bits |= handle.bits()
        if diverged:  # there is no policy then; its inputs count as floating point
            handle.remove()
        else:
            input_bits = dict(handle.policy().activation_bits)
            handle.finalize()
    job = run.job
    if reestimated := job.attach.get("reestimate_bn", 0):
        passes = endless(data.train, job.setting.batch, torch.Generator().manual_seed(job.seed + 2000))
        waveq.reestimate_batch_norm(network, (x for x, _ in itertools.islice(passes, reestimated)))
    score = Stripes().run(layers, bits, {layer.name: input_bits.get(layer.name, FLOAT_BITS) for layer in layers})
    objective = "" if job.allocation is None else job.allocation["objective"]
    cost = choices_of(layers, objective).share((bits, input_bits)) if objective in OBJECTIVES else math.nan
    return {
        "test": accuracy(network, data.test),
        "validation": accuracy(network, data.validation),
        "validation_before_rounding": before,
        "bits": bits,
        "input_bits": input_bits,
        "cost": cost,
        "mean_bits": float(np.mean(list(bits.values()))),
        "energy_pj": score.energy_pj,
        "cycles": score.cycles,
        "seconds": time.perf_counter() - run.started,
        "diverged": diverged,
        "warnings": handle.diagnose() if handle is not None else [],
    }


def losses_of(setting: Setting, seed: int, where: Where) -> Losses:
    """What each layer of a seed's float network loses by few bits: measured once, then read from the folder."""
    path = where.folder / f"losses-{setting.network}-{seed}-{Job(setting=setting, seed=seed).key()}.json"
    train = images_of(setting, where.device, where.data_dir).train
    return read_or_measure(path, float_network(setting, seed, where), train, seed)


def _found(
    network: nn.Module, layers: list[LayerShape], train: Part, job: Job, steps: int, lr: float, where: Where
) -> Allocation:
    assert job.allocation is not None
    if job.allocation["objective"] == "mean_bits" or job.allocation.get("share_of") == 8:
        return allocate(copy.deepcopy(network), layers, train, job, steps, lr)
    losses = losses_of(job.setting, job.seed, where) if needs_losses(job.allocation) else None
    (bits, input_bits), left = search(network, layers, train, job, steps, lr, losses)
    return Allocation(bits, left, input_bits)


@torch.no_grad()
def accuracy(network: nn.Module, part: Part) -> float:
    """Percent of images whose class is found."""
    was_training = network.training
    network.eval()
    right = sum(int((network(x).argmax(1) == y).sum()) for x, y in batches(part, 500))
    network.train(was_training)
    return 100.0 * right / len(part[1])


def _fresh(setting: Setting, seed: int, where: Where) -> nn.Module:
    torch.manual_seed(seed)
    classes = images_of(setting, where.device, where.data_dir).classes
    network = build(
        setting.network,
        num_classes=classes,
        in_channels=setting.channels,
        input_size=setting.size,
        width=setting.width,
    )
    return network.to(where.device)


def _attach(network: nn.Module, arguments: dict[str, Any], layers: list[LayerShape], steps: int) -> waveq.WaveQ:
    wave = arguments.pop("wave", None)
    if wave is not None:
        arguments["schedule"] = _rising(wave["rise"] * steps, steps, wave["strength"])
    if isinstance(arguments.get("layer_costs"), str):
        table = cost_table(layers, Stripes(), bits=range(1, 10))
        arguments["layer_costs"] = table.by_layer(arguments["layer_costs"])
    return waveq.attach(network, total_steps=steps, **arguments)


def _rising(begin: float, steps: int, strength: float) -> Callable[[int], tuple[float, float]]:
    def profile(step: int) -> tuple[float, float]:
        return strength * min(1.0, max(0.0, (step - begin) / max(1.0, steps - begin))), 0.0

    return profile


def _train(
    network: nn.Module,
    handle: waveq.WaveQ | None,
    part: Part,
    steps: int,
    lr: float,
    setting: Setting,
    seed: int,
    where: Where,
    observe: Observer | None,
) -> None:
    """The loop that users write: the penalty beside the loss, a step of the handle after the optimizer's."""
    optimizer = sgd(network, lr, setting)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    torch.manual_seed(seed)  # dropout
    generator = torch.Generator().manual_seed(seed)
    network.train()
    if observe is not None:
        observe(0, network, handle)
    stream = itertools.islice(endless(part, setting.batch, generator, flip=setting.flip), steps)
    for step, (x, y) in enumerate(stream, start=1):
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=where.bf16):
            loss = F.cross_entropy(network(x), y)
        if handle is not None:
            loss = loss + handle.penalty()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        cosine.step()
        if handle is not None:
            handle.step()
        if observe is not None:
            observe(step, network, handle)

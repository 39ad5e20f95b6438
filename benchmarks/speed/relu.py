"""What it saves to leave out the ReLUs before layers whose inputs are quantised, in a training step.

Each network twice, with inputs of 4 bits: once as ``attach`` leaves it, once with every ReLU running. The two take
turns; the table shows the median over rounds of the ratio within a round, with quartiles, and the peak memory.
Gradients are compared bit for bit first. "relu alone" is the ReLU and the quantiser by themselves, forward and back.
"""

from __future__ import annotations

import argparse
import copy
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import waveq
from benchmarks._report import write_json
from benchmarks.speed.step import peak_of
from waveq import backend
from waveq.method.relus import Leaning
from waveq.quantizers import DoReFaActivation, quantize_activation
from waveq.zoo import build

SEED = 0
BITS = 4
VALUES = 2**22
NETWORKS = ("relu alone", "vgg11", "vgg11-bn", "mobilenet-v2")
Work = Callable[[], list[Tensor]]


def alone() -> dict[str, Work]:
    """Half of the values negative, as before a ReLU."""
    x = torch.randn(VALUES).requires_grad_()
    above, lean = torch.randn(VALUES), DoReFaActivation(BITS)
    assert lean.saves_rectifying(x), "no compiled kernel runs here"

    def two_passes() -> list[Tensor]:
        return list(torch.autograd.grad(quantize_activation(F.relu(x), BITS), x, above))

    def one_pass() -> list[Tensor]:
        return list(torch.autograd.grad(lean.rectified(x), x, above))

    return {"with": two_passes, "without": one_pass}


def network(name: str, batch: int) -> tuple[dict[str, Work], int]:
    """Forward and backward pass with and without ReLUs, and how many ReLUs are left out."""
    model = build(name).train()
    handle = waveq.attach(model, bits=BITS, activation_bits=BITS, activation_quantizer="dorefa", lambda_w=0.0)
    x, y = torch.randn(batch, 3, 32, 32), torch.randint(0, 10, (batch,))
    with torch.no_grad():
        model(x)  # shows the signs of the inputs
    handle.step()
    twin = copy.deepcopy(model)
    Leaning(twin).remove()

    def work(net: nn.Module) -> Work:
        def step() -> list[Tensor]:
            torch.manual_seed(SEED)  # dropout
            return list(torch.autograd.grad(F.cross_entropy(net(x), y), list(net.parameters())))

        return step

    return {"with": work(twin), "without": work(model)}, len(handle.relus_left_out)


def discard(work: Work) -> None:
    """Run it for its memory alone."""
    work()


def measure(name: str, *, rounds: int, batch: int) -> dict[str, Any]:
    """One row of the table."""
    torch.manual_seed(SEED)
    forms, left_out = (alone(), 1) if name == NETWORKS[0] else network(name, batch)
    one, two = (work() for work in forms.values())
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True)), "the gradients differ"
    del one, two
    peaks: dict[str, int] = {}
    for form in (*forms, *forms):  # the first time what is freed may be older than the counting
        peaks[form] = peak_of(functools.partial(discard, forms[form]), "cpu")
    times: dict[str, list[float]] = {form: [] for form in forms}
    for turn in range(rounds):
        for form in list(forms)[:: 1 if turn % 2 else -1]:
            begun = time.perf_counter()
            forms[form]()
            times[form].append(time.perf_counter() - begun)
    ratios = [a / b for a, b in zip(times["without"], times["with"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return {
        "relus_left_out": left_out,
        "ms": {form: 1e3 * statistics.median(taken) for form, taken in times.items()},
        "ratio": middle,
        "ratio_quartiles": [low, high],
        "peak_bytes": peaks,
        "peak_ratio": peaks["without"] / peaks["with"],
    }


def main(argv: list[str]) -> int:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks relu", description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", metavar="OUT")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    print(f"{backend()}\n")
    print(f"{'':<12} {'ReLUs':>5} {'with ms':>9} {'without':>9} {'ratio':>7} {'quartiles':>13} {'peak':>6}")
    rows = {}
    for name in options.networks:
        row = rows[name] = measure(name, rounds=options.rounds, batch=options.batch)
        spread = "{:.3f}-{:.3f}".format(*row["ratio_quartiles"])
        print(
            f"{name:<12} {row['relus_left_out']:>5} {row['ms']['with']:9.1f} {row['ms']['without']:9.1f} "
            f"{row['ratio']:7.3f} {spread:>13} {row['peak_ratio']:6.3f}"
        )
    if options.json:
        settings = {"seed": SEED, "bits": BITS, "rounds": options.rounds, "batch": options.batch}
        settings |= {"threads": options.threads, "values_alone": VALUES, "backend": str(backend()).splitlines()}
        write_json(options.json, {**settings, "networks": rows})
    return 0

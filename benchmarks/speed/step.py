"""What quantised training costs: time and memory of one optimiser step beside plain float training.

All methods take turns within every round, and each round's times are divided by the plain step's of the same round;
the table shows medians and quartiles. On a busy machine read the processor-time column: other people's work stretches
the wall clock, not it. Brevitas and torchao take part where they are installed (``pip install brevitas torchao``).
"naive wave" is "dorefa+wave" by the plain formulas, "compiled wave" the same through ``torch.compile`` (all layers'
formulas as one graph, the layers themselves as ever), on a GPU also with CUDA graphs. What does not run has a row that
says why. Defaults take about twelve minutes on two cores; ``--networks simplenet5 --rounds 5`` takes one or two.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

import waveq
from benchmarks._report import write_json
from benchmarks.speed._compiled import CompiledForm
from waveq import backend, use_backend
from waveq.layers import quantizable
from waveq.zoo import build

SEED = 0
BITS = 4
SIZES = {"simplenet5": 32, "resnet20": 32, "resnet18": 224, "mobilenet_v2": 224}
PLAIN, FUSED, NAIVE = "plain", "dorefa+wave", "naive wave"
COMPILED = {"compiled wave": None, "compiled wave, CUDA graph": "reduce-overhead"}  # with the mode of torch.compile
PEERS = ("brevitas", "torchao")
METHODS = (PLAIN, "dorefa", FUSED, "dorefa+wave by channel", "lsq", "lsq+wave", NAIVE, *COMPILED, *PEERS)
Step = Callable[[Tensor, Tensor], None]


@dataclass
class Method:
    """One way to train: what a step does, and its times."""

    name: str
    step: Step
    model: nn.Module
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    ready_s: float = 0.0  # what the first steps took, in which things are compiled


# ---------------------------------------------------------------------- methods


def ours(model: nn.Module, kind: str) -> waveq.WaveQ:
    """First and last layer in float, as the peers have it."""
    names = list(quantizable(model))
    skip = (names[0], names[-1])
    if kind == "dorefa":
        return waveq.attach(model, quantizer="dorefa", bits=BITS, skip=skip, lambda_w=0.0)
    if kind == "lsq":
        return waveq.attach(model, quantizer="lsq", bits=BITS, skip=skip, lambda_w=0.0)
    levels: dict[str, Any] = {"quantizer": kind.partition("+")[0], "granularity": "layer"}
    if kind.endswith("by channel"):
        levels["granularity"] = "channel"
    # a constant profile puts every step into phase 2, where betas move too
    return waveq.attach(model, skip=skip, **levels, total_steps=10**6, schedule=lambda _step: (0.1, 0.02))


def brevitas(model: nn.Module) -> None:
    """Every inner layer becomes Brevitas' own, with its default weight quantiser and float activations."""
    from brevitas.nn import QuantConv2d, QuantLinear

    for name in list(quantizable(model))[1:-1]:
        old = model.get_submodule(name)
        if isinstance(old, nn.Conv2d):
            new: nn.Module = QuantConv2d(
                old.in_channels,
                old.out_channels,
                old.kernel_size,
                stride=old.stride,
                padding=old.padding,
                groups=old.groups,
                bias=old.bias is not None,
                weight_bit_width=BITS,
            )
        else:
            assert isinstance(old, nn.Linear)
            new = QuantLinear(old.in_features, old.out_features, bias=old.bias is not None, weight_bit_width=BITS)
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, new.to(next(old.parameters()).device))


def torchao(model: nn.Module) -> None:
    """torchao swaps Linear layers alone; its fake quantiser goes on the inner layers' weights, one scale a channel."""
    from torchao.quantization.qat import FakeQuantizerBase, IntxFakeQuantizeConfig

    class Fake(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            config = IntxFakeQuantizeConfig(torch.int4, "per_channel", is_symmetric=True)
            self.fake = FakeQuantizerBase.from_config(config)

        def forward(self, weight: Tensor) -> Tensor:
            return self.fake(weight.flatten(1)).view_as(weight)

    for name in list(quantizable(model))[1:-1]:
        parametrize.register_parametrization(model.get_submodule(name), "weight", Fake())


def method(name: str, network: nn.Module, bf16: bool) -> Method:
    """A copy of the network made ready for one method, with its own optimizer."""
    model = copy.deepcopy(network).train()
    handle, compiled, form = None, None, "auto"
    if name.startswith(("dorefa", "lsq")):
        handle = ours(model, name)
    elif name == NAIVE:
        handle, form = ours(model, FUSED), "plain"
    elif name in COMPILED:
        handle = ours(model, FUSED)
        compiled = CompiledForm(handle, COMPILED[name])
    elif name != PLAIN:
        {"brevitas": brevitas, "torchao": torchao}[name](model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    device = next(model.parameters()).device.type

    def step(x: Tensor, y: Tensor) -> None:
        with use_backend(form):
            if compiled is not None:
                compiled.round()
            with torch.autocast(device, torch.bfloat16, enabled=bf16):
                loss = F.cross_entropy(model(x), y)
            if handle is not None:
                loss = loss + (handle if compiled is None else compiled).penalty()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if handle is not None:
                handle.step()

    return Method(name, step, model)


def obstacle(name: str, device: str) -> str:
    """Why a method cannot run here; empty where it can."""
    if name in PEERS and not importlib.util.find_spec(name):
        return "not installed"
    return "CUDA graphs need a GPU" if COMPILED.get(name) and device != "cuda" else ""


# ---------------------------------------------------------------------- measuring


def peak_of(work: Callable[[], None], device: str) -> int:
    """Most bytes that torch held at once during the work, beyond what it held before."""
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(profile_memory=True) as profile:
        work()
    held, peak = 0, 0
    events = profile.profiler.kineto_results.events()  # type: ignore[union-attr]
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def resident(model: nn.Module) -> int:
    """Parameters, buffers and momentum."""
    own = sum(p.numel() * p.element_size() for p in model.parameters())
    return 2 * own + sum(b.numel() * b.element_size() for b in model.buffers())


def measure(network: str, *, names: Sequence[str], rounds: int, batch: int, device: str, bf16: bool) -> dict[str, Any]:
    """Methods on one network, the plain step first; of a method that does not run, why."""
    torch.manual_seed(SEED)
    size = SIZES[network]
    model = build(network).to(device)
    x = torch.randn(batch, 3, size, size, device=device)
    with torch.no_grad():
        classes = copy.deepcopy(model).eval()(x[:1]).shape[1]
    y = torch.randint(0, classes, (batch,), device=device)
    methods: list[Method] = []
    refused: dict[str, str] = {}
    for name in (PLAIN, *(name for name in names if name != PLAIN)):
        if why := obstacle(name, device):
            refused[name] = why
            continue
        try:
            methods.append(prepared(name, model, x, y, bf16))
        except Exception as error:
            if name not in (*COMPILED, *PEERS):
                raise
            refused[name] = told(error)  # others' programs: what they cannot do must not cost the other rows
    for turn in range(rounds):
        order = methods[turn % len(methods) :] + methods[: turn % len(methods)]  # nobody always follows the same one
        for each in order:
            if device == "cuda":
                torch.cuda.synchronize()
            wall, cpu = time.perf_counter(), time.process_time()
            each.step(x, y)
            if device == "cuda":
                torch.cuda.synchronize()
            each.wall.append(time.perf_counter() - wall)
            each.cpu.append(time.process_time() - cpu)
    return {each.name: summary(each, methods[0]) for each in methods} | {
        name: {"why": why} for name, why in refused.items()
    }


def prepared(name: str, network: nn.Module, x: Tensor, y: Tensor, bf16: bool) -> Method:
    """A method after its first steps, in which things are compiled, with its peak."""
    began = time.perf_counter()
    each = method(name, network, bf16)
    each.step(x, y)
    each.step(x, y)
    each.ready_s = time.perf_counter() - began
    each.peak_bytes = resident(each.model) + peak_of(lambda: each.step(x, y), x.device.type)
    return each


def told(error: Exception) -> str:
    """The kind of an error and its first line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"


def summary(each: Method, plain: Method) -> dict[str, Any]:
    """Medians and quartiles of the ratios to the plain step of the same round."""
    result: dict[str, Any] = {
        "wall_ms": 1e3 * statistics.median(each.wall),
        "cpu_ms": 1e3 * statistics.median(each.cpu),
    }
    for clock in ("wall", "cpu"):
        ratios = [a / b for a, b in zip(getattr(each, clock), getattr(plain, clock), strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        result[f"{clock}_ratio"], result[f"{clock}_ratio_quartiles"] = middle, [low, high]
    result |= {"peak_bytes": each.peak_bytes, "peak_ratio": each.peak_bytes / plain.peak_bytes}
    return {**result, "ready_s": each.ready_s}


def show(network: str, batch: int, table: dict[str, Any]) -> None:
    """One network's table."""
    print(f"\n{network}, batch {batch}")
    heads = (
        ("wall ms", 9),
        ("ratio", 7),
        ("quartiles", 13),
        ("cpu ms", 9),
        ("ratio", 7),
        ("quartiles", 13),
        ("peak", 6),
    )
    print(" ".join([f"{'method':<25}", *(f"{head:>{width}}" for head, width in heads)]))
    for name, row in table.items():
        if "why" in row:
            print(f"{name:<25} {row['why']}")
            continue
        spread = {clock: "{:.3f}-{:.3f}".format(*row[f"{clock}_ratio_quartiles"]) for clock in ("wall", "cpu")}
        print(
            f"{name:<25} {row['wall_ms']:9.1f} {row['wall_ratio']:7.3f} {spread['wall']:>13} "
            f"{row['cpu_ms']:9.1f} {row['cpu_ratio']:7.3f} {spread['cpu']:>13} {row['peak_ratio']:6.3f}"
        )


def main(argv: list[str]) -> int:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks step", description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, help="default: 128 at 32 pixels, 8 at 224 (256 on a GPU)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", metavar="OUT")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    bf16 = options.device == "cuda"
    print(backend())
    results = {}
    for network in options.networks:
        batch = options.batch or (256 if bf16 else 128 if SIZES[network] == 32 else 8)
        asked = {"names": options.methods, "rounds": options.rounds, "batch": batch, "device": options.device}
        table = measure(network, **asked, bf16=bf16)
        results[network] = {"batch": batch, "methods": table}
        show(network, batch, table)
    if options.json:
        settings = {"seed": SEED, "bits": BITS, "rounds": options.rounds, "threads": options.threads}
        settings |= {"device": options.device, "autocast_bf16": bf16, "backend": str(backend()).splitlines()}
        write_json(options.json, {**settings, "networks": results}, "brevitas", "torchao", "triton")
    return 0

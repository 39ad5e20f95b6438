"""The penalty alone: bytes per second of value and gradient against a plain copy, from 10^4 to 10^8 weights.

Layers of at most 2^20 weights, DoReFa's tanh over its maximum, 4 bits. What must move is one read of the weights and
one write of the gradient; a copy of the weights moves as much, so that its time is the limit. The plain form is eager
torch with autograd. Forms take turns; the table shows medians. 10^8 weights need 4 GB.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import waveq
from benchmarks._report import write_json

SEED = 0
BITS = 4
LAYER = 2**20


def attached(start: torch.Tensor) -> tuple[waveq.WaveQ, list[torch.Tensor]]:
    """Layers that hold the weights, with nothing but their wave; and their weights."""
    layers = nn.ModuleList()
    for part in start.split(LAYER):
        layer = nn.Linear(1, 1, bias=False)
        layer.weight = nn.Parameter(part.clone()[None])
        layers.append(layer)
    # released: its strength needs no gradients to be measured first
    choices = {
        "preset": "released",
        "bits": BITS,
        "scale": "max",
        "lambda_w": 1.0,
        "schedule": "constant",
        "fit_range": False,
    }
    handle = waveq.attach(layers, quantizer="dorefa", forward="float", **choices)
    return handle, list(layers.parameters())


def forms(size: int, device: str, dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    """The same value and gradient in both forms, checked against each other, and a copy."""
    start = (torch.randn(size, generator=torch.Generator().manual_seed(SEED)) * 0.05).to(device, dtype)
    handle, weights = attached(start)
    target = torch.empty_like(start)

    def work(form: str) -> tuple[torch.Tensor, ...]:
        with waveq.use_backend(form):
            return torch.autograd.grad(handle.penalty(), weights)

    def copied() -> object:
        return target.copy_(start)

    found: dict[str, Callable[[], object]] = {"copy": copied, "plain": lambda: work("plain")}
    here = waveq.backend().cuda if device == "cuda" else waveq.backend().cpu
    if here.name != "plain":
        found["fused"] = lambda: work("auto")
        ours, theirs = work("auto")[0].float(), work("plain")[0].float()
        apart = float((ours - theirs).abs().max() / theirs.abs().max())
        assert apart < 1e-2, f"the two forms differ by {apart:g} of the largest gradient"
    return found


def seconds(work: Callable[[], object], repeats: int, device: str) -> tuple[float, float]:
    """Wall and processor time of one call, the mean of some."""
    if device == "cuda":
        torch.cuda.synchronize()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        work()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - wall) / repeats, (time.process_time() - cpu) / repeats


def measure(size: int, *, rounds: int, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """Medians for one size."""
    candidates = forms(size, device, dtype)
    repeats = max(1, min(200, 2_000_000 // size))
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, work in candidates.items():
            times[name].append(seconds(work, repeats, device))
    moved = 2 * size * torch.empty((), dtype=dtype).element_size()
    row: dict[str, Any] = {"weights": size, "bytes": moved}
    for name, pairs in times.items():
        wall, cpu = (statistics.median(column) for column in zip(*pairs, strict=True))
        row[name] = {"wall_s": wall, "cpu_s": cpu, "gb_per_s": moved / wall / 1e9, "best_wall_s": min(pairs)[0]}
    if "fused" in row:
        row["share_of_copy"] = row["copy"]["wall_s"] / row["fused"]["wall_s"]
        row["faster_than_plain"] = row["plain"]["wall_s"] / row["fused"]["wall_s"]
        row["less_cpu_than_plain"] = row["plain"]["cpu_s"] / row["fused"]["cpu_s"]
    return row


def main(argv: list[str]) -> int:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks penalty", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10**4, 10**5, 10**6, 11 * 10**6, 10**8])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--json", metavar="OUT")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", message=".*without step")
    print(f"{waveq.backend()}\n")
    heads = (("weights", 10), ("copy GB/s", 10), ("fused GB/s", 11), ("of copy", 8), ("plain GB/s", 11))
    print(" ".join(f"{head:>{width}}" for head, width in (*heads, ("faster", 7), ("by cpu", 7))))
    rows = []
    for size in options.sizes:
        row = measure(size, rounds=options.rounds, device=options.device, dtype=getattr(torch, options.dtype))
        rows.append(row)
        line = f"{size:>10} {row['copy']['gb_per_s']:10.2f} "
        if "fused" in row:
            line += f"{row['fused']['gb_per_s']:11.2f} {row['share_of_copy']:8.2f} {row['plain']['gb_per_s']:11.3f} "
            line += f"{row['faster_than_plain']:7.1f} {row['less_cpu_than_plain']:7.1f}"
        print(line)
    if options.json:
        settings = {"seed": SEED, "bits": BITS, "rounds": options.rounds, "threads": options.threads}
        settings |= {"device": options.device, "dtype": options.dtype, "backend": str(waveq.backend()).splitlines()}
        write_json(options.json, {**settings, "rows": rows}, "triton")
    return 0

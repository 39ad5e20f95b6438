"""The penalty alone: bytes per second of value and gradient against a plain copy, from 10^4 to 10^8 weights.

Layers of at most 2^20 weights, DoReFa's tanh over its maximum, beta 3.3. What must move is one read of the weights and
one write of the gradient; a copy of the weights moves as much, so that its time is the limit. The plain form is eager
torch with autograd. Forms take turns; the table shows medians. 10^8 weights need 4 GB.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from waveq._kernels.interface import WaveRow
from waveq._kernels.wave import fused_wave

from benchmarks._report import write_json
from waveq._kernels.backends import backend, engine_for
from waveq.functional import sine_penalty
from waveq.quantizers import make_quantizer

SEED = 0
BETA = 3.3
LAYER = 2**20


def forms(size: int, device: str, dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    """The same value and gradient three ways, checked against each other, and a copy."""
    start = (torch.randn(size, generator=torch.Generator().manual_seed(SEED)) * 0.05).to(device, dtype)
    weights = [part.clone().requires_grad_() for part in start.split(LAYER)]
    quantizers = [make_quantizer("dorefa", weight.detach().float(), scale="max") for weight in weights]
    grid = quantizers[0].grid()
    beta = torch.full((len(weights),), BETA, device=device)
    target = torch.empty_like(start)

    def plain() -> tuple[torch.Tensor, ...]:
        units = [quantizer.unit(weight.float()) for quantizer, weight in zip(quantizers, weights, strict=True)]
        total = torch.stack([sine_penalty(u, beta[0], grid=grid) for u in units]).sum()
        return torch.autograd.grad(total, weights)

    def compiled() -> tuple[torch.Tensor, ...]:
        engine = engine_for(weights[0])
        assert engine is not None
        rows = [
            WaveRow(weight, quantizer.coordinate_recipe(weight, largest, BETA), grid)
            for quantizer, weight, largest in zip(quantizers, weights, engine.largest(weights), strict=True)
        ]
        total = fused_wave(engine, rows, beta, strength=torch.ones_like(beta), beta_strength=0.0, order=1)
        return torch.autograd.grad(total, weights)

    def copied() -> object:
        return target.copy_(start)

    found: dict[str, Callable[[], object]] = {"copy": copied, "plain": plain}
    if engine_for(weights[0]) is not None:
        found["fused"] = compiled
        ours, theirs = compiled()[0].float(), plain()[0].float()
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
    print(f"{backend()}\n")
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
        settings = {"seed": SEED, "beta": BETA, "rounds": options.rounds, "threads": options.threads}
        settings |= {"device": options.device, "dtype": options.dtype, "backend": str(backend()).splitlines()}
        write_json(options.json, {**settings, "rows": rows}, "triton")
    return 0

"""The penalty alone: bytes per second of value and gradient against a plain copy, from 10^4 to 10^8 weights.

Layers of at most 2^20 weights, DoReFa's tanh over its maximum, 4 bits. What must move is one read of the weights and
one write of the gradient; a copy of the weights moves as much, so that its time is the limit. The plain form is eager
torch with autograd, "compiled" the same formulas of all layers as one graph of ``torch.compile``. Forms take turns; the
table shows medians. 10^8 weights need 4 GB, and their graph of 96 layers a minute or two to be compiled.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import waveq
from benchmarks._report import write_json
from benchmarks.speed._compiled import compiled_penalty
from benchmarks.speed.step import told

SEED = 0
BITS = 4
LAYER = 2**20
FORMS = ("plain", "fused", "compiled")


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


@dataclass(frozen=True)
class Forms:
    """What can be timed at one size, and of what cannot, why.

    Attributes:
        work: by form; "copy" copies the weights.
        why: by form.
        ready_s: what a form's first call took, in which it is compiled.
    """

    work: dict[str, Callable[[], object]]
    why: dict[str, str]
    ready_s: dict[str, float]


def forms(size: int, names: Sequence[str], device: str, dtype: torch.dtype) -> Forms:
    """The same value and gradient in several forms, checked against the plain one, and a copy."""
    start = (torch.randn(size, generator=torch.Generator().manual_seed(SEED)) * 0.05).to(device, dtype)
    handle, weights = attached(start)
    target = torch.empty_like(start)

    def work(backend: str, penalty: Callable[[], torch.Tensor] = handle.penalty) -> tuple[torch.Tensor, ...]:
        with waveq.use_backend(backend):
            return torch.autograd.grad(penalty(), weights)

    found = Forms({"copy": lambda: target.copy_(start), "plain": lambda: work("plain")}, {}, {})
    here = waveq.backend().cuda if device == "cuda" else waveq.backend().cpu
    graph = compiled_penalty(handle)
    made = {"fused": lambda: work("auto"), "compiled": lambda: work("plain", graph)}
    for name in (name for name in names if name in made):
        if name == "fused" and here.name == "plain":
            found.why[name] = here.reason
            continue
        began = time.perf_counter()
        try:
            ours = made[name]()[0].float()
        except Exception as error:
            if name != "compiled":
                raise
            found.why[name] = told(error)  # the compiler's, or that there is none
            continue
        theirs = work("plain")[0].float()
        apart = float((ours - theirs).abs().max() / theirs.abs().max())
        assert apart < 1e-2, f"{name} and plain differ by {apart:g} of the largest gradient"
        found.ready_s[name] = time.perf_counter() - began
        found.work[name] = made[name]
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


def measure(size: int, *, names: Sequence[str], rounds: int, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """Medians for one size; of a form that does not run, why."""
    found = forms(size, names, device, dtype)
    candidates = found.work
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
        row[name] |= {"ready_s": found.ready_s[name]} if name in found.ready_s else {}
    row |= {name: {"why": why} for name, why in found.why.items()}
    if "fused" in candidates:
        row["share_of_copy"] = row["copy"]["wall_s"] / row["fused"]["wall_s"]
        row["faster_than_plain"] = row["plain"]["wall_s"] / row["fused"]["wall_s"]
        row["less_cpu_than_plain"] = row["plain"]["cpu_s"] / row["fused"]["cpu_s"]
    return row


def line(row: dict[str, Any]) -> str:
    """One size: GB/s of each form, and how much faster than plain, in wall and processor time."""
    rates = [row.get(name, {}).get("gb_per_s") for name in ("copy", *FORMS)]
    compiled = row["compiled"].get("wall_s") if "compiled" in row else None
    ratios = [row.get("faster_than_plain"), row.get("less_cpu_than_plain")]
    ratios.append(None if compiled is None else row["plain"]["wall_s"] / compiled)
    cells = [f"{'-':>9}" if rate is None else f"{rate:9.3f}" for rate in rates]
    widths = (len("plain/fused"), 9, len("plain/compiled"))
    cells += [f"{'-':>{w}}" if ratio is None else f"{ratio:{w}.2f}" for ratio, w in zip(ratios, widths, strict=True)]
    return " ".join([f"{row['weights']:>10}", *cells])


def main(argv: list[str]) -> int:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks penalty", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10**4, 10**5, 10**6, 11 * 10**6, 10**8])
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS), help="beside the copy and plain")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--json", metavar="OUT")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", message=".*without step")
    print(f"{waveq.backend()}\n")
    heads = ("copy GB/s", "plain", "fused", "compiled", "plain/fused", "by cpu", "plain/compiled")
    print(" ".join([f"{'weights':>10}", *(f"{head:>{max(len(head), 9)}}" for head in heads)]))
    rows = []
    for size in options.sizes:
        asked = {"names": options.forms, "rounds": options.rounds, "device": options.device}
        row = measure(size, **asked, dtype=getattr(torch, options.dtype))
        rows.append(row)
        print(line(row))
        for name in FORMS:
            if "why" in row.get(name, {}):
                print(f"{'':>10} {name}: {row[name]['why']}")
    if options.json:
        settings = {"seed": SEED, "bits": BITS, "rounds": options.rounds, "threads": options.threads}
        settings |= {"device": options.device, "dtype": options.dtype, "backend": str(waveq.backend()).splitlines()}
        write_json(options.json, {**settings, "rows": rows}, "triton")
    return 0

"""Past one machine: what a step sends, what a policy costs to file, writers of one store, and LLM-sized policies.

Parts: messages (collectives of a step in two processes over gloo, with their bytes, and what 8, 64 and 1,024 ranks
would add: a model of log2(ranks) rounds of the measured message), store (policies a second that 1 to 8 processes write
into one SQLite file, each result a transaction of its own), policies (what a campaign and a search add to each
evaluation), llm (300 layers of 10^9 weights: traced, priced, allocated). Seconds of the last two are
those of the processor, for other programs may run beside.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

import waveq
from benchmarks._report import write_json
from benchmarks.speed._writers import open_campaign, rows_of, write
from pareto import DesignSpace, Store, additive_frontier, run_campaign, search, within_budget
from stripes_sim import Stripes, cost_table, trace
from waveq.allocate import ilp, tabulate
from waveq.zoo import build

RANKS = (2, 8, 64, 1024)
WRITERS = (1, 2, 4, 8)
WIDTHS = (2, 3, 4, 5, 8)
_FLOATS = (1, 64, 4096)  # of a message that is timed
_STEP = 0.1  # seconds


def messages(args: argparse.Namespace) -> dict[str, Any]:
    """Two processes over gloo train a network with learned bits of weights and inputs."""
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("spawn")
        queue = context.Queue()
        ranks = [
            context.Process(target=_rank, args=(rank, f"{folder}/meeting", args.network, args.steps, queue))
            for rank in range(2)
        ]
        for process in ranks:
            process.start()
        found: dict[str, Any] = queue.get(timeout=540)
        for process in ranks:
            process.join()
    message, each = found["message_seconds"]["64"], found["messages_a_step"]
    found["overhead_seconds"] = {str(ranks): each * message * math.log2(ranks) for ranks in RANKS}
    print(f"{args.network}: {found['layers']} layers with learned bits, {found['inputs']} inputs")
    print(f"each step: {each:.2f} messages, bytes {found['bytes_a_step']}; weights {found['gradient_bytes']:,}")
    print(f"the first step: {found['first_step']}")
    print(f"a message of 64 floats between two processes: {1e6 * message:.0f} µs (measured)")
    for ranks, seconds in found["overhead_seconds"].items():
        print(f"  {ranks:>5} ranks: {1e6 * seconds:8.0f} µs a step, {seconds / _STEP:.1%} of one of 100 ms (model)")
    return found


def _rank(rank: int, meeting: str, network: str, steps: int, queue: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    seen: list[Counter[str]] = []
    plain = {name: getattr(dist, name) for name in ("all_reduce", "broadcast")}

    def counted(name: str, tensor: torch.Tensor, *given: Any, **more: Any) -> Any:
        seen[-1][sys._getframe(1).f_globals["__name__"]] += tensor.numel() * tensor.element_size()
        seen[-1]["messages"] += 1
        return plain[name](tensor, *given, **more)

    for name in plain:
        setattr(dist, name, partial(counted, name))
    torch.manual_seed(0)
    model = build(network)
    handle = waveq.attach(model, bits="learn", activation_bits="learn", target={"bitops": 0.3}, total_steps=400)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    size = (3, 32, 32)
    x, y = torch.randn(2, *size), torch.randint(10, (2,))
    for _ in range(steps):
        seen.append(Counter())
        loss = F.cross_entropy(model(x), y) + handle.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        handle.step()
    for name, call in plain.items():
        setattr(dist, name, call)
    timed = {str(n): _least_seconds(partial(dist.all_reduce, torch.zeros(n))) for n in _FLOATS}
    dist.barrier()
    if rank == 0:
        steady = seen[steps // 2 :]  # the sign of an input is asked for in every 16th of them
        queue.put(
            {
                "layers": len(handle.bits()),
                "inputs": len(handle.input_bits()),
                "messages_a_step": sum(each["messages"] for each in steady) / len(steady),
                "bytes_a_step": {
                    name: sum(each[name] for each in steady) / len(steady)
                    for name in sorted(set().union(*steady) - {"messages"})
                },
                "first_step": dict(seen[0]),
                "gradient_bytes": sum(4 * p.numel() for p in model.parameters() if p.requires_grad),
                "message_seconds": timed,
            }
        )
    dist.destroy_process_group()


def _least_seconds(call: Callable[[], Any], repeats: int = 200) -> float:
    """The 20th percentile: of what a quiet machine takes."""
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return sorted(times)[repeats // 5]


def store(args: argparse.Namespace) -> dict[str, Any]:
    """Results a second, by number of writing processes."""
    found: dict[str, Any] = {}
    print("writers  results/s  slowest transaction ms")
    for writers in WRITERS:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            context = multiprocessing.get_context("spawn")
            queue, gate = context.Queue(), context.Barrier(writers)
            path = Path(folder) / "campaign.sqlite"
            workers = [
                context.Process(target=write, args=(number, path, args.seconds, gate, queue))
                for number in range(writers)
            ]
            for worker in workers:
                worker.start()
            told = [queue.get(timeout=300) for _ in workers]
            for worker in workers:
                worker.join()
            with Store.read(path) as campaign:
                assert len(campaign) == sum(count for count, _ in told)  # nothing is lost
        rate, slowest = sum(count for count, _ in told) / args.seconds, max(worst for _, worst in told)
        found[str(writers)] = {"results_per_s": rate, "slowest_s": slowest}
        print(f"{writers:>7}  {rate:>9.0f}  {1e3 * slowest:>8.0f}")
    with (
        tempfile.TemporaryDirectory(dir=args.folder) as folder,
        open_campaign(Path(folder) / "campaign.sqlite") as campaign,
    ):
        rows = rows_of(0, 4096)
        begun = time.perf_counter()
        for start in range(0, len(rows), 64):
            campaign.add(rows[start : start + 64], np.ones(64))
        found["units of 64, one writer"] = {"results_per_s": len(rows) / (time.perf_counter() - begun)}
    print(f"one writer, 64 results a transaction: {found['units of 64, one writer']['results_per_s']:.0f} results/s")
    return found


def policies(args: argparse.Namespace) -> dict[str, Any]:
    """What a policy costs where its evaluation costs nothing."""
    layers = {f"layer{n}": WIDTHS for n in range(20)}
    space = DesignSpace(layers)
    found = {}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        names = tuple(layers)
        for name, call in {
            "campaign": lambda path: run_campaign(
                space.sample(4096, seed=0), _sum, path, engine="serial", progress=False
            ),
            "search": lambda path: search(space, _sum, store=path, evaluations=300, progress=False),
        }.items():
            with Store(f"{folder}/{name}.sqlite", layers=names, fingerprint={}) as campaign:
                begun = time.process_time()
                call(campaign)
                found[name] = {"seconds_a_policy": (time.process_time() - begun) / len(campaign)}
            print(f"{name}: {1e3 * found[name]['seconds_a_policy']:.2f} ms a policy of 20 layers")
    return found


def _sum(rows: Any) -> Any:
    return rows.sum(axis=1) / rows.shape[1]


def llm(args: argparse.Namespace) -> dict[str, Any]:
    """Layers that exist by their shapes alone."""
    seconds: dict[str, float] = {}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        begun = time.process_time()
        out = call()
        seconds[name] = time.process_time() - begun
        print(f"{name:<28} {seconds[name]:8.3f} s")
        return out

    side = 32_768  # squared: 1.07e9 weights a layer
    model = nn.Sequential(*(nn.Linear(side, side, bias=False, device="meta") for _ in range(args.layers)))
    layers = timed("trace", lambda: trace(model, (side,)))
    table = timed("cost table, 5 widths", lambda: cost_table(layers, Stripes(), bits=WIDTHS))
    timed("price 1,000 policies", lambda: table.score(np.full((1000, args.layers), 4, dtype=np.uint8)))
    generator = np.random.default_rng(0)
    sensitivity = generator.lognormal(0.0, 1.5, args.layers)
    loss = tabulate(table.names, WIDTHS, sensitivity[:, None] * 4.0 ** -np.array(WIDTHS))
    cost = table.by_layer("energy_pj")
    budget = 0.5 * sum(row[8] for row in cost.values())
    chosen = timed("allocate (ilp)", lambda: ilp(loss, cost, budget))
    slack = 1e-3 * sum(row[2] for row in loss.values())
    front = timed("frontier, error 0.1 %", lambda: additive_frontier(cost, loss, slack))
    best = within_budget(front, budget)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    lost = sum(loss[name][bits] for name, bits in chosen.items())
    print(
        f"{args.layers} layers, {args.layers * side**2:.3g} weights; most memory {memory / 2**20:.0f} MiB; loss of the "
        f"ilp {lost:.4g}, on the frontier of {len(front):,} points {best['loss']:.4g}"
    )
    sizes = {"layers": args.layers, "weights": args.layers * side**2, "frontier": len(front)}
    return {**sizes, "seconds": seconds, "most_memory_bytes": memory, "loss_ilp": lost, "loss_frontier": best["loss"]}


PARTS = {"messages": messages, "store": store, "policies": policies, "llm": llm}


def main(argv: list[str]) -> int:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks scale", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--steps", type=int, default=128, help="half of them are counted")
    parser.add_argument("--seconds", type=float, default=3.0, help="of writing, for each number of writers")
    parser.add_argument("--layers", type=int, default=300)
    parser.add_argument("--folder", help="on the disk whose writes are timed (default: that of temporary files)")
    parser.add_argument("--json", metavar="OUT")
    options = parser.parse_args(argv)
    results = {}
    for part in options.parts:
        results[part] = PARTS[part](options)
        print()
    if options.json:
        write_json(options.json, results)
    return 0

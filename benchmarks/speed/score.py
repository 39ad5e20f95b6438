"""Speed of scoring: stored policies, whole spaces, many machines, deep networks, one cold and warm, other simulators.

Without peers it takes about a minute. ``--peers PYTHON`` names the interpreter of an environment with the PyPI packages
``scalesim`` and ``zigzag-dse``; they then score AlexNet in the same run, which takes minutes. What each does in that
time differs and is printed: this is what a user waits for, not like for like.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import pareto
from benchmarks._networks import BITFUSION, convolutional_layers
from benchmarks._report import write_json
from stripes_sim import LayerShape, Stripes, cost_table, explore
from stripes_sim.text import aligned
from tests import reference_stripes as slow

SEED = 0
BITS = range(2, 9)


def seconds(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Best wall time, and best processor time over all threads (which other users of the machine do not stretch)."""
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return min(walls), min(cpus)


def network(layers: int) -> list[LayerShape]:
    """ResNet-18's convolutions (BitFusion's variant, 17) repeated until there are enough layers."""
    shapes = BITFUSION["ResNet-18"][0]
    fields = ("kind", "in_channels", "out_channels", "kernel_size", "input_size", "stride", "padding")
    return [
        LayerShape(name=f"layer{i}", **{key: getattr(shapes[i % len(shapes)], key) for key in fields})
        for i in range(layers)
    ]


def stored(count: int, repeats: int) -> list[dict[str, Any]]:
    """Policies in memory -> cycles and energy together, beside the NumPy twin and a plain write to new memory."""
    rows = []
    rng = np.random.default_rng(SEED)
    for layers, policies in ((21, count // 10), (21, count), (42, count // 2), (84, count // 4), (168, count // 8)):
        table = cost_table(network(layers), Stripes(), bits=BITS)
        block = rng.integers(2, 9, size=(policies, layers), dtype=np.uint8)
        keys = ("cycles", "energy_pj")
        few = block[: min(policies, 200_000)]
        costs = {key: table.costs[key] for key in keys}
        expected, got = slow.totals(costs, table.bits, few), table.score(few, objectives=keys)
        for key in keys:
            np.testing.assert_allclose(got[key], expected[key], rtol=1e-12)
        wall, cpu = seconds(lambda table=table, block=block, keys=keys: table.score(block, objectives=keys), repeats)
        numpy_wall, _ = seconds(lambda costs=costs, bits=table.bits, few=few: slow.totals(costs, bits, few), 2)
        # totals come in new memory, which the system clears first: so does what they are held against
        write_wall, write_cpu = seconds(lambda policies=policies: np.full((2, policies), 1.0), repeats)
        rows.append(
            {
                "layers": layers,
                "policies": policies,
                "millions_per_s": policies / wall / 1e6,
                "millions_per_core_s": policies / cpu / 1e6,
                "numpy_millions_per_s": len(few) / numpy_wall / 1e6,
                "write_millions_per_s": policies / write_wall / 1e6,
                "write_millions_per_core_s": policies / write_cpu / 1e6,
            }
        )
    return rows


def spaces(repeats: int) -> list[dict[str, Any]]:
    """The frontier of energy and an additive loss over whole spaces, none of their policies formed one by one."""
    rows = []
    rng = np.random.default_rng(SEED)
    for layers, bits in ((12, (2, 3, 4, 5, 8)), (16, (2, 3, 4, 5, 8)), (21, (2, 4, 8))):
        table = cost_table(network(layers), Stripes(), bits=bits)
        cost = pd.DataFrame(table.energy_pj, index=table.names, columns=bits)
        loss = pd.DataFrame(-np.sort(-rng.random(cost.shape), axis=1), index=table.names, columns=bits)
        front = pareto.additive_frontier(cost, loss)
        wall, cpu = seconds(lambda cost=cost, loss=loss: pareto.additive_frontier(cost, loss), repeats)
        rows.append(
            {
                "space": f"{len(bits)}^{layers}",
                "policies": len(bits) ** layers,
                "efficient": len(front),
                "seconds": wall,
                "core_seconds": cpu,
            }
        )
    return rows


def many_machines(machines: int, repeats: int) -> dict[str, Any]:
    """One policy of 53 layers on a grid of machines, beside the twin that runs one after the other."""
    layers = network(53)
    side = max(round(machines ** (1 / 3)), 1)
    grid = {key: tuple(range(1, side + 1)) for key in ("tiles", "rows", "columns")}
    few = {key: values[:4] for key, values in grid.items()}
    expected, got = slow.explored(layers, 4, Stripes(), few), explore(layers, 4, few)
    for key in expected[0]:
        assert got[key].tolist() == [row[key] for row in expected], key
    wall, cpu = seconds(lambda: explore(layers, 4, grid), repeats)
    _, twin = seconds(lambda: slow.explored(layers, 4, Stripes(), few), repeats)
    return {
        "machines": side**3,
        "layers": len(layers),
        "seconds": wall,
        "core_seconds": cpu,
        "twin_core_seconds": twin / len(expected) * side**3,
    }


def by_depth(repeats: int) -> list[dict[str, Any]]:
    """Processor time of a run and of a cost table by the number of layers, which it should be in proportion to."""
    rows = []
    for depth in (50, 200, 800, 3200):
        layers = network(depth)
        bits = dict.fromkeys((layer.name for layer in layers), 4)
        _, run = seconds(lambda layers=layers, bits=bits: Stripes().run(layers, bits).energy_pj, 5 * repeats)
        _, table = seconds(lambda layers=layers: cost_table(layers, Stripes(), bits=BITS), 5 * repeats)
        rows.append({"layers": depth, "run_us_per_layer": 1e6 * run / depth, "table_us_per_layer": 1e6 * table / depth})
    return rows


def one_network(repeats: int) -> dict[str, Any]:
    """21 layers: a call in this process, and whole processes (wall, processor seconds) with and without kernels."""
    resnet = network(21)
    hw = Stripes()
    bits = dict.fromkeys((layer.name for layer in resnet), 4)
    hw.run(resnet, bits)
    runs = []
    for _ in range(50 * repeats):
        start = time.perf_counter()
        result = hw.run(resnet, bits)
        _ = result.cycles, result.energy_pj
        runs.append(time.perf_counter() - start)
    body = (
        "import numpy as np; from stripes_sim import Stripes, cost_table, LayerShape;"
        "net = [LayerShape(name=str(i), kind='linear', in_channels=64, out_channels=64) for i in range(21)];"
        "Stripes().run(net, 4).energy_pj;"
    )
    score = body + "cost_table(net, Stripes()).score(np.full((1, 21), 4, dtype=np.uint8))"
    with tempfile.TemporaryDirectory() as empty:
        cold = _process(score, {"NUMBA_CACHE_DIR": empty})
        warm = _process(score, {"NUMBA_CACHE_DIR": empty})
    return {
        "run_21_layers_ms": 1e3 * float(np.median(runs)),
        "process_run": _process(body, {}),
        "process_first_score_no_cache": cold,
        "process_first_score_cached": warm,
    }


def _process(code: str, environment: dict[str, str]) -> tuple[float, float]:
    """Wall and processor seconds of a new interpreter that runs ``code``."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, **environment})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - start, after.ru_utime - before.ru_utime


_SCALESIM_CONFIG = """
[general]
run_name = alexnet
[architecture_presets]
ArrayHeight: 32
ArrayWidth: 32
IfmapSramSzkB: 1024
FilterSramSzkB: 1024
OfmapSramSzkB: 1024
IfmapOffset: 0
FilterOffset: 10000000
OfmapOffset: 20000000
Bandwidth: 32
Dataflow: ws
MemoryBanks: 1
ReadRequestBuffer: 32
WriteRequestBuffer: 32
[layout]
IfmapCustomLayout: False
IfmapSRAMBankBandwidth: 10
IfmapSRAMBankNum: 10
IfmapSRAMBankPort: 2
FilterCustomLayout: False
FilterSRAMBankBandwidth: 10
FilterSRAMBankNum: 10
FilterSRAMBankPort: 2
[sparsity]
SparsitySupport: false
SparseRep: ellpack_block
OptimizedMapping: false
BlockSize: 8
RandomNumberGeneratorSeed: 40
[run_presets]
InterfaceBandwidth: CALC
UseRamulatorTrace: False
"""
_ZIGZAG = """
import os, sys, zigzag
from zigzag.api import get_hardware_performance_zigzag
inputs = os.path.join(os.path.dirname(zigzag.__file__), "inputs")
result = get_hardware_performance_zigzag(
    workload=f"{inputs}/workload/alexnet.onnx", accelerator=f"{inputs}/hardware/tpu_like.yaml",
    mapping=f"{inputs}/mapping/tpu_like.yaml", opt="energy", lpf_limit=6, dump_folder=sys.argv[1],
    pickle_filename=sys.argv[1] + "/list.pickle",
)
print("energy", result[0], "cycles", result[1])
"""


def peers(python: str, limit_s: float) -> list[dict[str, Any]]:
    """SCALE-Sim and ZigZag on AlexNet, each in its own process, in the same run as ours."""
    layers, _ = convolutional_layers("AlexNet")
    start = time.perf_counter()
    code = (
        "from benchmarks._networks import convolutional_layers; from stripes_sim import Stripes;"
        "layers, bits = convolutional_layers('AlexNet'); print(Stripes(serial='activations').run(layers, 16, bits))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    ours = time.perf_counter() - start
    rows = [
        {
            "tool": "stripes_sim",
            "seconds": ours,
            "outcome": "done",
            "does": "closed form; process start to printed table",
        }
    ]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "scale.cfg").write_text(_SCALESIM_CONFIG)
        head = "Layer, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Filters, Strides,"
        lines = [
            f"{layer.name}, {layer.padded_size[0]}, {layer.padded_size[1]}, {layer.kernel_size[0]}, "
            f"{layer.kernel_size[1]}, {layer.in_channels // layer.groups}, {layer.out_channels}, "
            f"{layer.stride[0]},"
            for layer in layers
        ]
        (root / "net.csv").write_text("\n".join([head, *lines]) + "\n")
        scale = ["-m", "scalesim.scale", "-c", "scale.cfg", "-t", "net.csv", "-l", "net.csv", "-p", "out", "-s", "N"]
        (root / "zz.py").write_text(_ZIGZAG)
        searches = "searches mappings of AlexNet's 8 layers for the best energy"
        steps = "steps through the cycles of 5 convolutions, 32 x 32 array"
        for tool, package, arguments, does in (
            ("ZigZag", "zigzag-dse", ["zz.py", folder], searches),
            ("SCALE-Sim", "scalesim", scale, steps),
        ):
            start = time.perf_counter()
            try:
                done = subprocess.run(
                    [python, *arguments], cwd=root, capture_output=True, text=True, timeout=limit_s, check=False
                )
                lines = (done.stdout + done.stderr).strip().splitlines()
                outcome = "done" if done.returncode == 0 else f"failed: {lines[-1] if lines else done.returncode}"
            except subprocess.TimeoutExpired:
                outcome = f"stopped after {limit_s:.0f} s"
            except OSError as error:
                outcome = f"did not start: {error.strerror}"
            rows.append({"tool": tool, "seconds": time.perf_counter() - start, "outcome": outcome, "does": does})
            rows[-1]["version"] = _version(python, package)
    return rows


def _version(python: str, package: str) -> str:
    code = f"import importlib.metadata; print(importlib.metadata.version({package!r}))"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "not installed"


def main(argv: list[str]) -> int:
    """Print the tables; ``--json OUT`` writes them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks score", description=__doc__)
    parser.add_argument("--json", metavar="OUT", help="write the tables to a JSON file")
    parser.add_argument(
        "--policies", type=int, default=4_000_000, help="stored policies of 21 layers (default: %(default)s)"
    )
    parser.add_argument("--repeats", type=int, default=5, help="the best of this many counts (default: %(default)s)")
    parser.add_argument("--peers", metavar="PYTHON", help="interpreter with scalesim and zigzag-dse installed")
    parser.add_argument("--peer-limit", type=float, default=900, help="seconds for each of them (default: %(default)s)")
    options = parser.parse_args(argv)

    rows = stored(options.policies, options.repeats)
    print("Stored policies, cycles and energy together, millions per second\n")
    columns = (
        "layers",
        "policies",
        "millions_per_s",
        "millions_per_core_s",
        "numpy_millions_per_s",
        "write_millions_per_s",
        "write_millions_per_core_s",
    )
    head = ("layers", "policies", "wall", "per core", "NumPy twin", "plain write", "per core")
    print(aligned(head, [tuple(_cell(row[key]) for key in columns) for row in rows], left=0))

    searched = spaces(options.repeats)
    print("\nFrontier of two totals over whole spaces, exact (pareto.additive_frontier)\n")
    columns = ("space", "policies", "efficient", "seconds", "core_seconds")
    head = ("space", "policies", "efficient", "seconds", "core seconds")
    print(aligned(head, [tuple(_cell(row[key]) for key in columns) for row in searched]))

    machines, depths = many_machines(10_000, options.repeats), by_depth(options.repeats)
    print(
        f"\n{machines['machines']:,} machines on {machines['layers']} layers: "
        f"{machines['core_seconds']:.2f} s of one core"
    )
    print(f"the twin, one run after the other: {machines['twin_core_seconds']:.2f} s (from its first 64 machines)\n")
    columns = ("layers", "run_us_per_layer", "table_us_per_layer")
    table = [tuple(_cell(row[key]) for key in columns) for row in depths]
    print(aligned(("layers", "run, us per layer", "cost table, us per layer"), table, left=0))

    single = one_network(options.repeats)
    print("\nOne network of 21 layers\n")
    print(f"run(), shapes known: {single['run_21_layers_ms']:.3f} ms")
    for what, key in (
        ("a process that runs one network", "process_run"),
        ("first score of many policies, no compiled kernels", "process_first_score_no_cache"),
        ("first score of many policies, kernels on disk", "process_first_score_cached"),
    ):
        wall, cpu = single[key]
        print(f"{what}: {wall:.2f} s ({cpu:.2f} s of processor time)")
    others = peers(options.peers, options.peer_limit) if options.peers else []
    if others:
        print("\nAlexNet, what a user waits for (not like for like)\n")
        columns = ("tool", "version", "outcome", "does")
        table = [(f"{row['seconds']:.2f} s", *(str(row.get(key, "here")) for key in columns)) for row in others]
        print(aligned(("wall", "tool", "version", "outcome", "what it does"), table, left=5))
    if options.json:
        results = {"seed": SEED, "threads": os.environ.get("NUMBA_NUM_THREADS", "all cores"), "stored": rows}
        results.update(machines=machines, depths=depths)
        write_json(options.json, {**results, "spaces": searched, "one_network": single, "peers": others})
    return 0


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}" if value < 10 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)

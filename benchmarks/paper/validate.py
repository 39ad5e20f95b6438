"""Cycle model against DNNsim case by case, and traced shapes against torch's own counter.

The first table counts equal cases of cycles, PE slots and weight reads, and says which differ by default and why. The
cases are ``dnnsim/static_cases.json`` in the folder of reference data beside the checkout, or ``--cases FILE``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks._report import write_json
from stripes_sim import Accelerator, DaDianNao, LayerShape, Stripes
from stripes_sim.text import aligned

COUNTERS = {
    "compute_cycles": "compute_cycles",
    "scheduled_pes": "scheduled_PEs",
    "idle_pes": "idle_PEs",
    "dram_weight_reads": "dram_wgt_reads",
    "buffer_weight_reads": "gbuffer_wgt_reads",
}
"""Our column: the simulator's."""


def machine(case: dict[str, Any], compat: str | None) -> Accelerator:
    """The accelerator of a case."""
    hw = case["hw"]
    settings = {key: hw[key] for key in ("lanes", "columns", "rows", "tiles")} | {
        "pe_width_bits": hw["pe_width"],
        "data_width_bits": case["data_width"],
        "buffer_banks": hw["gbuffer_wgt_banks"],
        "buffer_bank_width_bits": hw["gbuffer_wgt_bank_width"],
        "compat": compat,
    }
    return DaDianNao(**settings) if hw["architecture"] == "DaDianNao" else Stripes(serial="activations", **settings)


def layer(case: dict[str, Any]) -> LayerShape:
    """The layer of a case."""
    shape = case["layer"]
    sizes = {"name": shape["name"], "in_channels": shape["C"], "out_channels": shape["K"]}
    if shape["type"] == "fc":
        return LayerShape(kind="linear", **sizes)
    return LayerShape(
        kind="conv",
        kernel_size=(shape["R"], shape["S"]),
        input_size=(shape["H"], shape["W"]),
        stride=shape["stride"],
        padding=shape["pad"],
        groups=shape["groups"],
        **sizes,
    )


def differences(case: dict[str, Any], compat: str | None) -> dict[str, tuple[int, int]]:
    """Counters where ours and the simulator's differ: (ours, theirs)."""
    row = machine(case, compat).run([layer(case)], case["wgt_prec"], case["act_prec"]).frame.iloc[0]
    pairs = {ours: (int(row[ours]), int(case[theirs])) for ours, theirs in COUNTERS.items() if theirs in case}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def reason(case: dict[str, Any]) -> str:
    """Why a default result may differ from the simulator's."""
    groups = case["layer"]["groups"]
    if groups > 2 and groups != case["layer"]["C"]:
        return "more than 2 groups: the simulator runs one group with all filters"
    return "unexplained"


NETWORKS = (
    "alexnet",
    "vgg16",
    "resnet18",
    "resnext50_32x4d",
    "mobilenet_v2",
    "googlenet",
    "densenet121",
    "vit_b_16",
    "swin_t",
)


def traced() -> list[dict[str, Any]]:
    """torchvision's networks on the meta device: multiply-accumulates of `trace` and of torch's FlopCounterMode."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from torchvision import models

    from stripes_sim import trace

    rows = []
    for name in NETWORKS:
        options = {"init_weights": False} if name == "googlenet" else {}
        with torch.device("meta"):
            model = getattr(models, name)(weights=None, **options)
        start = time.perf_counter()
        layers = trace(model, (3, 224, 224))
        seconds = time.perf_counter() - start
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.eval()(torch.empty(1, 3, 224, 224, device="meta"))
        rows.append(
            {
                "network": name,
                "layers": len(layers),
                "seconds": seconds,
                "macs": sum(shape.macs for shape in layers),
                "counter_macs": counter.get_total_flops() // 2,
                "weights": sum(shape.weight_count for shape in layers),
            }
        )
    return rows


def main(argv: list[str]) -> int:
    """Print the table; 1 when a case differs with ``compat="dnnsim"``, or by default without a known reason."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks validate", description=__doc__)
    default = Path(__file__).resolve().parents[2] / "shared" / "data" / "dnnsim" / "static_cases.json"
    parser.add_argument("--cases", type=Path, default=default, help="the simulator's cases (default: %(default)s)")
    parser.add_argument("--json", metavar="OUT", help="write the table to a JSON file")
    options = parser.parse_args(argv)
    if not options.cases.is_file():
        print(f"no cases at {options.cases}: nothing to validate against", file=sys.stderr)
        return 2
    cases = json.loads(options.cases.read_text())["cases"]

    wrong = {mode: [(case, differences(case, mode)) for case in cases] for mode in ("dnnsim", None)}
    rows = []
    for architecture in ("Stripes", "DaDianNao"):
        ids = [i for i, case in enumerate(cases) if case["hw"]["architecture"] == architecture]
        for name in COUNTERS:
            matches = {mode: sum(name not in wrong[mode][i][1] for i in ids) for mode in wrong}
            rows.append((architecture, name, len(ids), matches["dnnsim"], matches[None]))
    head = ("machine", "counter", "cases", 'equal with compat="dnnsim"', "equal by default")
    print(aligned(head, [tuple(str(cell) for cell in row) for row in rows], left=2))
    by_default = [(case, found) for case, found in wrong[None] if found]
    print(f"\n{len(by_default)} of {len(cases)} cases differ by default:")
    for case, found in by_default:
        pairs = ", ".join(f"{name} {ours:,} (theirs {theirs:,})" for name, (ours, theirs) in found.items())
        print(f"  {case['id']}: {pairs}")
    for why, count in Counter(reason(case) for case, _ in by_default).items():
        print(f"  {count} x {why}")
    networks = traced()
    print("\nTraced on the meta device, batch 1, 224 x 224\n")
    head = ("network", "layers", "seconds", "MACs", "MACs of torch's counter", "weights")
    cells = [
        (
            row["network"],
            str(row["layers"]),
            f"{row['seconds']:.2f}",
            *(f"{row[key]:,}" for key in ("macs", "counter_macs", "weights")),
        )
        for row in networks
    ]
    print(aligned(head, cells))
    if options.json:
        columns = ("machine", "counter", "cases", "equal_compat", "equal_default")
        differing = [{"id": case["id"], "reason": reason(case), "differences": found} for case, found in by_default]
        table = [dict(zip(columns, row, strict=True)) for row in rows]
        write_json(options.json, {"table": table, "differ_by_default": differing, "traced": networks})
    failed = any(found for _, found in wrong["dnnsim"]) or any(reason(case) == "unexplained" for case, _ in by_default)
    return int(failed or any(row["macs"] != row["counter_macs"] for row in networks))

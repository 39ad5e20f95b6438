"""What quantised training adds to a step beside the layers' own work: reading weights, going back, penalty and step.

No convolution is run: quantised weights are read, given gradients go back through them and the penalty, then
``optimizer.step()`` and ``wq.step()``. The least and the 20th percentile of the times are shown: the fixed cost of
Python and of small operations, which weighs most in small networks at small batches.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import nn

import waveq
from benchmarks._report import write_json
from waveq.zoo import build

SEED = 0
KINDS = {
    "dorefa": {"quantizer": "dorefa", "bits": 4, "lambda_w": 0.0},
    "dorefa+wave": {"quantizer": "dorefa", "total_steps": 10**6, "schedule": lambda _step: (0.1, 0.02)},
    "lsq": {"quantizer": "lsq", "bits": 4, "lambda_w": 0.0},
    "lsq+wave": {"quantizer": "lsq", "total_steps": 10**6, "schedule": lambda _step: (0.1, 0.02)},
}


def step_of(network: str, kind: str) -> Callable[[], None]:
    """One step without the layers; first and last layer in float."""
    torch.manual_seed(SEED)
    model = build(network)
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    arguments = KINDS[kind]
    handle = waveq.attach(model, skip=(names[0], names[-1]), **arguments)  # type: ignore[arg-type]
    modules = [model.get_submodule(name) for name in names[1:-1]]
    parameters = [parameter for module in modules for parameter in module.parametrizations.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=1e-6)
    gradients = [torch.randn_like(module.weight) * 1e-3 for module in modules]

    def step() -> None:
        weights = [module.weight for module in modules]
        penalty = handle.penalty()
        torch.autograd.backward([*weights, penalty], [*gradients, torch.ones_like(penalty)])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        handle.step()

    return step


def main(argv: list[str]) -> int:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks fixed_cost", description=__doc__)
    parser.add_argument("--networks", nargs="+", default=["simplenet5", "resnet20"])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", metavar="OUT")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    rows = []
    print(f"{'network':<14} {'method':<12} {'least ms':>9} {'20 % ms':>9}")
    for network in options.networks:
        for kind in KINDS:
            step, times = step_of(network, kind), []
            for _ in range(options.steps + 20):
                began = time.perf_counter()
                step()
                times.append(1e3 * (time.perf_counter() - began))
            times = sorted(times[20:])  # the first ones compile
            least, fifth = times[0], times[len(times) // 5]
            print(f"{network:<14} {kind:<12} {least:9.3f} {fifth:9.3f}")
            rows.append({"network": network, "method": kind, "least_ms": least, "fifth_ms": fifth})
    if options.json:
        write_json(options.json, {"steps": options.steps, "threads": options.threads, "rows": rows})
    return 0

"""Do the compiled and the plain form train alike: losses and bits over some steps, method by method, on any device.

Methods that can have a scale for each output channel are compared with that too ("channel").

Both forms start from the same weights and see the same batches. In float32 they part as rounding errors grow, so a
short run is compared: what is shown is the largest relative difference of the loss and the largest difference of a
beta, beside the same for the plain form whose weights were moved by one unit in the last place (the control).
"""

from __future__ import annotations

import argparse
import copy
import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import waveq
from benchmarks._report import write_json
from waveq import backend, use_backend
from waveq.quantizers import quantizer_class

METHODS = [
    *itertools.product(["dorefa", "wrpn"], ["none", "max", "learned"]),
    ("lsq", "learned"),
    ("dsq", None),
    ("lqnets", None),
    ("ttq", None),
]
STEPS = 12


def network(channels_last: bool, device: str, *, transposed: bool) -> nn.Module:
    """Convolutions of several sizes, one depthwise, one a weight's length off a kernel's block, and a head."""
    model = nn.Sequential(
        nn.Conv2d(3, 33, 3, padding=1, bias=False),
        nn.BatchNorm2d(33),
        nn.ReLU(),
        nn.Conv2d(33, 33, 3, padding=1, groups=33),
        nn.ReLU(),
        nn.Conv2d(33, 70, 3, stride=2),
        nn.ReLU(),
        *([nn.ConvTranspose2d(70, 70, 3, groups=7), nn.ReLU()] if transposed else []),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(280, 10),
    ).to(device)
    return model.to(memory_format=torch.channels_last) if channels_last else model


def train(start: nn.Module, form: str, arguments: dict[str, Any], bf16: bool, device: str) -> dict[str, Any]:
    """Losses, betas and the weights' checksum after each of a few steps."""
    model = copy.deepcopy(start).train()
    handle = waveq.attach(model, **arguments)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    generator = torch.Generator().manual_seed(3)
    losses, betas = [], []
    for _ in range(STEPS):
        x = torch.randn(16, 3, 12, 12, generator=generator).to(device)
        y = torch.randint(0, 10, (16,), generator=generator).to(device)
        with use_backend(form):
            with torch.autocast(device, torch.bfloat16, enabled=bf16):
                task = F.cross_entropy(model(x), y)
            loss = task + handle.penalty()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            handle.step()
        losses.append(loss.item())
        betas.append(list(handle.betas().values()))
    return {"loss": losses, "beta": betas}


def apart(a: dict[str, Any], b: dict[str, Any]) -> tuple[float, float]:
    """Largest relative difference of the losses, largest difference of a beta."""
    by_loss = max(abs(x - y) / max(abs(y), 1e-6) for x, y in zip(a["loss"], b["loss"], strict=True))
    by_beta = max(abs(x - y) for p, q in zip(a["beta"], b["beta"], strict=True) for x, y in zip(p, q, strict=True))
    return by_loss, by_beta


def moved(start: nn.Module) -> nn.Module:
    """The same network with every parameter moved by one unit in the last place."""
    other = copy.deepcopy(start)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.copy_(torch.nextafter(parameter, torch.full_like(parameter, torch.inf)))
    return other


def cases(method: str, scale: str | None) -> list[tuple[str, dict[str, Any], bool, bool]]:
    """(name, arguments of attach, bf16 autocast, channels_last)."""
    own: dict[str, Any] = {"quantizer": method} | ({} if scale is None else {"scale": scale})
    found = [("preset 3", own | {"bits": 3}, False, False), ("preset 4 bf16", own | {"bits": 4}, True, True)]
    if method != "ttq":
        rising = {"total_steps": 100, "schedule": lambda _step: (0.1, 0.05)}
        found.append(("learned", own | rising, False, False))
        found.append(("learned, sine moves beta", own | rising | {"preset": "paper"}, False, False))
        if scale != "none" and quantizer_class(method).by_channel:
            by_channel = own | {"granularity": "channel"}
            found.append(("channel, preset 3", by_channel | {"bits": 3}, False, False))
            found.append(("channel, preset 4 bf16", by_channel | {"bits": 4}, True, True))
            found.append(("channel, learned", by_channel | rising, False, False))
    else:
        found = [("preset 2", own | {"bits": 2}, False, False)]
    return found


def main(argv: list[str]) -> int:
    """Compare; 1 where a form parts further than twenty times the control and a hundredth."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks alike", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    names = sorted({method for method, _ in METHODS})
    parser.add_argument("--methods", nargs="+", choices=names, default=names, help="these alone", metavar="METHOD")
    parser.add_argument("--json", metavar="OUT")
    options = parser.parse_args(argv)
    print(backend())
    rows, bad = [], 0
    print(f"{'method':<16} {'case':<26} {'loss':>9} {'control':>9} {'beta':>9} {'control':>9}")
    for method, scale in [each for each in METHODS if each[0] in options.methods]:
        for name, arguments, bf16, channels_last in cases(method, scale):
            torch.manual_seed(0)
            start = network(channels_last, options.device, transposed=name.startswith("channel"))
            label = f"{method} {scale or ''}".strip()
            try:
                want = train(start, "plain", arguments, bf16, options.device)
            except ValueError as refused:
                print(f"{label:<16} {name:<26} refused: {refused}")
                continue
            loss, beta = apart(train(start, "auto", arguments, bf16, options.device), want)
            loss0, beta0 = apart(train(moved(start), "plain", arguments, bf16, options.device), want)
            fails = loss > max(0.01, 20 * loss0) or beta > max(0.01, 20 * beta0)
            bad += fails
            flag = "  APART" if fails else ""
            print(f"{label:<16} {name:<26} {loss:9.1e} {loss0:9.1e} {beta:9.1e} {beta0:9.1e}{flag}", flush=True)
            rows.append({"method": label, "case": name, "loss": loss, "loss_control": loss0, "beta": beta})
    if options.json:
        write_json(options.json, {"steps": STEPS, "device": options.device, "rows": rows}, "triton")
    print(f"{len(rows)} cases, {bad} apart")
    return int(bad > 0)

"""The Triton kernels under Triton's interpreter, on the CPU: the same cases as the other engines.

It runs in a process of its own, because the interpreter is chosen when Triton is first imported.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

_CHECK = """
import torch
import waveq
from tests.waveq.kernels import cases
from tests.waveq.kernels.test_rounding import EveryNumber, EveryNumberAsItIs
from waveq._kernels.backends import backend, engine_for, use_backend
from waveq._kernels.closed_forms import TorchEngine
from waveq._kernels.cuda.engine import TritonEngine

torch.set_num_threads(1)
engine, twin = TritonEngine(), TorchEngine()
cases.SHAPES = [(9, 7, 3, 3), (4097,), (1,)]
for method, scale in cases.METHODS:
    cases.check_wave(engine, method, scale, 2.7, torch.float32)
    cases.check_rounding(engine, method, scale, 2.7, torch.float32)
for dtype in (torch.bfloat16, torch.float16):
    cases.check_wave(engine, "dorefa", "max", 2.7, dtype)
cases.check_rounding(engine, "dorefa", "max", 2.7, torch.bfloat16)
cases.check_lengths(engine, "wrpn", "learned")
for method, scale in (("dorefa", "max"), ("wrpn", "learned"), ("lsq", "learned")):
    cases.check_channels(engine, method, scale)
cases.check_channels(engine, "wrpn", "max", torch.bfloat16)
cases.check_lengths(engine, "dorefa", "max")

torch.manual_seed(0)  # a beta's gradient is one number, whose parts may cancel: with other inputs it is off by 1e-3
x = torch.randn(3, 50, 17)
assert torch.equal(engine.clip_round(x, 0.0, 7.0), twin.clip_round(x, 0.0, 7.0))
x[0, :, ::3] = 0.0  # has a gradient where the range is closed, none where it is open
above = torch.randn(3, 50, 17)
for closed in (True, False):
    backward = [each.clip_round_backward(x, 0.0, above, closed=closed) for each in (engine, twin)]
    assert torch.equal(*backward)
    assert bool((backward[0][0, :, 0] != 0).all()) is closed
with use_backend("triton"):
    assert backend().cpu.name == "triton", backend().cpu
    assert engine_for(x).name == "triton"

# whole steps, with the wave riding along, give the gradients of the formulas
for method, by in (("lsq", "layer"), ("lsq", "channel"), ("dorefa", "layer"), (EveryNumber, "layer"),
                   (EveryNumberAsItIs, "layer")):
    found = []
    for form in ("plain", "triton"):
        with use_backend(form):
            torch.manual_seed(0)
            model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
            handle = waveq.attach(
                model, total_steps=10**6, schedule=lambda _step: (0.2, 0.02), quantizer=method, granularity=by
            )
            for _ in range(2):
                handle.step()
                for layer in handle._layers.values():
                    layer.state.beta.data.fill_(2.4)
                model.zero_grad()
                (model(x[0, :5, :6]).square().mean() + handle.penalty()).backward()
        betas = [layer.state.beta.grad for layer in handle._layers.values()]
        found.append([*[p.grad for p in model.parameters()], *betas])
    for ours, theirs in zip(*found):
        assert cases.relative(ours, theirs) < 1e-3, method
print("checked")
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed (pip install triton)")
def test_the_kernels_equal_their_closed_forms_under_the_interpreter() -> None:
    root = Path(__file__).resolve().parents[3]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", _CHECK], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.endswith("checked\n"), done.stderr[-3000:]

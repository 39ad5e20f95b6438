"""The compiled kernels against their closed forms in float64 and against autograd through the plain formulas."""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import waveq
from tests.training import beta_of, mlp
from tests.waveq.kernels import cases
from waveq._kernels.backends import use_backend
from waveq._kernels.closed_forms import TorchEngine
from waveq._kernels.cpu import scalars
from waveq._kernels.cpu.engine import NumbaEngine
from waveq._kernels.cpu.threads import CHUNK, share_chunks
from waveq._kernels.engine import Engine
from waveq._kernels.rounding import Formulas, waves
from waveq.functional import Grid, grid_levels, sine_penalty
from waveq.method.presets import get_preset

ENGINE = NumbaEngine()


@pytest.mark.slow
@given(st.floats(-30, 30, width=32))
def test_tanh_is_the_library_s(x: float) -> None:
    assert abs(scalars.squash_tanh(np.float32(x)) - math.tanh(x)) <= 4e-7 * abs(math.tanh(x)) + 1e-38


@pytest.mark.slow
@given(st.floats(-500, 500, width=32), st.sampled_from([0.0, 0.5]))
def test_sine_and_cosine_are_the_library_s_up_to_a_common_sign(turns: float, shift: float) -> None:
    sine, cosine = scalars.sine_and_cosine_of_half_turns(np.float32(turns), np.float32(shift))
    angle = math.pi * (turns + shift)
    assert abs(sine * sine - math.sin(angle) ** 2) < 3e-7
    assert abs(2 * sine * cosine - math.sin(2 * angle)) < 6e-7


def test_the_sine_is_zero_exactly_on_whole_turns() -> None:
    assert scalars.sine_and_cosine_of_half_turns(np.float32(7.0), np.float32(0.0))[0] == 0.0
    assert scalars.sine_and_cosine_of_half_turns(np.float32(7.5), np.float32(0.5))[0] == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("method", "scale"), cases.METHODS)
def test_wave_equals_its_closed_form(method: str, scale: str, dtype: torch.dtype) -> None:
    for beta in (1.0, 2.7, 7.0):
        cases.check_wave(ENGINE, method, scale, beta, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("method", "scale"), cases.METHODS)
def test_rounding_equals_its_closed_form(method: str, scale: str, dtype: torch.dtype) -> None:
    for beta in (1.0, 2.7, 7.0):
        cases.check_rounding(ENGINE, method, scale, beta, dtype)


@pytest.mark.parametrize(("method", "scale"), cases.METHODS)
def test_lengths_equal_their_closed_form(method: str, scale: str) -> None:
    cases.check_lengths(ENGINE, method, scale)


@pytest.mark.parametrize("grid", list(Grid))
def test_wave_is_zero_on_every_level_and_one_midway(grid: Grid) -> None:
    for total_bits in (2, 3, 5, 8):
        levels = grid_levels(total_bits, grid).float()
        middles = (levels[1:] + levels[:-1]) / 2
        method = "wrpn" if grid is Grid.MID_TREAD else "dsq"
        both = [cases.layer(method, None, values, total_bits - 1.0) for values in (levels, middles)]
        (sines,) = waves(both, [levels, middles], ENGINE, raw=True)
        assert sines.by_weights[0] < 1e-9
        assert sines.by_weights[1] > 1 - 1e-6


def test_all_layouts_give_the_same_sums_and_keep_their_layout() -> None:
    weight = cases.weights()[0]
    those = [weight, weight.to(memory_format=torch.channels_last), weight.permute(3, 1, 0, 2)]
    table = cases.formulas(ENGINE, "dorefa", "max", those, 3.3).table
    pulls, sums = ENGINE.round_backward(those, table, those, torch.ones(3))
    assert pulls[1].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(pulls[1], pulls[0])
    torch.testing.assert_close(pulls[2], pulls[0].permute(3, 1, 0, 2))
    torch.testing.assert_close(sums[1], sums[0], rtol=1e-5, atol=1e-3)
    made, _ = ENGINE.round(those, table)
    assert torch.equal(made[1], made[0])
    assert made[1].is_contiguous(memory_format=torch.channels_last)
    strided = torch.randn(20, 40)[:, ::2]  # no run of memory: taken through a copy
    assert ENGINE.largest([strided])[0] == strided.abs().max()


def test_the_result_does_not_depend_on_the_number_of_threads() -> None:
    torch.manual_seed(2)
    those = [torch.randn(700_001) * 0.1, torch.randn(33), torch.randn(300_000)]
    table = cases.formulas(ENGINE, "dorefa", "max", those, 3.3).table
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            made, sine = ENGINE.round(those, table)
            pulls, sums = ENGINE.round_backward(those, table, those, torch.ones(3))
            results.append([ENGINE.largest(those), *made, sine, *pulls, sums])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for ours, theirs in zip(results[0], other, strict=True):
            assert torch.equal(ours, theirs)


def test_every_chunk_is_visited_once_whatever_the_share() -> None:
    seen: list[int] = []
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        share_chunks(lambda first, last: seen.extend(range(first, last)), 1000)
    finally:
        torch.set_num_threads(before)
    assert sorted(seen) == list(range(1000))
    assert CHUNK % 16 == 0


@pytest.mark.parametrize("engine", [ENGINE, TorchEngine()], ids=lambda engine: engine.name)
@pytest.mark.parametrize(("method", "scale"), [("dorefa", "max"), ("wrpn", "max"), ("lsq", "learned")])
def test_nan_shows_in_every_result(engine: Engine, method: str, scale: str) -> None:
    weight = torch.randn(5000)
    weight[4321] = math.nan
    assert math.isnan(engine.largest([weight])[0])
    layer = cases.layer(method, scale, torch.randn(5000), 3.0)
    made, sine = engine.round([weight], Formulas([layer], [weight], engine, rounds=True, wave=True).table)
    assert torch.isnan(sine).all()
    assert torch.isnan(made[0][4321])


@pytest.mark.parametrize("engine", [ENGINE, TorchEngine()], ids=lambda engine: engine.name)
def test_an_all_zero_layer_has_no_pull(engine: Engine) -> None:
    for method, scale in cases.METHODS:
        zeros = torch.zeros(100)
        table = cases.formulas(engine, method, scale, [zeros], 3.0).table
        pulls, _ = engine.round_backward([zeros], table, [zeros], torch.ones(1))
        assert not pulls[0].any()


@pytest.mark.parametrize(("method", "scale"), cases.METHODS)
@pytest.mark.parametrize("size", [0.0, 1e-14, 0.3, 4.0])
def test_the_largest_weight_is_rounded_as_by_the_plain_form(method: str, scale: str, size: float) -> None:
    weight = torch.linspace(-size, size, 77)
    layer = cases.layer(method, scale, weight, 3.0)
    if not layer.quantizer.compiles("forward"):
        return
    made, _ = ENGINE.round([weight], Formulas([layer], [weight], ENGINE, rounds=True, wave=False).table)
    expected = layer.quantizer(weight, torch.tensor(3.0))
    torch.testing.assert_close(made[0], expected.detach(), rtol=1e-6, atol=0.0)


@pytest.mark.parametrize(("method", "scale"), cases.METHODS)
def test_the_wave_and_its_gradients_equal_autograd_through_the_formulas(method: str, scale: str) -> None:
    """In float64, to the last digits: weights, beta and what the quantiser learns."""
    engine = TorchEngine()
    weight = (torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 0.3).requires_grad_()
    layer = cases.layer(method, scale, weight.detach(), 2.3).double()
    layer.beta = torch.tensor(2.3, dtype=torch.float64, requires_grad=True)
    (sines,) = waves([layer], [weight], engine, raw=False)
    u = layer.quantizer.coordinate(weight, layer.beta.detach())
    plain = sine_penalty(u, layer.beta.detach(), grid=layer.grid, order=0)
    torch.testing.assert_close(sines.by_weights[0], plain)
    learned = list(layer.quantizer.parameters())
    ours = torch.autograd.grad(3.0 * sines.by_weights[0], [weight, *learned], allow_unused=True)
    theirs = torch.autograd.grad(3.0 * plain, [weight, *learned], allow_unused=True)
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b)
    by_beta = sine_penalty(u.detach(), layer.beta, grid=layer.grid, order=0)
    torch.testing.assert_close(
        torch.autograd.grad(sines.by_beta[0], layer.beta)[0], torch.autograd.grad(by_beta, layer.beta)[0]
    )


@pytest.mark.parametrize("order", [0, 1, 2])
def test_every_order_has_the_plain_form_s_value_and_gradients(order: int) -> None:
    results = []
    for form in ("plain", "auto"):
        model = mlp()
        preset = dataclasses.replace(get_preset("paper"), order=order)
        with use_backend(form), pytest.MonkeyPatch.context() as patch:
            patch.setattr("waveq.method.attachment.get_preset", lambda _name, preset=preset: preset)
            handle = waveq.attach(model, total_steps=10, schedule=lambda _step: (1.5, 0.1))
            handle.step()
            with torch.no_grad():
                for name in handle.names:
                    beta_of(model, name).fill_(3.4)
            total = handle.penalty()
            (3.0 * total).backward()
        results.append([total.detach(), *[p.grad for p in model.parameters() if p.grad is not None]])
        results[-1] += [beta_of(model, name).grad for name in handle.names]
    for ours, theirs in zip(*results, strict=True):
        assert cases.relative(ours, theirs) < 1e-4


_PLAIN_PYTHON = """
import torch
from tests.waveq.kernels import cases
from waveq._kernels.closed_forms import TorchEngine
from waveq._kernels.cpu.engine import NumbaEngine

cases.SHAPES = [(5, 3, 3, 3), (7, 3), (1,)]
engine, x = NumbaEngine(), torch.randn(100)
for method, scale in cases.METHODS:
    cases.check_wave(engine, method, scale, 2.7, torch.float32)
    cases.check_rounding(engine, method, scale, 2.7, torch.float32)
    cases.check_lengths(engine, method, scale)
assert torch.equal(engine.clip_round(x, 0.0, 7.0), TorchEngine().clip_round(x, 0.0, 7.0))
for closed in (True, False):
    both = [each.clip_round_backward(x, 0.0, x, closed=closed) for each in (engine, TorchEngine())]
    assert torch.equal(*both)
print("checked")
"""


@pytest.mark.slow
def test_the_kernels_run_as_plain_python_where_the_compiler_is_off() -> None:
    root = Path(__file__).resolve().parents[3]
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _PLAIN_PYTHON],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.endswith("checked\n"), done.stderr[-3000:]

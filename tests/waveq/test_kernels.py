"""The compiled kernels against their closed forms in float64 and against autograd through the plain formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.waveq import kernel_cases as cases
from waveq._kernels import lanes
from waveq._kernels.interface import WaveRow
from waveq._kernels.numba_engine import NumbaEngine
from waveq._kernels.recipe import Coordinate
from waveq._kernels.threads import CHUNK, share_chunks
from waveq._kernels.torch_engine import TorchEngine
from waveq._kernels.wave import fused_wave
from waveq.functional import Grid, grid_levels, sine_penalty

ENGINE = NumbaEngine()


@given(st.floats(-30, 30, width=32))
def test_tanh_is_the_library_s(x: float) -> None:
    assert abs(lanes.squash_tanh(np.float32(x)) - math.tanh(x)) <= 4e-7 * abs(math.tanh(x)) + 1e-38


@given(st.floats(-500, 500, width=32), st.sampled_from([0.0, 0.5]))
def test_sine_and_cosine_are_the_library_s_up_to_a_common_sign(turns: float, shift: float) -> None:
    sine, cosine = lanes.sine_and_cosine_of_half_turns(np.float32(turns), np.float32(shift))
    angle = math.pi * (turns + shift)
    assert abs(sine * sine - math.sin(angle) ** 2) < 3e-7
    assert abs(2 * sine * cosine - math.sin(2 * angle)) < 6e-7


def test_the_sine_is_zero_exactly_on_whole_turns() -> None:
    assert lanes.sine_and_cosine_of_half_turns(np.float32(7.0), np.float32(0.0))[0] == 0.0
    assert lanes.sine_and_cosine_of_half_turns(np.float32(7.5), np.float32(0.5))[0] == 0.0


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
def test_balance_equals_its_closed_form(method: str, scale: str) -> None:
    layers = [cases.row(ENGINE, method, scale, weight, 2.7) for weight in cases.weights()]
    tasks = [torch.randn_like(layer.weight) for layer in layers]
    betas = torch.full((len(layers),), 2.7)
    got, want = ENGINE.balance(layers, betas, 1, tasks), TorchEngine().balance(layers, betas, 1, tasks)
    lengths = torch.stack([want[:, 0], want[:, 1], (want[:, 0] * want[:, 3]).sqrt(), want[:, 3]], dim=1).double()
    assert ((got - want).abs()[:-1] / lengths[:-1]).max() < 1e-3


@pytest.mark.parametrize("grid", list(Grid))
def test_wave_is_zero_on_every_level_and_one_midway(grid: Grid) -> None:
    for total_bits in (2, 3, 5, 8):
        levels = grid_levels(total_bits, grid).float()
        middles = (levels[1:] + levels[:-1]) / 2
        itself = Coordinate("clip", torch.ones(()), None, -torch.inf, torch.inf)
        rows = [WaveRow(levels, itself, grid), WaveRow(middles, itself, grid)]
        betas = torch.full((2,), float(total_bits - 1))
        sums = ENGINE.wave(rows, betas, torch.ones(2), 1, gradients=False)
        assert sums.sine[0] < 1e-9
        assert sums.sine[1] > 1 - 1e-6
        assert sums.gradients is None


def test_all_layouts_give_the_same_sums_and_keep_their_layout() -> None:
    weight = cases.weights()[0]
    last = weight.to(memory_format=torch.channels_last)
    turned = weight.permute(3, 1, 0, 2)
    betas, strength = torch.full((3,), 3.3), torch.ones(3)
    rows = [cases.row(ENGINE, "dorefa", "max", w, 3.3) for w in (weight, last, turned)]
    sums = ENGINE.wave(rows, betas, strength, 1, gradients=True)
    assert sums.gradients is not None
    assert sums.gradients[1].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(sums.gradients[1], sums.gradients[0])
    torch.testing.assert_close(sums.gradients[2], sums.gradients[0].permute(3, 1, 0, 2))
    recipe = cases.rounding(ENGINE, "dorefa", "max", weight, 3.3)
    assert torch.equal(ENGINE.round(last, recipe), ENGINE.round(weight, recipe))
    strided = torch.randn(20, 40)[:, ::2]  # no run of memory: taken through a copy
    assert ENGINE.largest([strided])[0] == strided.abs().max()


def test_the_result_does_not_depend_on_the_number_of_threads() -> None:
    weight = torch.randn(300_001)
    rows = [cases.row(ENGINE, "dorefa", "max", weight, 3.3)]
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            sums = ENGINE.wave(rows, torch.tensor([3.3]), torch.ones(1), 1, gradients=True)
            assert sums.gradients is not None
            results.append((sums.sine, sums.moment, sums.gradients[0]))
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
def test_nan_shows_in_every_result(engine: object) -> None:
    weight = torch.randn(5000)
    weight[4321] = math.nan
    (largest,) = engine.largest([weight])  # type: ignore[attr-defined]
    assert math.isnan(largest)
    row = WaveRow(weight, Coordinate("clip", torch.ones(()), torch.ones(()), -1.0, 1.0), Grid.MID_TREAD)
    sums = engine.wave([row], torch.tensor([3.0]), torch.ones(1), 1, gradients=True)  # type: ignore[attr-defined]
    assert torch.isnan(sums.sine).all()


def test_an_all_zero_layer_has_no_pull() -> None:
    for method, scale in cases.METHODS:
        row = cases.row(ENGINE, method, scale, torch.zeros(100), 3.0)
        sums = ENGINE.wave([row], torch.tensor([3.0]), torch.ones(1), 1, gradients=True)
        assert sums.gradients is not None
        assert not sums.gradients[0].any()


@pytest.mark.parametrize(("method", "scale"), [*cases.METHODS, ("raw", "none")])
def test_gradcheck_through_the_autograd_function(method: str, scale: str) -> None:
    engine = TorchEngine()
    weight = (torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 0.3).requires_grad_()
    beta = torch.tensor([2.3], dtype=torch.float64, requires_grad=True)
    divisor = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)

    def total(w: torch.Tensor, b: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        if method == "raw":
            coordinate, grid = Coordinate("clip", d, None, -torch.inf, torch.inf), Grid.MID_TREAD
        else:
            made = cases.quantizer(method, scale, weight.detach())
            (largest,) = engine.largest([w])
            coordinate, grid = made.coordinate_recipe(w, largest, b[0].detach()), made.grid()
            if coordinate.squash == "tanh" and not coordinate.through_largest:
                largest = largest.detach()  # numerical differences must not move what is held constant
                coordinate = Coordinate("tanh", torch.tanh(torch.tensor(1.0, dtype=w.dtype)), largest, 0.0, 0.0)
            elif method == "wrpn" and scale == "learned":
                coordinate = Coordinate("clip", d, largest, -1.0, 1.0)
            elif method == "wrpn" and scale == "max":
                coordinate = Coordinate("clip", torch.tensor(1.1, dtype=w.dtype), largest, -1.0, 1.0)
            elif method == "lsq":  # its range stands still, and beta moves its clip by a constant
                coordinate = Coordinate("clip", torch.tensor(0.5, dtype=w.dtype), largest, -1.2, 1.0)
        rows = [WaveRow(w, coordinate, grid)]
        return fused_wave(engine, rows, b, strength=torch.ones(1, dtype=w.dtype), beta_strength=1.0, order=1)

    if (method == "wrpn" and scale == "learned") or method == "raw":
        assert torch.autograd.gradcheck(total, (weight, beta, divisor))
    else:
        assert torch.autograd.gradcheck(lambda w, b: total(w, b, divisor.detach()), (weight, beta))


@pytest.mark.parametrize("order", [0, 1, 2])
def test_the_fused_function_equals_autograd_through_the_formula(order: int) -> None:
    weight = torch.randn(3000, generator=torch.Generator().manual_seed(0)).requires_grad_()
    beta = torch.tensor([2.6], requires_grad=True)
    rows = [WaveRow(weight, Coordinate("clip", torch.ones(()), None, -torch.inf, torch.inf), Grid.MID_RISE)]
    fused = fused_wave(ENGINE, rows, beta, strength=torch.tensor([1.5]), beta_strength=1.5, order=order)
    plain = 1.5 * sine_penalty(weight, beta[0], grid=Grid.MID_RISE, order=order)
    torch.testing.assert_close(fused, plain)
    ours = torch.autograd.grad(3.0 * fused, (weight, beta))
    theirs = torch.autograd.grad(3.0 * plain, (weight, beta))
    for a, b in zip(ours, theirs, strict=True):
        assert cases.relative(a, b) < 1e-4


def test_backward_twice_on_a_kept_graph_and_an_error_on_a_freed_one() -> None:
    weight = torch.randn(500, requires_grad=True)
    rows = [WaveRow(weight, Coordinate("clip", torch.ones(()), None, -torch.inf, torch.inf), Grid.MID_RISE)]
    total = fused_wave(ENGINE, rows, torch.tensor([2.6]), strength=torch.ones(1), beta_strength=0.0, order=1)
    total.backward(retain_graph=True)
    assert weight.grad is not None
    once = weight.grad.clone()
    (2.0 * total).backward()
    torch.testing.assert_close(weight.grad, 3.0 * once)
    with pytest.raises(RuntimeError, match="second time"):
        total.backward()

"""Gradients where a value lies exactly on a bound, by hand: the same in every torch and in every form."""

from __future__ import annotations

import importlib.util
import math
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, vmap

import waveq
from tests.quantizer_tools import gradient, tensor
from waveq._boundaries import clip
from waveq._kernels.backends import use_backend
from waveq.allocate.learned_steps import quantize_step_range
from waveq.functional import Grid, round_to_grid, sine_penalty_gradients
from waveq.method.parametrization import WaveParametrization, parametrization_of
from waveq.quantizers import DoReFaActivation, make_activation_quantizer, make_quantizer
from waveq.quantizers._piecewise import piecewise_coordinate
from waveq.quantizers.lqnets import LQNetsActivation
from waveq.quantizers.pact import PACTActivation

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # chosen when Triton is first imported: see the last test
FORMS = ("triton",) if INTERPRETED else ("plain", "torch", "numba")
in_every_form = pytest.mark.parametrize("form", FORMS)

# ---------------------------------------------------------------------- the clip itself


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("kind", [float, torch.tensor])
def test_the_clip_has_gradient_one_on_its_bounds(dtype: torch.dtype, kind: Any) -> None:
    x = torch.tensor([-2.0, -1.0, 0.0, 0.5, 1.0], dtype=dtype, requires_grad=True)
    y = clip(x, kind(-1.0), kind(0.5))
    assert y.dtype == dtype
    assert y.tolist() == [-1.0, -1.0, 0.0, 0.5, 0.5]
    assert gradient(y, x)[0].tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]


def test_bounds_get_the_gradient_of_what_lies_beyond_them() -> None:
    x = tensor(-3.0, -2.0, -1.0, 1.0, 4.0)
    low, high = tensor(-1.0).requires_grad_(), tensor(1.0).requires_grad_()
    by_low, by_high = gradient(clip(x, low, high) * tensor(1.0, 2.0, 4.0, 8.0, 16.0), low, high)
    assert (by_low.item(), by_high.item()) == (3.0, 16.0)


def test_what_is_no_number_stays_none() -> None:
    x = tensor(math.nan, math.inf, -math.inf).requires_grad_()
    y = clip(x, -1.0, 1.0)
    assert math.isnan(y[0].item())
    assert y[1:].tolist() == [1.0, -1.0]
    assert gradient(y, x)[0].tolist() == [0.0, 0.0, 0.0]


def test_the_clips_derivatives_are_right_between_the_bounds() -> None:
    x = torch.tensor([-2.0, -0.3, 0.8, 2.0], dtype=torch.float64, requires_grad=True)
    bounds = torch.tensor([-1.0, 1.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, b: clip(x, b[0], b[1]), (x, bounds))
    assert torch.autograd.gradgradcheck(lambda x: clip(x, -1.0, 1.0).pow(3), (x,))


def test_the_clip_keeps_one_mask_for_the_way_back() -> None:
    kept: list[Tensor] = []

    def pack(t: Tensor) -> Tensor:
        kept.append(t)
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        clip(torch.randn(100, requires_grad=True), -1.0, 1.0)
    assert [t.dtype for t in kept] == [torch.bool]


def test_the_clip_maps_over_values() -> None:
    x, low, high = tensor(-2.0, -1.0, 0.5, 1.0, 3.0), torch.tensor(-1.0), torch.tensor(1.0)
    each = vmap(grad(clip), in_dims=(0, None, None))(x, low, high)
    assert each.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [float, torch.tensor])
def test_the_clip_compiles(kind: Any) -> None:
    compiled = torch.compile(clip, fullgraph=True, backend="aot_eager")
    x = tensor(-2.0, -1.0, 0.5, 1.0, 3.0).requires_grad_()
    assert gradient(compiled(x, kind(-1.0), kind(1.0)), x)[0].tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]


@pytest.mark.slow
def test_the_clip_exports() -> None:
    class Clip(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return clip(x, -1.0, 1.0)

    x = tensor(-2.0, -1.0, 0.5, 1.0, 3.0)
    assert torch.equal(torch.export.export(Clip(), (x,)).module()(x), x.clamp(-1.0, 1.0))


# ---------------------------------------------------------------------- what is taken from torch


def test_equal_maxima_share_the_gradient() -> None:
    x = tensor(-2.0, 0.5, 2.0, 2.0, -2.0).requires_grad_()
    assert gradient(x.abs().amax(), x)[0].tolist() == [-0.25, 0.0, 0.25, 0.25, -0.25]


def test_there_is_no_gradient_at_the_kink_of_abs_and_relu() -> None:
    x = tensor(0.0).requires_grad_()
    assert gradient(x.abs(), x)[0].item() == 0.0
    assert gradient(torch.relu(x), x)[0].item() == 0.0


# ---------------------------------------------------------------------- weights: the task's gradient

WEIGHTS = (-2.0, -1.0, -0.25, 0.25, 1.0, 2.0)
ABOVE = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # what comes from the layer: powers of two, to tell sums apart
DAMPING = len(WEIGHTS) ** -0.5
HALVED = tuple(0.5 * w for w in WEIGHTS)


def attached(
    method: str, bits: int | str, values: tuple[float, ...], scale: str | None = None, **learned: float
) -> tuple[waveq.WaveQ, nn.Linear, WaveParametrization]:
    """One layer with these weights, and what its quantiser learns set to these values; always with a wave."""
    layer = nn.Linear(len(values), 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([values]))
    handle = waveq.attach(
        nn.Sequential(layer),
        quantizer=method,
        bits=bits,  # type: ignore[arg-type]
        scale=scale,  # type: ignore[arg-type]
        total_steps=100,
        schedule=lambda step: (0.5, 0.0),
    )
    state = parametrization_of(layer)
    state.strength.fill_(2.0)  # as if it had been measured: before that no wave moves a weight
    for name, value in learned.items():
        with torch.no_grad():
            getattr(state.quantizer, name).fill_(value)
    return handle, layer, state


def task_gradients(layer: nn.Linear, state: WaveParametrization) -> tuple[list[float], dict[str, float]]:
    """In the weights, and in what the quantiser learns."""
    (layer.weight * torch.tensor([ABOVE])).sum().backward()
    weights = layer.parametrizations.weight.original.grad  # type: ignore[union-attr, index]
    return weights.flatten().tolist(), {n: p.grad.item() for n, p in state.quantizer.named_parameters()}


def kept(*passes: float) -> list[float]:
    return [a * p for a, p in zip(ABOVE, passes, strict=True)]


@pytest.mark.slow
@in_every_form
def test_wrpn(form: str) -> None:
    with use_backend(form):
        _, layer, state = attached("wrpn", 3, WEIGHTS, "none")
        assert task_gradients(layer, state)[0] == kept(0, 1, 1, 1, 1, 0)
        _, layer, state = attached("wrpn", 3, WEIGHTS, "max")
        assert task_gradients(layer, state)[0] == kept(1, 1, 1, 1, 1, 1)
        _, layer, state = attached("wrpn", 3, WEIGHTS, "learned", level_scale=1.0)
        weights, learned = task_gradients(layer, state)
        assert weights == kept(0, 1, 1, 1, 1, 0)
        # Q - u inside, which is 0 on the bounds, and the sign beyond
        expected = -1.0 + 4.0 * (0.25 - 1 / 3) + 8.0 * (1 / 3 - 0.25) + 32.0
        assert learned["level_scale"] == pytest.approx(DAMPING * expected, rel=1e-5)


@pytest.mark.slow
@in_every_form
def test_a_scale_of_wrpn_below_zero_can_come_back(form: str) -> None:
    with use_backend(form):
        _, layer, state = attached("wrpn", 3, WEIGHTS, "learned", level_scale=-1.0)
        weights, learned = task_gradients(layer, state)
    assert weights == [0.0] * 6
    assert learned["level_scale"] == pytest.approx(DAMPING * (-1 - 2 - 4 + 8 + 16 + 32), rel=1e-5)


@in_every_form
@pytest.mark.parametrize("bits", range(2, 10))
def test_dorefa_on_a_fixed_range(bits: int, form: str) -> None:
    t = torch.tensor(WEIGHTS, dtype=torch.float64).tanh()
    slopes = torch.tensor(ABOVE).double() * (1 - t.square()) / t.max()  # the largest weights as all others
    with use_backend(form):
        for scale, gain in (("max", 2.0), ("learned", 0.5)):
            learned = {"level_scale": gain} if scale == "learned" else {}
            _, layer, state = attached("dorefa", bits, WEIGHTS, scale, **learned)
            assert task_gradients(layer, state)[0] == pytest.approx((gain * slopes).tolist(), rel=1e-4)


@in_every_form
def test_dorefa_as_published_shares_the_maximums_gradient_among_equals(form: str) -> None:
    t, above = torch.tensor(WEIGHTS, dtype=torch.float64).tanh(), torch.tensor(ABOVE).double()
    slopes, most = 1 - t.square(), t.max()
    by_most = -(above * t).sum() / most.square()
    expected = above * slopes / most
    expected[0] -= by_most * slopes[0] / 2
    expected[5] += by_most * slopes[5] / 2
    with use_backend(form):
        _, layer, state = attached("dorefa", 4, WEIGHTS, "none")
        assert task_gradients(layer, state)[0] == pytest.approx(expected.tolist(), rel=1e-4)


@in_every_form
def test_lsq_has_no_gradient_on_its_bounds(form: str) -> None:
    with use_backend(form):
        _, layer, state = attached("lsq", 3, (-3.0, -2.0, -1.0, 0.25, 1.5, 2.0), step=0.5)
        weights, learned = task_gradients(layer, state)
    assert weights == kept(0, 0, 1, 1, 0, 0)  # -Q_N s = -2, Q_P s = 1.5
    expected = -4.0 * (1 + 2) + 8.0 * (0.0 - 0.5) + 3.0 * (16 + 32)  # 0.25 is half a step: to even
    assert learned["step"] == pytest.approx((6 * 3) ** -0.5 * expected, rel=1e-5)


@in_every_form
def test_dsq_has_its_soft_gradient_on_its_bounds(form: str) -> None:
    with use_backend(form):
        _, layer, state = attached("dsq", 2, WEIGHTS, level_scale=1.0, softness=0.2)
        weights, _ = task_gradients(layer, state)
    steep = math.log(2 / 0.2 - 1)
    end = steep * (1 - math.tanh(steep / 2) ** 2) / (2 * 0.8)  # half a bin from the middle, in bins on both sides
    middle = steep * (1 - math.tanh(0.375 * steep) ** 2) / (2 * 0.8)  # 0.25 is 0.375 bins of 2/3 above the middle, 0
    assert weights == pytest.approx(kept(0, end, middle, middle, end, 0), rel=1e-4)


@in_every_form
def test_codes_and_ternary_levels_have_no_bounds(form: str) -> None:
    with use_backend(form):
        _, layer, state = attached("lqnets", 2, WEIGHTS)
        assert task_gradients(layer, state)[0] == kept(1, 1, 1, 1, 1, 1)
        # the threshold, 0.05 max|w|, is a number of float32's, and lies on the level 0 itself
        edge = float(torch.tensor(0.05) * 2.0)
        _, layer, state = attached("ttq", 2, (-2.0, -edge, 0.0, edge, 1.0, 2.0), positive=3.0, negative=5.0)
        weights, learned = task_gradients(layer, state)
    assert weights == kept(5, 1, 1, 1, 3, 3)
    assert learned["positive"] == pytest.approx(DAMPING * (16 + 32))
    assert learned["negative"] == pytest.approx(-DAMPING * 1)


@in_every_form
@pytest.mark.parametrize("method", ["dorefa", "wrpn", "pact"])
def test_one_bit_passes_everything(method: str, form: str) -> None:
    with use_backend(form):
        _, layer, state = attached(method, 1, WEIGHTS)
        assert task_gradients(layer, state)[0] == kept(1, 1, 1, 1, 1, 1)


@pytest.mark.parametrize("grid", Grid)
@pytest.mark.parametrize("bits", range(1, 9))
def test_the_ends_of_the_grid_count_as_inside(bits: int, grid: Grid) -> None:
    u, stretch = tensor(-1.5, -1.0, 1.0, 1.5).requires_grad_(), tensor(1.0).requires_grad_()
    q = round_to_grid(u, torch.tensor(float(bits)), grid=grid, scale=stretch)
    du, dc = gradient(q * tensor(1.0, 2.0, 4.0, 8.0), u, stretch)
    assert du.tolist() == [0.0, 2.0, 4.0, 0.0]
    assert dc.item() == pytest.approx(-1.0 + 8.0, rel=1e-5)  # Q - u = 0 on the ends, Q beyond them


def test_the_learned_range_counts_as_inside() -> None:
    w, step, reach = tensor(-1.5, -1.0, 1.0, 1.5).requires_grad_(), tensor(0.5), tensor(1.0)
    step, reach = step.requires_grad_(), reach.requires_grad_()
    q = quantize_step_range(w, step, reach)
    dw, by_step, by_reach = gradient(q * tensor(1.0, 2.0, 4.0, 8.0), w, step, reach)
    assert dw.tolist() == [0.0, 2.0, 4.0, 0.0]
    assert (by_step.item(), by_reach.item()) == (0.0, -1.0 + 8.0)


# ---------------------------------------------------------------------- weights: the wave's gradient


def wave_gradient(handle: waveq.WaveQ, layer: nn.Linear) -> list[float]:
    """Of the penalty, after the layer was read as in training."""
    _ = layer.weight
    handle.penalty().backward()  # type: ignore[no-untyped-call]
    found: list[float] = layer.parametrizations.weight.original.grad.flatten().tolist()  # type: ignore[union-attr, index]
    return found


def pull(u: Tensor, beta: float, grid: Grid, slope: Tensor) -> list[float]:
    du, _ = sine_penalty_gradients(u, torch.tensor(beta, dtype=torch.float64), grid=grid)
    found: list[float] = (du * slope).tolist()
    return found


@in_every_form
@pytest.mark.parametrize(("scale", "size"), [("none", 1.0), ("max", 2.0), ("learned", 0.5)])
def test_the_wave_pulls_weights_on_the_bounds_of_wrpn(scale: str, size: float, form: str) -> None:
    with use_backend(form):
        learned = {"level_scale": size} if scale == "learned" else {}
        values = HALVED if scale == "learned" else WEIGHTS
        handle, layer, state = attached("wrpn", "learn", values, scale, **learned)
        state.beta.data.fill_(1.5)
        found = wave_gradient(handle, layer)
    x = torch.tensor(values, dtype=torch.float64) / size
    expected = pull(x.clamp(-1, 1), 1.5, Grid.MID_TREAD, (x.abs() <= 1).double() / size)
    assert expected[4] != 0.0
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-7)


@in_every_form
@pytest.mark.parametrize("scale", ["none", "max"])
def test_the_wave_pulls_the_largest_weights_of_dorefa(scale: str, form: str) -> None:
    with use_backend(form):
        handle, layer, state = attached("dorefa", "learn", WEIGHTS, scale)
        state.beta.data.fill_(1.5)
        found = wave_gradient(handle, layer)
    t = torch.tensor(WEIGHTS, dtype=torch.float64).tanh()
    most, slopes = t.max(), 1 - t.square()
    expected = torch.tensor(pull(t / most, 1.5, Grid.MID_RISE, slopes / most))
    if scale == "none":
        by_most = -(torch.tensor(pull(t / most, 1.5, Grid.MID_RISE, t / most))).sum() / most
        expected[0] -= by_most * slopes[0] / 2
        expected[5] += by_most * slopes[5] / 2
    assert found == pytest.approx(expected.tolist(), rel=1e-4, abs=1e-7)


@in_every_form
def test_the_wave_pulls_weights_on_the_upper_end_of_lsqs_levels(form: str) -> None:
    values, lowest = (-2.0, -1.5, -0.3, 0.3, 1.0, 2.0), -1.0 - 1.0 / (2**1.5 - 1.0)  # no number that weights can have
    with use_backend(form):
        handle, layer, state = attached("lsq", "learn", values)
        with torch.no_grad():
            state.quantizer.step.fill_(1.0 / float(state.quantizer.reference_steps))  # type: ignore[arg-type, union-attr]
        state.beta.data.fill_(1.5)
        found = wave_gradient(handle, layer)
    x = torch.tensor(values, dtype=torch.float64)
    expected = pull(x.clamp(lowest, 1.0), 1.5, Grid.MID_TREAD, ((x >= lowest) & (x <= 1.0)).double())
    assert expected[4] != 0.0
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize(("method", "name", "value"), [("lsq", "step", 1 / 3), ("dsq", "level_scale", 1.0)])
def test_the_coordinate_is_closed(method: str, name: str, value: float) -> None:
    weight = torch.tensor(WEIGHTS, requires_grad=True)
    made = make_quantizer(method, weight, total_bits=3)
    getattr(made, name).data.fill_(value)
    assert gradient(made.coordinate(weight, torch.tensor(2.0)), weight)[0].tolist() == [0.0, 1.0, 1.0, 1.0, 1.0, 0.0]


def test_the_coordinate_of_one_bit_is_closed() -> None:
    weight = tensor(-1.0, 0.5, 1.0, 1.5).requires_grad_()  # their mean size is 1
    made = make_quantizer("dorefa", weight, total_bits=1)
    assert gradient(made.binary_coordinate(weight), weight)[0].tolist() == [1.0, 1.0, 1.0, 0.0]


def test_the_piecewise_coordinate_is_closed() -> None:
    values = torch.tensor([[-2.0, -1.0, 0.0, 4.0, 5.0]], requires_grad=True)
    knots, heights = torch.tensor([[-1.0, 0.0, 4.0]]), tensor(-1.0, 0.0, 1.0)
    (slope,) = gradient(piecewise_coordinate(values, knots, heights), values)
    assert slope.tolist() == [[0.0, 1.0, 1.0, 0.25, 0.0]]


# ---------------------------------------------------------------------- inputs


@pytest.mark.slow
@in_every_form
@pytest.mark.parametrize("bits", [1, 2, 8])
def test_inputs_of_dorefa(bits: int, form: str) -> None:
    made = DoReFaActivation(bits)
    x = tensor(-1.5, -1.0, 0.0, 1.0, 1.5).requires_grad_()
    with use_backend(form):
        assert gradient(made(x), x)[0].tolist() == [0.0, 0.0, 1.0, 1.0, 0.0]
        assert gradient(made(x, signed=True), x)[0].tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]
        assert gradient(made.rectified(x), x)[0].tolist() == [0.0, 0.0, 0.0, 1.0, 0.0]  # a ReLU has none at 0


@in_every_form
def test_inputs_of_pact(form: str) -> None:
    made = PACTActivation(2, start=2.0)
    x, above = tensor(-3.0, -2.0, 0.0, 1.0, 2.0, 3.0).requires_grad_(), torch.tensor(ABOVE)
    with use_backend(form):
        dx, by_alpha = gradient(made(x) * above, x, made.alpha)
        assert dx.tolist() == kept(0, 0, 0, 1, 0, 0)  # at 0 a ReLU, at alpha it is alpha's
        assert by_alpha.item() == 16 + 32
        dx, by_alpha = gradient(made(x, signed=True) * above, x, made.alpha)
        assert dx.tolist() == kept(0, 0, 1, 1, 0, 0)
        assert by_alpha.item() == -1 - 2 + 16 + 32


@in_every_form
def test_inputs_of_lsq(form: str) -> None:
    made = make_activation_quantizer("lsq", 2)
    x, above = tensor(-4.0, -2.0, 0.0, 1.0, 3.0, 4.0), torch.tensor(ABOVE)
    with use_backend(form):
        made(x)  # starts it
        made.step.data.fill_(1.0)  # type: ignore[union-attr, operator]
        x.requires_grad_()
        dx, by_step = gradient(made(x) * above, x, made.step)  # type: ignore[arg-type]
        assert dx.tolist() == kept(0, 0, 0, 1, 0, 0)
        assert by_step.item() == pytest.approx((6 * 3) ** -0.5 * 3 * (16 + 32), rel=1e-5)
        dx, by_step = gradient(made(x, signed=True) * above, x, made.step)  # type: ignore[arg-type]
        assert dx.tolist() == kept(0, 0, 1, 0, 0, 0)  # -2 to 1
        assert by_step.item() == pytest.approx(6**-0.5 * (-2 * (1 + 2) + 8 + 16 + 32), rel=1e-5)


@in_every_form
def test_inputs_of_lqnets(form: str) -> None:
    made = LQNetsActivation(2).eval()
    x = tensor(-4.0, -3.0, 0.0, 1.0, 3.0, 4.0)
    with use_backend(form):
        made(x)
        made.basis.copy_(torch.tensor([[1.0, 2.0]]))
        made._begun = True
        x.requires_grad_()
        assert gradient(made(x), x)[0].tolist() == [0.0, 0.0, 1.0, 1.0, 1.0, 0.0]
        assert gradient(made(x, signed=True), x)[0].tolist() == [0.0, 1.0, 1.0, 1.0, 1.0, 0.0]


@in_every_form
def test_inputs_of_dsq(form: str) -> None:
    made = make_activation_quantizer("dsq", 2)
    x = tensor(-4.0, -3.0, 0.0, 3.0, 4.0)
    steep = math.log(2 / 0.2 - 1)
    end = steep * (1 - math.tanh(steep / 2) ** 2) / (2 * 0.8)
    middle = steep / (2 * 0.8)
    with use_backend(form):
        made(x)
        made.range.data.fill_(3.0)  # type: ignore[union-attr, operator]
        x.requires_grad_()
        assert gradient(made(x), x)[0].tolist() == pytest.approx([0.0, 0.0, end, end, 0.0], rel=1e-4)
        found = gradient(made(x, signed=True), x)[0].tolist()
        assert found == pytest.approx([0.0, end, middle, end, 0.0], rel=1e-4)


# ---------------------------------------------------------------------- Triton


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="this is the process that the test below starts")
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed (pip install triton)")
def test_all_of_this_in_triton_under_its_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", __file__]
    done = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import waveq
from tests.reference_wave import dorefa_activation, dorefa_weight, wrpn_weight, zeros_by_search
from tests.strategies import betas, weights
from waveq.functional import Grid, grid_levels, grid_scale, round_to_grid, wave
from waveq.method.parametrization import WaveParametrization, parametrization_of
from waveq.method.settings import WaveLayer
from waveq.quantizers import (
    check_total_bits,
    make_quantizer,
    quantize_activation,
    quantize_weight,
    quantizer_class,
    quantizer_names,
)

NAMES = [name for name in quantizer_names() if quantizer_class(name).__module__.startswith("waveq.")]
"""Not those that other tests register, whose waves are their own affair."""
CASES = [
    pytest.param(name, scale, bits, id=f"{name}-{scale}-{bits}")
    for name in NAMES
    for scale in quantizer_class(name).scale_modes
    for bits in quantizer_class(name).bit_counts
]
LEARNING = [
    pytest.param(name, scale, id=f"{name}-{scale}")
    for name in NAMES
    if quantizer_class(name).learns_bits
    for scale in quantizer_class(name).scale_modes
]


# ---------------------------------------------------------------------- zeros of the wave == levels of the quantiser


def _attached(
    values: Tensor, quantizer: str, scale: str, bits: int | str
) -> tuple[Tensor, Tensor, WaveParametrization]:
    """(weights as the layer sees them, what the wave acts on, the state) of one layer, through the public door."""
    layer = nn.Linear(values.numel(), 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(values)
    model = nn.Sequential(layer)
    steps = 10 if bits == "learn" else None
    waveq.attach(model, quantizer=quantizer, scale=scale, bits=bits, total_steps=steps, preset="paper")  # type: ignore[arg-type]
    state = parametrization_of(layer)
    model.eval()  # in training LQ-Nets moves its levels after every forward pass
    return layer.weight.detach().flatten(), WaveLayer("0", (layer,), state).wave_input("quantizer").flatten(), state


def _regions(quantized: Tensor) -> list[tuple[int, int]]:
    """First and last index of each run of equal values."""
    edges = (quantized.diff().abs() > 1e-9).nonzero().flatten().tolist()
    return list(zip([0, *(edge + 1 for edge in edges)], [*edges, len(quantized) - 1], strict=True))


def _zeros(u: np.ndarray, state: WaveParametrization) -> np.ndarray:
    """Zeros of the wave on the range of u, by search."""
    reach = max(1.0, float(np.abs(u).max()))
    beta, grid = state.wave_beta().detach().double(), state.grid
    found = reach * zeros_by_search(
        lambda x: wave(reach * torch.from_numpy(x), beta, grid=grid, order=0).numpy(), reach * 2 ** (float(beta) + 1)
    )
    return found[(found >= u.min() - 1e-6) & (found <= u.max() + 1e-6)]


def _assert_one_zero_per_level(
    quantized: Tensor, wave_input: Tensor, state: WaveParametrization
) -> list[tuple[float, float]]:
    """Every level has one zero of the wave among the weights that round to it; every zero has one level.

    Returns the pairs (zero, level) that were found.
    """
    u = wave_input.detach().numpy()
    assert (np.diff(u) >= -1e-12).all(), "the coordinate must rise with the weight"
    zeros, regions = _zeros(u, state), _regions(quantized)
    # samples do not lie on rounding boundaries: those are between the last of one region and the first of the next
    between = [(u[last] + u[last + 1]) / 2 for _, last in regions[:-1]]
    bounds = list(zip([-np.inf, *between], [*between, np.inf], strict=True))
    pairs = []
    for place, ((first, _), (low, high)) in enumerate(zip(regions, bounds, strict=True)):
        inside = zeros[(zeros >= low) & (zeros < high)]
        if 0 < place < len(regions) - 1:
            assert len(inside) == 1, (place, inside, low, high)
        assert len(inside) <= 1  # the outermost level may be stretched out of the weights' range
        pairs += [(float(zero), float(quantized[first])) for zero in inside]
    assert len(pairs) == len(zeros)
    return pairs


def _sweep(bits: int) -> Tensor:
    """Weights that visit every level: evenly spread, a hundred or so on each, and as many near zero."""
    half = max(1000, 64 * 2**bits)
    positive = torch.linspace(1e-6, 1.0, half, dtype=torch.float64)
    return torch.cat([-positive.flip(0), positive[:1].expand(half), positive])


@pytest.mark.parametrize(("quantizer", "scale", "bits"), CASES)
def test_zeros_of_the_wave_are_the_levels(quantizer: str, scale: str, bits: int) -> None:
    quantized, wave_input, state = _attached(_sweep(bits), quantizer, scale, bits)
    pairs = _assert_one_zero_per_level(quantized, wave_input, state)
    assert len(pairs) >= 2
    pitch = state.level_scale(_sweep(bits))
    if pitch is None:
        return
    # where levels are equally far apart, the level *is* the zero, up to one factor for all
    zeros, levels = (np.array(side) for side in zip(*pairs, strict=True))
    steps = 2.0 ** (bits - 1) - (1.0 if state.grid is Grid.MID_TREAD else 0.5)
    np.testing.assert_allclose(levels / pitch, zeros * steps, atol=2e-4 * steps)


@pytest.mark.parametrize("scale", ["none", "max", "learned"])
@pytest.mark.parametrize("bits", range(1, 10))
@pytest.mark.parametrize("quantizer", ["dorefa", "wrpn"])
def test_dorefa_and_wrpn_use_every_level(quantizer: str, bits: int, scale: str) -> None:
    quantized, _, state = _attached(_sweep(bits), quantizer, scale, bits)
    expected = grid_levels(bits, state.grid)
    assert state.grid is (Grid.MID_RISE if quantizer == "dorefa" or bits == 1 else Grid.MID_TREAD)
    found = quantized.unique()
    torch.testing.assert_close(found / found.max(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("quantizer", "scale"), LEARNING)
@settings(max_examples=8)
@given(beta=betas())
def test_zeros_are_levels_at_a_real_beta_too(quantizer: str, scale: str, beta: float) -> None:
    layer = nn.Linear(8193, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(-1, 1, 8193, dtype=torch.float64))
    waveq.attach(nn.Sequential(layer), quantizer=quantizer, scale=scale, total_steps=10, preset="paper")  # type: ignore[arg-type]
    state = parametrization_of(layer)
    with torch.no_grad():
        state.beta.fill_(beta)
    wave_input = WaveLayer("0", (layer,), state).wave_input("quantizer").flatten()
    _assert_one_zero_per_level(layer.weight.detach().flatten(), wave_input, state)


# ---------------------------------------------------------------------- published formulas


@pytest.mark.slow
@given(w=weights(), bits=st.integers(1, 9))
def test_dorefa_is_the_published_formula(w: Tensor, bits: int) -> None:
    if bits > 1 and float(w.abs().max()) < 1e-9:
        return  # the published formula divides by zero there
    steps = 2.0**bits - 1
    position = steps * (np.tanh(w.numpy()) / (2 * np.abs(np.tanh(w.numpy())).max().clip(1e-300)) + 0.5)
    settled = np.abs(position % 1 - 0.5) > 1e-4  # off the boundaries, where float32 and float64 may part
    ours = quantize_weight(w, bits, quantizer="dorefa", scale="none").numpy()
    np.testing.assert_allclose(ours[settled], dorefa_weight(w.numpy(), bits)[settled], atol=1e-6)


@given(w=weights(), bits=st.integers(2, 9))
def test_wrpn_is_the_published_formula(w: Tensor, bits: int) -> None:
    position = (2.0 ** (bits - 1) - 1) * np.clip(w.numpy(), -1, 1)
    settled = np.abs(position % 1 - 0.5) > 1e-4
    ours = quantize_weight(w, bits, quantizer="wrpn", scale="none").numpy()
    np.testing.assert_allclose(ours[settled], wrpn_weight(w.numpy(), bits)[settled], atol=1e-6)


def test_dorefa_by_hand() -> None:
    w = torch.tensor([-0.5, -0.1, 0.0, 0.2, 0.5])
    # tanh/max: -1, -0.2157, 0, 0.4271, 1; two bits: levels -1, -1/3, 1/3, 1 with boundaries -2/3, 0 (to even: +), 2/3
    assert quantize_weight(w, 2, quantizer="dorefa", scale="none").tolist() == pytest.approx(
        [-1, -1 / 3, 1 / 3, 1 / 3, 1]
    )
    assert quantize_weight(w, 2, quantizer="dorefa", scale="max").tolist() == pytest.approx(
        [-0.5, -1 / 6, 1 / 6, 1 / 6, 0.5]
    )
    # one bit: sign(w) E|w| with E|w| = 1.3 / 5, and 0 counts as positive
    assert quantize_weight(w, 1, quantizer="dorefa").tolist() == pytest.approx([-0.26, -0.26, 0.26, 0.26, 0.26])


def test_wrpn_by_hand() -> None:
    w = torch.tensor([-1.5, -0.6, -0.4, 0.0, 0.4, 0.51, 3.0])
    assert quantize_weight(w, 2, quantizer="wrpn", scale="none").tolist() == [-1, -1, 0, 0, 0, 1, 1]  # ternary
    third = quantize_weight(w, 3, quantizer="wrpn", scale="none")
    assert third.tolist() == pytest.approx([-1, -2 / 3, -1 / 3, 0, 1 / 3, 2 / 3, 1])
    # symmetric: steps of max|w| / 3 = 1
    symmetric = quantize_weight(w, 3, quantizer="wrpn", scale="max")
    assert symmetric.tolist() == pytest.approx([-2, -1, 0, 0, 0, 1, 3])  # -1.5 / 1 = -1.5 goes to even
    assert quantize_weight(torch.tensor([0.3, -0.1]), 1, quantizer="wrpn").tolist() == pytest.approx([0.2, -0.2])


@pytest.mark.parametrize("scale", ["none", "max"])
@pytest.mark.parametrize("quantizer", ["dorefa", "wrpn"])
def test_binary_wave_is_drawn_on_what_is_rounded(quantizer: str, scale: str) -> None:
    """sign(w) E|w| rounds w / E|w|: weights of that size, not of size 1 or max|w|, rest at zeros of the wave."""
    values = torch.tensor([0.1, -0.3, 0.2], dtype=torch.float64)
    binary, _, _ = _attached(values, quantizer, scale, 1)
    _, wave_input, state = _attached(binary, quantizer, scale, 1)
    assert binary.tolist() == pytest.approx([0.2, -0.2, 0.2])
    assert float(wave(wave_input.detach(), state.wave_beta(), grid=state.grid, order=0).max()) < 1e-12


def test_small_weights_vanish_in_published_wrpn() -> None:
    # the reason for a scale: VGG-11's weights (std 0.02) on steps of 1/3
    w = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 0.02
    assert not bool(quantize_weight(w, 3, quantizer="wrpn", scale="none").any())
    assert bool(quantize_weight(w, 3, quantizer="wrpn", scale="max").any())


@pytest.mark.slow
@pytest.mark.parametrize(("quantizer", "scale", "bits"), CASES)
def test_all_zero_weights_stay_finite_and_can_leave_zero(quantizer: str, scale: str, bits: int) -> None:
    layer = nn.Linear(6, 5, bias=False)
    nn.init.zeros_(layer.weight)
    model = nn.Sequential(layer)
    wq = waveq.attach(model, quantizer=quantizer, scale=scale, bits=bits, preset="paper")  # type: ignore[arg-type]
    (model(torch.ones(2, 6)).sum() + wq.penalty()).backward()
    gradient = layer.parametrizations.weight.original.grad  # type: ignore[union-attr, operator]
    assert bool(torch.isfinite(layer.weight).all())
    assert bool(torch.isfinite(gradient).all())
    assert float(gradient.abs().max()) < 100
    wq.finalize()
    assert bool(torch.isfinite(layer.weight).all())


# ---------------------------------------------------------------------- gradients


@pytest.mark.slow
@given(w=weights(), bits=st.integers(2, 9))
def test_dorefa_gradient_is_straight_through_the_rounding_alone(w: Tensor, bits: int) -> None:
    upstream = torch.linspace(-1, 2, len(w), dtype=torch.float64)
    for scale in ("none", "max"):
        method = make_quantizer("dorefa", w, scale=scale)
        w = w.detach().requires_grad_()
        rounded = method(w, torch.tensor(bits - 1.0, dtype=torch.float64))
        gain = 1.0 if scale == "none" else w.detach().abs().amax().clamp_min(1e-12)
        smooth = gain * method.coordinate(w, torch.tensor(1.0))
        ours, exact = (torch.autograd.grad((y * upstream).sum(), w)[0] for y in (rounded, smooth))
        torch.testing.assert_close(ours, exact, rtol=1e-9, atol=1e-9)


def test_dorefa_gradient_flows_through_the_maximum_as_published() -> None:
    w = torch.tensor([0.2, -0.5], dtype=torch.float64, requires_grad=True)
    make_quantizer("dorefa", w, scale="none")(w, torch.tensor(2.0))[0].backward()
    t = np.tanh([0.2, 0.5])
    expected = [(1 - t[0] ** 2) / t[1], t[0] / t[1] ** 2 * (1 - t[1] ** 2)]  # d(t0/t1)/dw0, and /dw1 with w1 = -0.5
    assert w.grad is not None
    assert w.grad.tolist() == pytest.approx(expected)


@given(bits=st.integers(2, 9))
def test_wrpn_gradient_is_one_inside_and_zero_outside(bits: int) -> None:
    w = torch.tensor([-1.7, -0.99, -0.2, 0.0, 0.4, 0.999, 1.01], dtype=torch.float64, requires_grad=True)
    make_quantizer("wrpn", w, scale="none")(w, torch.tensor(bits - 1.0)).sum().backward()
    assert w.grad is not None
    assert w.grad.tolist() == [0, 1, 1, 1, 1, 1, 0]


@given(bits=st.integers(2, 8), s=st.floats(0.3, 1.5))
def test_wrpn_learned_scale_has_lsqs_gradient(bits: int, s: float) -> None:
    w = torch.linspace(-1.9, 1.95, 33, dtype=torch.float64)
    method = make_quantizer("wrpn", w, scale="learned").double()
    with torch.no_grad():
        method.level_scale.fill_(s)
    b = torch.tensor(bits - 1.0, dtype=torch.float64)
    quantized = method(w, b)
    quantized.sum().backward()
    inside = (w.abs() <= s).double()
    rounded = s * round_to_grid((w / s).clamp(-1, 1), b, grid=Grid.MID_TREAD)
    expected = (inside * (rounded - w) / s + (1 - inside) * w.sign()).sum() / len(w) ** 0.5
    torch.testing.assert_close(method.level_scale.grad, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("quantizer", ["dorefa", "wrpn"])
def test_binary_gradient_is_the_identity(quantizer: str) -> None:
    w = torch.tensor([-0.3, 0.0, 0.7], requires_grad=True)
    (make_quantizer(quantizer, w, total_bits=1).binarize(w) * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert w.grad is not None
    assert w.grad.tolist() == [1, 2, 3]


@given(beta=st.floats(1.05, 6.95), w=weights(largest=1.0))
def test_task_gradient_reaches_beta_through_the_stretch(beta: float, w: Tensor) -> None:
    """dQ/dbeta = dQ/dc dc/dbeta with dQ/dc = (Q - u)/c inside: LSQ's gradient by the chain rule, nothing more."""
    at = torch.tensor(beta, dtype=torch.float64, requires_grad=True)
    bits = torch.ceil(at.detach())
    c = grid_scale(at, bits, grid=Grid.MID_TREAD)
    quantized = make_quantizer("wrpn", w, scale="none")(w, bits, c)
    (slope,) = torch.autograd.grad(quantized.sum(), at)
    k, scale = 2 ** float(bits) - 1, c.item()
    dc = -k * np.log(2) * 2**beta / (2**beta - 1) ** 2
    expected = float(((quantized.detach() - w) / scale).sum()) * dc
    assert float(slope) == pytest.approx(expected, rel=1e-6, abs=1e-9)


# ---------------------------------------------------------------------- activations


@given(x=weights(), bits=st.integers(1, 8))
def test_activations_are_the_published_formula(x: Tensor, bits: int) -> None:
    np.testing.assert_allclose(quantize_activation(x, bits).numpy(), dorefa_activation(x.numpy(), bits), atol=1e-12)


@pytest.mark.parametrize("bits", range(1, 9))
def test_activation_levels_by_number_of_bits(bits: int) -> None:
    x = torch.linspace(-2, 2, 4001, dtype=torch.float64)
    plain, signed = quantize_activation(x, bits).unique(), quantize_activation(x, bits, signed=True).unique()
    assert len(plain) == 2**bits
    assert (plain.min(), plain.max()) == (0, 1)
    assert len(signed) == max(2, 2**bits - 1)
    assert (signed.min(), signed.max()) == (-1, 1)
    torch.testing.assert_close(plain.diff(), torch.full_like(plain[1:], 1 / (2**bits - 1)))


@pytest.mark.slow
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", range(1, 9))
def test_activation_gradient_is_exact(bits: int, signed: bool) -> None:
    x = torch.tensor([-1.5, -0.7, -0.01, 0.01, 0.3, 0.99, 1.5], requires_grad=True)
    quantize_activation(x, bits, signed=signed).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == ([0, 1, 1, 1, 1, 1, 0] if signed else [0, 0, 0, 1, 1, 1, 0])


# ---------------------------------------------------------------------- the door


def test_levels_are_kept_in_order_and_dtype_kept() -> None:
    for name in quantizer_names():
        for bits in quantizer_class(name).bit_counts:
            for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
                w = torch.linspace(-1, 1, 50, dtype=dtype).reshape(5, 10)
                before = w.clone()
                quantized = quantize_weight(w, bits, quantizer=name)
                assert quantized.dtype == dtype, name
                assert quantized.shape == w.shape
                assert bool((quantized.flatten().float().diff() >= -1e-3).all()), (name, bits)
                assert torch.equal(w, before)


def test_more_bits_never_round_coarser() -> None:
    w = torch.randn(4000, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.1
    for name in ("dorefa", "wrpn"):
        reference = torch.tanh(w) / torch.tanh(w).abs().max() * w.abs().max() if name == "dorefa" else w
        errors = [
            float((quantize_weight(w, bits, quantizer=name, scale="max") - reference).square().mean())
            for bits in range(2, 10)
        ]
        assert all(fine < coarse for coarse, fine in pairwise(errors)), (name, errors)


@pytest.mark.parametrize("bits", [0, 10, -1, 2.0, True, "4", None, 2.5])
def test_bits_out_of_range(bits: object) -> None:
    with pytest.raises(ValueError, match=r"the bits must be a whole number from 1 to 9 \(sign included\), not "):
        quantize_weight(torch.ones(3), bits)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the bits of layer 'fc' must be"):
        check_total_bits(bits, layer="fc")


def test_numpy_bits_are_bits() -> None:
    assert check_total_bits(np.uint8(4)) == 4
    assert type(check_total_bits(np.int64(4))) is int


@pytest.mark.parametrize("bits", [0, 9, True, 4.0, None])
def test_activation_bits_out_of_range(bits: object) -> None:
    with pytest.raises(ValueError, match="activation bits must be a whole number from 1 to 8, not "):
        quantize_activation(torch.ones(2), bits)  # type: ignore[arg-type]


def test_unknown_names_are_told_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown quantizer 'doreffa'; did you mean 'dorefa'"):
        make_quantizer("doreffa", torch.ones(3))
    with pytest.raises(ValueError, match="scale must be one of 'none', 'max', 'learned', not 'mean'"):
        make_quantizer("wrpn", torch.ones(3), scale="mean")  # type: ignore[arg-type]


def test_the_wave_leaves_a_learned_scale_to_the_task() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16))
    wq = waveq.attach(model, bits=3, quantizer="wrpn", scale="learned")
    wq.penalty().backward()
    scale = model[0].parametrizations.weight[0].quantizer.level_scale
    assert scale.grad is None or float(scale.grad) == 0.0
    model(torch.randn(4, 8)).square().sum().backward()
    assert scale.grad is not None
    assert float(scale.grad) != 0.0

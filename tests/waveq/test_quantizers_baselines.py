"""PACT, LSQ, LQ-Nets, DSQ and TTQ against values and gradients worked out by hand, and their life in a model."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from waveq import attach
from waveq.functional import Grid, grid_levels, round_to_grid, wave
from waveq.parametrization import FixedActivation
from waveq.quantizers import (
    activation_quantizer_names,
    make_activation_quantizer,
    make_quantizer,
    quantize_activation,
    quantize_weight,
    quantizer_class,
)
from waveq.quantizers._binary_codes import assign, binary_codes, fit_basis, moved_basis, sorted_levels
from waveq.quantizers._piecewise import piecewise_coordinate, thresholds_below
from waveq.quantizers.dsq import DSQ, DSQActivation, soft_round
from waveq.quantizers.lqnets import LQNets, LQNetsActivation
from waveq.quantizers.lsq import LSQ, LSQActivation
from waveq.quantizers.pact import PACTActivation
from waveq.quantizers.ttq import TTQ

LEARNED_LEVELS = ("dsq", "lqnets", "lsq", "ttq")


def random_weight(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gradient(output: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(output.sum(), inputs)


def tensor(*values: float) -> Tensor:
    return torch.tensor(values)


# ---------------------------------------------------------------------- PACT


def test_pact_by_hand() -> None:
    pact = PACTActivation(2, start=6.0)
    x = tensor(-1.0, 0.9, 2.9, 4.1, 6.0, 7.0).requires_grad_()
    y = pact(x)
    assert y.tolist() == [0.0, 0.0, 2.0, 4.0, 6.0, 6.0]
    dx, dalpha = gradient(y, x, pact.alpha)
    assert dx.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0, 0.0]
    assert dalpha.item() == 2.0  # x >= alpha: the two last, equality included


def test_pact_with_a_sign_by_hand() -> None:
    pact = PACTActivation(2, start=2.0)
    x = tensor(-3.0, -0.9, 0.4, 2.0).requires_grad_()
    y = pact(x, signed=True)
    assert y.tolist() == [-2.0, 0.0, 0.0, 2.0]
    dx, dalpha = gradient(y * tensor(3.0, 1.0, 1.0, 5.0), x, pact.alpha)
    assert dx.tolist() == [0.0, 1.0, 1.0, 0.0]
    assert dalpha.item() == -3.0 + 5.0


def test_pact_at_range_one_is_dorefa() -> None:
    x = random_weight(50)
    for bits, signed in itertools.product((1, 3, 8), (False, True)):
        torch.testing.assert_close(
            PACTActivation(bits, start=1.0)(x, signed=signed), quantize_activation(x, bits, signed=signed)
        )


def test_pact_weights_are_dorefas() -> None:
    weight = random_weight(4, 5)
    for bits in (1, 2, 5):
        assert torch.equal(quantize_weight(weight, bits, quantizer="pact"), quantize_weight(weight, bits))
    assert quantizer_class("pact").activation == "pact"


@pytest.mark.parametrize("start", [0.0, -1.0, math.inf, math.nan])
def test_pact_refuses_a_start_that_is_no_range(start: float) -> None:
    with pytest.raises(ValueError, match="start"):
        PACTActivation(4, start=start)


def test_alpha_below_zero_comes_back() -> None:
    pact = PACTActivation(4)
    with torch.no_grad():
        pact.alpha.fill_(-0.5)
    x = tensor(1.0, 2.0)
    for _ in range(20):
        y = pact(x)
        assert bool(torch.isfinite(y).all())
        assert bool((y >= 0).all())
        (dalpha,) = gradient((y - 1.0).square(), pact.alpha)
        with torch.no_grad():
            pact.alpha -= 0.1 * dalpha
    assert pact.alpha.item() > 0.5


# ---------------------------------------------------------------------- LSQ


def test_lsq_weights_by_hand() -> None:
    weight = tensor(-1.2, -0.9, 0.35, 0.2, 0.7, 0.3).requires_grad_()
    lsq = LSQ(weight, total_bits=3)  # Q_N = 4, Q_P = 3
    assert lsq.step.item() == pytest.approx(2 * weight.abs().mean().item() / math.sqrt(3))
    with torch.no_grad():
        lsq.step.fill_(0.25)
    quantized = lsq(weight, torch.tensor(2.0))
    assert quantized.tolist() == [-1.0, -1.0, 0.25, 0.25, 0.75, 0.25]  # -1.2/0.25 = -4.8 is below -4
    dw, ds = gradient(quantized, weight, lsq.step)
    assert dw.tolist() == [0.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    inside = (3.6 - 4) + (1 - 1.4) + (1 - 0.8) + (3 - 2.8) + (1 - 1.2)
    assert ds.item() == pytest.approx((-4 + inside) / math.sqrt(6 * 3), rel=1e-5)


def test_lsq_gradient_at_the_very_ends_is_the_outer_one() -> None:
    weight = tensor(-0.5, 0.25)
    lsq = LSQ(weight, total_bits=2)  # Q_N = 2, Q_P = 1
    with torch.no_grad():
        lsq.step.fill_(0.25)
    (ds,) = gradient(lsq(weight, torch.tensor(1.0)), lsq.step)
    assert ds.item() == pytest.approx((-2 + 1) / math.sqrt(2))


@given(st.integers(2, 9), st.floats(0.01, 3.0), st.integers(0, 10_000))
def test_lsq_is_the_clipped_rounding(bits: int, step: float, seed: int) -> None:
    weight = random_weight(40, seed=seed)
    lsq = LSQ(weight, total_bits=bits)
    with torch.no_grad():
        lsq.step.fill_(step)
    least, most = 2 ** (bits - 1), 2 ** (bits - 1) - 1
    expected = lsq.step * torch.round(torch.clamp(weight / lsq.step, -least, most))
    assert torch.allclose(lsq(weight, torch.tensor(bits - 1.0)), expected)


def test_lsq_step_at_learned_bits_moves_as_if_it_were_the_parameter() -> None:
    weight = random_weight(100)
    learned, fixed = LSQ(weight), LSQ(weight, total_bits=6)
    bits = torch.tensor(5.0)
    with torch.no_grad():  # the same step at 6 bits
        fixed.step.copy_(learned.step * learned.reference_steps / 31)
    rate = 1e-3
    for method in (learned, fixed):
        (slope,) = gradient(method(weight, bits, torch.tensor(1.0)).square(), method.step)
        with torch.no_grad():
            method.step -= rate * slope
    torch.testing.assert_close(learned.step * learned.reference_steps / 31, fixed.step)


def test_lsq_stretched_grid_follows_the_wave() -> None:
    weight = random_weight(200)
    lsq = LSQ(weight)
    beta, bits = torch.tensor(2.4), torch.tensor(3.0)
    stretch = (2**bits - 1) / (2**beta - 1)
    levels = lsq(weight * 0.3, bits, stretch).detach()
    residue = wave(lsq.coordinate(levels, beta), beta, grid=lsq.grid())
    assert residue.max() < 1e-9


def test_a_step_below_zero_comes_back() -> None:
    weight = random_weight(64)
    lsq = LSQ(weight, total_bits=3)
    with torch.no_grad():
        lsq.step.fill_(-0.2)
    for _ in range(200):
        quantized = lsq(weight, torch.tensor(2.0))
        assert bool(torch.isfinite(quantized).all())
        (slope,) = gradient((quantized - weight).square(), lsq.step)
        with torch.no_grad():
            lsq.step -= 0.02 * slope
    assert lsq.step.item() > 0.05


@pytest.mark.parametrize(("signed", "least", "most"), [(False, 0, 7), (True, 4, 3)])
def test_lsq_activations_by_hand(signed: bool, least: int, most: int) -> None:
    x = random_weight(6, 5).abs() * (1 if not signed else tensor(1, -1, 1, -1, 1))
    lsq = LSQActivation(3)
    y = lsq(x, signed=signed)
    step = 2 * x.abs().mean().item() / math.sqrt(most)
    assert lsq.step.item() == pytest.approx(step)
    assert torch.allclose(y, step * torch.round(torch.clamp(x / step, -least, most)))
    index = x / step
    slope = torch.where(index <= -least, -least, torch.where(index >= most, most, index.round() - index))
    (ds,) = gradient(y, lsq.step)
    assert ds.item() == pytest.approx(slope.sum().item() / math.sqrt(5 * most), rel=1e-4)


def test_lsq_has_no_single_bit() -> None:
    with pytest.raises(ValueError, match="2 to 8 bits, not 1"):
        make_activation_quantizer("lsq", 1)
    with pytest.raises(ValueError, match="'lsq' has 2 to 9 total bits, not 1"):
        make_quantizer("lsq", random_weight(4), total_bits=1)


# ---------------------------------------------------------------------- start from data


@pytest.mark.parametrize("name", ["lsq", "dsq", "lqnets"])
def test_the_first_training_batch_has_the_last_word(name: str) -> None:
    quantizer = make_activation_quantizer(name, 3)

    def state() -> list[Tensor]:
        return [value.clone() for key, value in quantizer.state_dict().items() if key != "started"]

    small, large = torch.rand(4, 8), 10 * torch.rand(4, 8)
    with torch.no_grad():
        quantizer.eval()(small)
        first = state()
        assert not quantizer.started
        quantizer.train()(torch.zeros(4, 8))
        assert not quantizer.started  # zeros say nothing
        quantizer.train()(large)
        second = state()
        assert quantizer.started
        quantizer(small)
    assert any(not torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(second, state(), strict=True))


def test_a_loaded_start_is_not_started_again() -> None:
    trained, fresh = LSQActivation(4), LSQActivation(4)
    trained(torch.rand(4, 8))
    fresh.load_state_dict(trained.state_dict())
    fresh(100 * torch.rand(4, 8))
    assert torch.equal(fresh.step, trained.step)


def test_ranks_start_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks, the other one simulated: it saw a step of 3, then a batch that was not all zeros."""
    other = iter([3.0, 1.0])
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    monkeypatch.setattr("torch.distributed.all_reduce", lambda value: value.add_(next(other)))
    quantizer = LSQActivation(2)
    with torch.no_grad():
        quantizer.eval()(torch.ones(2, 2))  # may run on one rank alone: must not wait for the other
        quantizer.train()(torch.zeros(2, 2))
    assert quantizer.started  # although this rank saw zeros
    assert quantizer.step.item() == pytest.approx(1.5)
    assert next(other, None) is None


@pytest.mark.parametrize("name", activation_quantizer_names())
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("signed", [False, True])
def test_activations_keep_their_dtype_and_have_at_most_two_to_the_k_levels(
    name: str, dtype: torch.dtype, signed: bool
) -> None:
    x = 5 * random_weight(4, 50).to(dtype)
    y = make_activation_quantizer(name, 2)(x if signed else x.abs(), signed=signed)
    assert y.dtype is dtype
    assert 1 < y.unique().numel() <= 4


# ---------------------------------------------------------------------- DSQ


def soft_reference(x: float, low: float, high: float, bits: int, softness: float) -> float:
    """Eq. 3 to 7 as printed, for one number."""
    width = (high - low) / (2**bits - 1)
    k, s = math.log(2 / softness - 1) / width, 1 / (1 - softness)
    cell = min(int((x - low) // width), 2**bits - 2)
    middle = low + (cell + 0.5) * width
    return low + width * (cell + (s * math.tanh(k * (x - middle)) + 1) / 2)


@given(st.integers(1, 5), st.floats(0.05, 0.45), st.floats(-0.95, 0.95))
def test_dsq_gradients_are_those_of_the_soft_staircase(bits: int, softness: float, place: float) -> None:
    r = 1.7
    cells = (place + 1) * (2**bits - 1) / 2
    if abs(cells - round(cells)) < 1e-3:
        place += 2e-3  # the staircase has a kink at a level
    weight = torch.tensor([place * r], dtype=torch.float64, requires_grad=True)
    dsq = DSQ(weight, total_bits=bits).double()
    with torch.no_grad():
        dsq.level_scale.fill_(r)
        dsq.softness.fill_(softness)
    quantized = dsq(weight, torch.tensor(bits - 1.0, dtype=torch.float64))
    dw, dr, da = gradient(quantized, weight, dsq.level_scale, dsq.softness)

    def soft(x: float, r: float, a: float) -> float:
        return soft_reference(x, -r, r, bits, a)

    x, h = weight.item(), 1e-6
    assert dw.item() == pytest.approx((soft(x + h, r, softness) - soft(x - h, r, softness)) / (2 * h), rel=1e-4)
    of_range = (soft(x, r + h, softness) - soft(x, r - h, softness)) / (2 * h)
    in_product = (quantized.item() - soft(x, r, softness)) / r  # the hard value stands in the product rule
    assert dr.item() == pytest.approx(of_range + in_product, rel=1e-4, abs=1e-6)
    assert da.item() == pytest.approx(
        (soft(x, r, softness + h) - soft(x, r, softness - h)) / (2 * h), rel=1e-4, abs=1e-6
    )


def test_dsq_by_hand() -> None:
    weight = tensor(-5.0, -0.6, 0.6, 2.0).requires_grad_()
    dsq = DSQ(weight, total_bits=2)
    assert dsq.level_scale.item() == 5.0
    with torch.no_grad():
        dsq.level_scale.fill_(3.0)
    quantized = dsq(weight, torch.tensor(1.0))
    assert quantized.tolist() == pytest.approx([-3.0, -1.0, 1.0, 3.0])  # 2.0 is the middle, which goes up
    dw, dr = gradient(quantized[:1], weight, dsq.level_scale)
    assert dw.tolist() == [0.0] * 4
    assert dr.item() == pytest.approx(-1.0 / math.sqrt(4))


def test_dsq_single_bit_is_the_range() -> None:
    weight = tensor(-0.2, 0.1, 0.8)
    assert DSQ(weight, total_bits=1).binarize(weight).tolist() == pytest.approx([-0.8, 0.8, 0.8])


def test_soft_round_ends_meet_the_levels() -> None:
    index = torch.arange(4.0)
    assert soft_round(index, torch.tensor(3.0), torch.tensor(0.3)).tolist() == index.tolist()


def test_dsq_softness_stays_in_its_range() -> None:
    weight = random_weight(20)
    dsq = DSQ(weight, total_bits=3)
    for wild in (-4.0, 0.0, 2.0, 40.0):
        with torch.no_grad():
            dsq.softness.fill_(wild)
        quantized = dsq(weight, torch.tensor(2.0))
        (slope,) = gradient(quantized.square(), dsq.softness)
        assert bool(torch.isfinite(quantized).all())
        assert math.isfinite(slope.item())


def test_dsq_activations_by_hand() -> None:
    dsq = DSQActivation(2)
    x = tensor(0.0, 0.9, 1.6, 3.0).requires_grad_()
    assert dsq(x).tolist() == pytest.approx([0.0, 1.0, 2.0, 3.0])
    y = dsq(torch.cat([x, tensor(9.0)]))
    (dr,) = gradient(y[-1:], dsq.range)
    assert y[-1].item() == pytest.approx(3.0)
    assert dr.item() == pytest.approx(1 / math.sqrt(5))
    assert DSQActivation(2)(tensor(-3.0, -0.9, 0.9), signed=True).tolist() == pytest.approx([-3.0, -1.0, 1.0])


# ---------------------------------------------------------------------- TTQ


def test_ttq_by_hand() -> None:
    weight = tensor(-2.0, -0.5, -0.05, 0.1, 0.2, 1.0).requires_grad_()  # threshold 0.05 * 2
    ttq = TTQ(weight, total_bits=2)
    assert ttq.positive.item() == pytest.approx((0.2 + 1.0) / 2)
    assert ttq.negative.item() == pytest.approx((2.0 + 0.5) / 2)
    quantized = ttq(weight, torch.tensor(1.0))
    assert quantized.tolist() == pytest.approx([-1.25, -1.25, 0.0, 0.0, 0.6, 0.6])
    upstream = tensor(1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
    dw, dp, dn = gradient(quantized * upstream, weight, ttq.positive, ttq.negative)
    assert dw.tolist() == pytest.approx([1.25, 2.5, 4.0, 8.0, 9.6, 19.2])
    assert dp.item() == pytest.approx((16 + 32) / math.sqrt(6))
    assert dn.item() == pytest.approx(-(1 + 2) / math.sqrt(6))


def test_ttq_crests_lie_on_its_thresholds() -> None:
    weight = random_weight(500)
    ttq = TTQ(weight, total_bits=2)
    threshold = 0.05 * weight.abs().max()
    around = torch.cat([weight[weight.abs().argmax()][None], tensor(-1.0, 1.0) * threshold])
    u = ttq.unit(around)
    assert u[1:].tolist() == pytest.approx([-0.5, 0.5], abs=1e-5)


def test_ttq_level_below_the_threshold() -> None:
    weight = random_weight(500)
    ttq = TTQ(weight, total_bits=2)
    with torch.no_grad():
        ttq.positive.fill_(-1.0)
    u = ttq.unit(weight)
    assert bool(torch.isfinite(u).all())
    assert bool((u[weight > 0.05 * weight.abs().max()] == 1.0).all())
    assert ttq(weight, torch.tensor(1.0)).max().item() == pytest.approx(0.0, abs=1e-9)


# ---------------------------------------------------------------------- LQ-Nets


def brute_nearest(values: Tensor, levels: Tensor) -> Tensor:
    return levels[(values[:, None] - levels).abs().argmin(dim=1)]


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_lqnets_rounds_each_filter_to_the_nearest_of_its_levels(bits: int) -> None:
    weight = random_weight(3, 4, 3, 3)
    method = LQNets(weight, total_bits=bits).eval()
    quantized = method(weight, torch.tensor(bits - 1.0))
    for row, filter_weights, filter_quantized in zip(method.basis, weight, quantized, strict=True):
        levels = torch.tensor([sum(s * v for s, v in zip(code, row.tolist(), strict=True))
                               for code in itertools.product((-1.0, 1.0), repeat=bits)])  # fmt: skip
        assert torch.allclose(filter_quantized.flatten(), brute_nearest(filter_weights.flatten(), levels), atol=1e-5)


def test_lqnets_one_bit_is_the_mean_size() -> None:
    weight = random_weight(3, 50)
    quantized = LQNets(weight, total_bits=1).eval().binarize(weight)
    assert torch.allclose(quantized.abs(), weight.abs().mean(dim=1, keepdim=True).expand_as(weight), rtol=1e-3)


def test_fit_basis_is_least_squares() -> None:
    values = random_weight(2, 60)
    codes = binary_codes(3, signed=True, like=values)
    basis = torch.tensor([[0.2, 0.4, 0.8]]).expand(2, 3).clone()
    levels, order = sorted_levels(basis, codes)
    index = assign(values, levels)
    fitted = fit_basis(values, index, codes[order], basis)
    signs = codes[order.gather(1, index)]
    for row in range(2):
        expected = torch.linalg.lstsq(signs[row], values[row]).solution
        assert torch.allclose(fitted[row], expected, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("count", [1, 3, 16, 17, 40])
def test_thresholds_below_is_searchsorted(count: int) -> None:
    thresholds = random_weight(3, count).sort(dim=1).values
    values = torch.cat([random_weight(3, 50, seed=1), thresholds], dim=1)
    assert torch.equal(thresholds_below(values, thresholds), torch.searchsorted(thresholds, values))


def test_fit_basis_where_the_codes_do_not_determine_it() -> None:
    basis = torch.tensor([[1.0, 1.0]])
    signs = torch.ones(1, 1, 2)  # the bits always agree: only the sum of the basis is determined
    fitted = fit_basis(torch.full((1, 5), 3.0), torch.zeros(1, 5, dtype=torch.long), signs, basis)
    assert fitted.tolist() == [pytest.approx([1.5, 1.5], rel=1e-3)]


def test_a_round_never_makes_the_fit_worse() -> None:
    values = random_weight(4, 200).square()
    codes = binary_codes(3, signed=True, like=values)
    basis = torch.tensor([[0.1, 0.4, 1.3]]).expand(4, 3).clone()

    def error() -> float:
        levels, _ = sorted_levels(basis, codes)
        return float((values - levels.gather(1, assign(values, levels))).square().sum())

    errors = [error()]
    for _ in range(8):
        basis = moved_basis(values, basis, codes, memory=0.0)
        errors.append(error())
    assert all(after <= before * (1 + 1e-4) for before, after in itertools.pairwise(errors))
    assert errors[-1] < 0.7 * errors[0]


def test_lqnets_basis_moves_in_training_alone() -> None:
    weight = random_weight(3, 40)
    method = LQNets(weight, total_bits=2)
    start = method.basis.clone()
    shifted = 2 * weight
    codes = binary_codes(2, signed=True, like=weight)
    method.eval()(shifted, torch.tensor(1.0))
    with torch.no_grad():
        method.train()(shifted, torch.tensor(1.0))
    assert torch.equal(method.basis, start)
    before = method(shifted, torch.tensor(1.0))
    expected = 0.9 * start + 0.1 * moved_basis(shifted, start, codes, memory=0.0)
    torch.testing.assert_close(method.basis, expected)
    levels, _ = sorted_levels(start, codes)  # what came out was rounded with the basis before the move
    assert torch.equal(before, levels.gather(1, assign(shifted, levels)))


def test_lqnets_gradients() -> None:
    weight = random_weight(3, 40).requires_grad_()
    (dw,) = gradient(LQNets(weight, total_bits=2)(weight, torch.tensor(1.0)), weight)
    assert bool((dw == 1).all())
    lq = LQNetsActivation(2)
    with torch.no_grad():
        lq(torch.rand(100)), lq.basis.copy_(torch.tensor([[0.5, 1.0]]))
    x = tensor(-0.3, 0.2, 0.9, 1.4, 1.6).requires_grad_()
    y = lq.eval()(x)
    assert y.tolist() == [0.0, 0.0, 1.0, 1.5, 1.5]
    assert gradient(y, x)[0].tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("shape", [(6,), (2, 1, 3, 3), (1, 1)])
def test_lqnets_with_fewer_weights_than_levels(shape: tuple[int, ...]) -> None:
    weight = random_weight(*shape)
    method = LQNets(weight, total_bits=4)
    for _ in range(3):
        assert bool(torch.isfinite(method(weight, torch.tensor(3.0))).all())
    assert bool(torch.isfinite(method.basis).all())


# ---------------------------------------------------------------------- the wave on them


def levels_of(name: str, weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """(levels, their coordinates) of a quantiser: what it makes of a dense sweep through the first filter's range."""
    method = make_quantizer(name, weight, total_bits=bits).eval()
    reach = 3 * weight.abs().max()
    sweep = torch.linspace(-1, 1, 40_001, dtype=weight.dtype) * reach
    if name == "ttq":  # its threshold hangs on the largest weight
        sweep = sweep[sweep.abs() <= weight.abs().max()]
    rows = sweep.expand(weight.shape[0], -1)
    magnitude = torch.tensor(bits - 1.0, dtype=weight.dtype)
    with torch.no_grad():
        out = method.binarize(rows) if bits == 1 else method(rows, magnitude)
        levels = out[0].unique()
        same = levels.expand(weight.shape[0], -1)
        places = (method.binary_coordinate(same) if bits == 1 else method.coordinate(same, magnitude))[0]
        if name == "ttq":  # at the threshold that the sweep had
            padded = torch.cat([levels, weight.abs().max()[None]])
            places = method.coordinate(padded[None], magnitude)[0, :-1]
    return levels, places


@pytest.mark.parametrize(
    ("name", "bits"),
    [(name, bits) for name in LEARNED_LEVELS for bits in (1, 2, 3, 4, 6) if bits in quantizer_class(name).bit_counts],
)
def test_zeros_of_the_wave_are_the_levels(name: str, bits: int) -> None:
    weight = random_weight(3, 300).double()
    grid = make_quantizer(name, weight, total_bits=bits).grid(bits)
    _, places = levels_of(name, weight, bits)
    expected = grid_levels(bits, grid)
    if name == "lsq":  # one level more, below -1
        expected = torch.cat([expected[:1] - 1 / (2 ** (bits - 1) - 1), expected])
    torch.testing.assert_close(places, expected, rtol=0, atol=1e-5)
    beta = torch.tensor(bits - 1.0, dtype=torch.float64)
    assert wave(places, beta, grid=grid, order=0).max() < 1e-8
    between = (places[1:] + places[:-1]) / 2
    assert wave(between, beta, grid=grid, order=0).min() > 1 - 1e-6


@pytest.mark.parametrize("name", LEARNED_LEVELS)
def test_the_wave_pulls_every_weight_to_the_level_that_it_is_rounded_to(name: str) -> None:
    """The coordinate's nearest zero is the quantiser's own choice, weight by weight."""
    weight = random_weight(4, 200)
    method = make_quantizer(name, weight, total_bits=2).eval()
    one = torch.tensor(1.0)
    with torch.no_grad():
        u = method.coordinate(weight, one)
        inside = u.abs() < 1
        nearest = round_to_grid(u, one, grid=method.grid(2))
        chosen = method(weight, one)
        if name == "ttq":
            target = torch.sign(chosen)
        elif name == "lqnets":
            target = method.unit(chosen)
        else:
            target = chosen / method.gain(weight)
    torch.testing.assert_close(nearest[inside], target[inside], rtol=0, atol=1e-5)


@given(st.integers(0, 10_000))
def test_piecewise_coordinate_is_interpolation(seed: int) -> None:
    knots = random_weight(2, 7, seed=seed).double().sort(dim=1).values
    heights = torch.linspace(-1, 1, 7, dtype=torch.float64)
    values = 2 * random_weight(2, 50, seed=seed + 1).double().requires_grad_()
    u = piecewise_coordinate(values, knots, heights)
    for row in range(2):
        expected = _interpolate(values[row].detach(), knots[row], heights)
        torch.testing.assert_close(u[row].detach(), expected)
    (slope,) = torch.autograd.grad(u.sum(), values)
    ratio = 2.0 / (knots[:, -1:] - knots[:, :1])
    outside = (values < knots[:, :1]) | (values > knots[:, -1:])
    assert bool((slope[outside] == 0).all())
    assert bool((slope >= 0).all())
    assert bool((slope <= 10 * ratio * (1 + 1e-9)).all())


def _interpolate(values: Tensor, knots: Tensor, heights: Tensor) -> Tensor:
    import numpy as np

    return torch.from_numpy(np.interp(values.numpy(), knots.numpy(), heights.numpy()))


# ---------------------------------------------------------------------- in a model


def small_net() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))


def train(model: nn.Module, handle: object, steps: int, rate: float = 0.05) -> list[float]:
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    x = random_weight(64, 12, seed=7)
    y = x[:, :4].argmax(dim=1)
    losses = []
    for _ in range(steps):
        task = nn.functional.cross_entropy(model(x), y)
        losses.append(task.item())
        loss = task + handle.penalty()  # type: ignore[attr-defined]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        handle.step()  # type: ignore[attr-defined]
    return losses


@pytest.mark.parametrize("name", ["pact", *LEARNED_LEVELS])
def test_train_save_resume_finalize(name: str) -> None:
    model = small_net()
    handle = attach(model, quantizer=name, bits=2, activation_bits=3)
    losses = train(model, handle, 150 if name == "ttq" else 60)  # its small levels scale the weights' gradient
    assert min(losses[-5:]) < 0.8 * losses[0]
    assert handle.policy().provenance["activation_quantizer"] == quantizer_class(name).activation

    twin = small_net()
    twin_handle = attach(twin, quantizer=name, bits=2, activation_bits=3)
    twin.load_state_dict(model.state_dict())
    x = random_weight(20, 12, seed=11)
    model.eval(), twin.eval()
    assert torch.equal(model(x), twin(x))

    expected = model(x)
    handle.finalize()
    assert set(model.state_dict()) == set(small_net().state_dict())
    assert torch.equal(model(x), expected)
    assert torch.equal(copy.deepcopy(model)(x), expected)
    twin_handle.remove()


def test_what_is_learned_reaches_the_users_optimizer() -> None:
    model = small_net()
    attach(model, quantizer="lsq", bits=3, activation_bits=4)
    names = [name for name, _ in model.named_parameters()]
    assert sum(name.endswith("quantizer.step") for name in names) == 3
    assert sum(name.endswith("activation.step") for name in names) == 2  # the first layer's input stays as it is


@pytest.mark.parametrize("name", ["pact", "lsq", "dsq"])
def test_learned_bits(name: str) -> None:
    model = small_net()
    handle = attach(model, quantizer=name, bits="learn", total_steps=60, target={"mean_bits": 4.0})
    train(model, handle, 60)
    assert not handle.learning
    assert handle.mean_bits() <= 4.0
    handle.finalize()


@pytest.mark.parametrize("name", ["ttq", "lqnets"])
def test_methods_whose_bits_cannot_be_learned_say_so(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name!r} cannot learn bits.*layer '0'"):
        attach(small_net(), quantizer=name, bits="learn", total_steps=10)


def test_ttq_has_two_bits_only() -> None:
    with pytest.raises(ValueError, match=r"'ttq' has 2 total bits only, not 4 \(layer '0'\)"):
        attach(small_net(), quantizer="ttq", bits=4)


@pytest.mark.parametrize("name", LEARNED_LEVELS)
@pytest.mark.parametrize("scale", ["none", "max"])
def test_a_scale_that_the_method_does_not_have(name: str, scale: str) -> None:
    with pytest.raises(ValueError, match=f"{name!r} has its own levels and takes scale 'learned', not {scale!r}"):
        attach(small_net(), quantizer=name, bits=2, scale=scale)  # type: ignore[arg-type]


@pytest.mark.parametrize("preset", ["paper", "released", "recommended"])
def test_presets_take_the_methods_own_scale(preset: str) -> None:
    handle = attach(small_net(), quantizer="lsq", bits=2, preset=preset)
    assert handle.policy().provenance["scale"] == "learned"


def test_activation_quantizer_needs_bits_and_a_known_name() -> None:
    with pytest.raises(ValueError, match="needs activation_bits"):
        attach(small_net(), bits=2, activation_quantizer="pact")
    with pytest.raises(ValueError, match="did you mean 'pact'"):
        attach(small_net(), bits=2, activation_quantizer="pakt", activation_bits=4)


def test_levels_that_are_not_equally_far_apart_have_no_scale() -> None:
    for name in ("ttq", "lqnets"):
        assert dict(attach(small_net(), quantizer=name, bits=2).policy().scales) == {}
    model = small_net()
    scales = attach(model, quantizer="lsq", bits=3).policy().scales
    assert scales["0"] == pytest.approx(model[0].parametrizations.weight[0].quantizer.step.item())  # type: ignore[union-attr, index]


@pytest.mark.parametrize("name", ["pact", "lsq", "dsq", "lqnets"])
def test_a_finalised_input_quantiser_follows_its_input(name: str) -> None:
    quantizer = make_activation_quantizer(name, 3)
    x = torch.rand(4, 5)
    quantizer(x)
    fixed = FixedActivation(3, signed=False, quantizer=quantizer)
    (y,) = fixed(nn.Identity(), (x,))
    assert torch.equal(y, quantizer.eval()(x))
    assert not y.requires_grad
    assert fixed(nn.Identity(), (x.to("meta"),))[0].is_meta  # a dry run for shapes ...
    assert torch.equal(fixed(nn.Identity(), (x,))[0], y)  # ... leaves what was learned alone


@pytest.mark.parametrize("name", LEARNED_LEVELS)
def test_an_all_zero_layer(name: str) -> None:
    weight = torch.zeros(3, 4, requires_grad=True)
    method = make_quantizer(name, weight, total_bits=2)
    quantized = method(weight, torch.tensor(1.0))
    penalty = wave(method.coordinate(weight, torch.tensor(1.0)), torch.tensor(1.0), grid=method.grid(2)).mean()
    (slope,) = gradient(quantized.sum() + penalty, weight)
    assert bool(torch.isfinite(quantized).all())
    assert bool(torch.isfinite(slope).all())


@pytest.mark.parametrize("name", ["pact", *LEARNED_LEVELS])
def test_mixed_precision(name: str) -> None:
    model = small_net()
    attach(model, quantizer=name, bits=2, activation_bits=2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(random_weight(8, 12)).float().square().mean()
    loss.backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)


def test_grids() -> None:
    assert {name: quantizer_class(name)(random_weight(3, 8), total_bits=2).grid(2) for name in LEARNED_LEVELS} == {
        "dsq": Grid.MID_RISE,
        "lqnets": Grid.MID_RISE,
        "lsq": Grid.MID_TREAD,
        "ttq": Grid.MID_TREAD,
    }

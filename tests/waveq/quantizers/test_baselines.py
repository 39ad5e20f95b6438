"""PACT, LSQ, DSQ and TTQ against values and gradients worked out by hand."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.quantizer_tools import gradient, random_weight, tensor
from waveq.functional import wave
from waveq.quantizers import (
    activation_quantizer_names,
    make_activation_quantizer,
    make_quantizer,
    quantize_activation,
    quantize_weight,
    quantizer_class,
)
from waveq.quantizers.dsq import DSQ, DSQActivation, soft_round
from waveq.quantizers.lsq import LSQ, LSQActivation
from waveq.quantizers.pact import PACTActivation
from waveq.quantizers.ttq import TTQ

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
        pact, dorefa = (quantize_weight(weight, bits, quantizer=name) for name in ("pact", "dorefa"))
        assert torch.equal(pact, dorefa)
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


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_lsq_with_fewer_bits_shortens_its_range_and_never_lengthens_it(bits: int) -> None:
    weight = random_weight(100)
    learned, fixed = LSQ(weight), LSQ(weight, total_bits=bits)
    largest = weight.abs().max().item()
    assert learned.span.item() == pytest.approx(largest)
    with torch.no_grad():
        learned.step.mul_(20.0)
    learned.follow_bits(weight, bits, bits)
    assert learned.span.item() == pytest.approx(largest)
    learned.follow_bits(weight, bits + 1, bits)
    start = fixed.step.item() * (2 ** (bits - 1) - 1)
    assert learned.span.item() == pytest.approx(min(start, largest))
    with torch.no_grad():
        learned.step.mul_(0.5)
    short = learned.step.item()
    learned.follow_bits(weight, bits + 1, bits)
    assert learned.step.item() == short


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
    with pytest.raises(ValueError, match="'lsq' has 2 to 9 total bits, not 1; these have: 'dorefa', "):
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
    u = ttq.coordinate(around, torch.ones(()))
    assert u[1:].tolist() == pytest.approx([-0.5, 0.5], abs=1e-5)


def test_ttq_level_below_the_threshold() -> None:
    weight = random_weight(500)
    ttq = TTQ(weight, total_bits=2)
    with torch.no_grad():
        ttq.positive.fill_(-1.0)
    u = ttq.coordinate(weight, torch.ones(()))
    assert bool(torch.isfinite(u).all())
    assert bool((u[weight > 0.05 * weight.abs().max()] == 1.0).all())
    assert ttq(weight, torch.tensor(1.0)).max().item() == pytest.approx(0.0, abs=1e-9)

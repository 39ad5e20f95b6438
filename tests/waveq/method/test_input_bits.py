"""Bits of inputs that are learned: the quantiser under a real-valued beta, and its range when bits change."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from waveq.method.input_bits import InputBits
from waveq.quantizers import activation_quantizer_class, activation_quantizer_names, make_activation_quantizer
from waveq.quantizers.activation import ActivationQuantizer
from waveq.quantizers.ranged import nearest_range

ABLE = [name for name in activation_quantizer_names() if activation_quantizer_class(name).learns_bits]


def inputs(activation: ActivationQuantizer, beta: float) -> InputBits:
    return InputBits(activation, beta=beta, hysteresis=0.0, scale_rule="exact", device=torch.device("cpu"))


def values(*, signed: bool, dtype: torch.dtype = torch.float64) -> Tensor:
    x = torch.randn(257, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return x if signed else x.relu()


def test_which_methods_learn_bits() -> None:
    assert ABLE == ["dorefa", "dsq", "lsq", "pact", "range"]


@pytest.mark.parametrize("signed", [False, True])
def test_the_stretch_is_eq_2_4(signed: bool) -> None:
    state = inputs(make_activation_quantizer("range", 8), beta=2.6)  # 3.6 real bits of 4
    assert state.activation.bits == 4
    c = state.stretch(signed)
    real, whole = (2.6, 3.0) if signed else (3.6, 4.0)
    assert c.item() == pytest.approx((2**whole - 1) / (2**real - 1))
    c.backward()  # type: ignore[no-untyped-call]
    slope = -(2**whole - 1) * math.log(2) * 2**real / (2**real - 1) ** 2
    assert state.beta.grad is not None
    assert state.beta.grad.item() == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("method", ABLE)
def test_all_levels_are_stretched(method: str, signed: bool) -> None:
    activation, x = make_activation_quantizer(method, 3), values(signed=signed)
    activation.fit(x, signed=signed)
    c = torch.tensor(1.4, dtype=torch.float64)
    torch.testing.assert_close(activation(x, signed=signed, stretch=c), c * activation(x / c, signed=signed))
    torch.testing.assert_close(activation(x, signed=signed, stretch=torch.ones(())), activation(x, signed=signed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("method", ["range", "lsq", "pact", "dorefa"])
def test_the_gradient_of_the_stretch_is_lsqs(method: str, signed: bool, dtype: torch.dtype) -> None:
    activation, x = make_activation_quantizer(method, 3), values(signed=signed, dtype=dtype).requires_grad_()
    activation.fit(x.detach(), signed=signed)
    c = torch.tensor(1.3, dtype=dtype, requires_grad=True)
    weights = torch.linspace(-1.0, 1.0, x.numel(), dtype=dtype)
    y = activation(x, signed=signed, stretch=c)
    (weights * y).sum().backward()
    with torch.no_grad():
        high = c * activation(torch.full((1,), 1e6, dtype=dtype), signed=signed)
        low = c * activation(torch.full((1,), -1e6, dtype=dtype), signed=signed)
        inside = (x > low) & (x < high)
        expected = (weights * torch.where(inside, y - x, y) / c).sum()
    assert c.grad is not None
    assert x.grad is not None
    torch.testing.assert_close(c.grad, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(x.grad[inside], weights[inside])


@pytest.mark.parametrize("method", ["range", "lsq"])
def test_one_pass_over_the_inputs_is_the_same_as_three(method: str) -> None:
    activation, x = make_activation_quantizer(method, 4), values(signed=False, dtype=torch.float32)
    activation.fit(x, signed=False)
    c = torch.tensor(1.25)
    torch.testing.assert_close(
        activation.stretched(x, False, c), ActivationQuantizer.stretched(activation, x, False, c), rtol=0, atol=1e-6
    )


# ---------------------------------------------------------------------- ranges


def test_a_range_restarts_with_the_next_training_batch_after_a_change_of_bits() -> None:
    activation = make_activation_quantizer("range", 8)
    state, x = inputs(activation, beta=7.0), values(signed=False, dtype=torch.float32)
    state(x, signed=False)
    at_eight = float(activation.range)  # type: ignore[arg-type]
    state.follow_bits(3, signed=False)
    assert (activation.bits, bool(state.restarts)) == (3, True)
    state.eval()(2 * x, signed=False)
    assert float(activation.range) == at_eight  # type: ignore[arg-type]
    state.train()(torch.zeros_like(x), signed=False)  # says nothing
    assert bool(state.restarts)
    state(2 * x, signed=False)
    assert float(activation.range) == float(nearest_range(2 * x, 3, signed=False)) < 2 * at_eight  # type: ignore[arg-type]
    assert not bool(state.restarts)
    state(9 * x, signed=False)  # once
    assert float(activation.range) == float(nearest_range(2 * x, 3, signed=False))  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["lsq", "pact", "dsq"])
def test_learned_ranges_restart_too(method: str) -> None:
    activation = make_activation_quantizer(method, 8)
    state, x = inputs(activation, beta=7.0), values(signed=False, dtype=torch.float32)
    state(x, signed=False)
    state.follow_bits(2, signed=False)
    state(3 * x, signed=False)
    fresh = make_activation_quantizer(method, 2)
    fresh.fit(3 * x, signed=False)
    torch.testing.assert_close(activation(x), fresh(x))


def test_until_then_the_range_is_kept() -> None:
    activation = make_activation_quantizer("lsq", 8)
    state, x = inputs(activation, beta=7.0), values(signed=False, dtype=torch.float32)
    state(x, signed=False)
    before = activation(torch.full((1,), 1e6))
    state.follow_bits(4, signed=False)
    torch.testing.assert_close(activation(torch.full((1,), 1e6)), before)


def test_frozen_bits_have_no_stretch() -> None:
    activation = make_activation_quantizer("range", 8)
    state, x = inputs(activation, beta=2.6), values(signed=False, dtype=torch.float32)
    state(x, signed=False)
    state.freeze(4, signed=False)
    assert not state.learns
    assert bool(state.restarts)
    assert torch.equal(state(x, signed=False), activation(x))
    assert not bool(state.restarts)
    assert not state.beta.requires_grad
    assert float(state.beta) == pytest.approx(2.6)
    assert int(state.bits()) + 1 == 4


# ---------------------------------------------------------------------- state


def test_beta_stays_a_float32_leaf() -> None:
    state = inputs(make_activation_quantizer("range", 8), beta=5.3)
    state.double()
    assert state.beta.dtype == torch.float32
    assert state.beta.is_leaf
    assert state.beta.requires_grad
    assert state.total_bits.dtype == torch.int64


def test_state_that_somebody_averaged_is_put_right() -> None:
    state = inputs(make_activation_quantizer("range", 8), beta=5.3)
    state.freeze(6, signed=False)
    state.total_bits.fill_(3)  # the mean of 0 and 6
    state.seal.fill_(int(state.seal) // 2)
    with pytest.warns(UserWarning, match=r"averaged whole numbers .* \(3 bits of a layer's inputs\).* \(6 bits\)"):
        state(values(signed=False), signed=False)
    assert (int(state.total_bits), state.bits_now) == (6, 6)

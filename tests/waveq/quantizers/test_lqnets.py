"""LQ-Nets against brute force and least squares."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import waveq
from tests.quantizer_tools import gradient, random_weight, tensor
from waveq.evaluate.weights import WeightBank
from waveq.layers import outputs_of
from waveq.method.chosen import choose_weights
from waveq.quantizers import make_quantizer, quantizer_class, quantizer_names
from waveq.quantizers._binary_codes import assign, binary_codes, fit_basis, moved_basis, sorted_levels
from waveq.quantizers._piecewise import thresholds_below
from waveq.quantizers.lqnets import LQNets, LQNetsActivation

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


# ---------------------------------------------------------------------- where the output channels lie


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("quantizer", [name for name in quantizer_names() if quantizer_class(name).by_output])
def test_levels_by_output_lie_on_the_output_channels_of_transposed_layers(
    quantizer: str, groups: int, dimensions: int
) -> None:
    """A transposed convolution is a plain one run backwards: each group's axes are exchanged, and levels go along."""
    torch.manual_seed(0)
    kinds: Any = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
    layer = kinds[dimensions](4, 6, 3, groups=groups)
    plain = [part.transpose(0, 1) for part in layer.weight.detach().chunk(groups)]  # (outputs, inputs, ...) by group
    made = make_quantizer(quantizer, layer.weight, total_bits=2, outputs=outputs_of(layer))
    bits = torch.tensor(1.0)
    expected = [make_quantizer(quantizer, part, total_bits=2)(part, bits) for part in plain]
    torch.testing.assert_close(made(layer.weight, bits), torch.cat([part.transpose(0, 1) for part in expected]))
    beta = torch.tensor(1.0)
    waves = [make_quantizer(quantizer, part, total_bits=2).coordinate(part, beta) for part in plain]
    torch.testing.assert_close(made.coordinate(layer.weight, beta), torch.cat([part.transpose(0, 1) for part in waves]))


def test_a_filter_of_a_transposed_layer_has_few_levels_attached_and_in_tables() -> None:
    model = nn.Sequential(nn.ConvTranspose2d(8, 3, 5, bias=False))
    rounded = WeightBank(choose_weights(model).weights, quantizer="lqnets", scale="learned").weight("0", 2)
    waveq.attach(model, bits=2, quantizer="lqnets").finalize()
    assert torch.equal(model[0].weight, rounded)  # nothing moved the basis before the first step
    for weight in (model[0].weight.detach(), rounded):
        assert [weight[:, channel].unique().numel() for channel in range(3)] == [4, 4, 4]


@pytest.mark.parametrize("bits", [2, 4])
def test_inputs_that_take_a_sign_get_a_basis_for_it(bits: int) -> None:
    generator = torch.Generator().manual_seed(0)
    signed = torch.rand(64, 8, generator=generator) * 2 - 1
    grown, fresh = LQNetsActivation(bits), LQNetsActivation(bits)
    grown(signed.abs())
    grown.take_sign()
    with torch.no_grad():
        error = [float((each(signed, signed=True) - signed).square().mean()) for each in (grown, fresh)]
    assert error[0] == pytest.approx(error[1], rel=1e-6)
    assert error[0] < 1.3 / 3 / 4**bits  # a uniform grid of as many levels over [-1, 1]


def test_inputs_start_where_ten_rounds_lead() -> None:
    """Lloyd's quantiser of a normal distribution has a mean squared error of 0.117 at four levels (Max 1960)."""
    x = torch.randn(1 << 15, generator=torch.Generator().manual_seed(0))
    lq = LQNetsActivation(2).eval()
    assert float((lq(x, signed=True) - x).square().mean()) == pytest.approx(0.1175, rel=0.05)

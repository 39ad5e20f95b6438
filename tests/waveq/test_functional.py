from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.reference_wave import nearest_level, wave_of_eq_2_5, zeros_by_search
from tests.strategies import betas, grids, total_bits, weights
from waveq.functional import (
    Grid,
    equilibrium_beta,
    frequency,
    grid_levels,
    grid_scale,
    magnitude_bits,
    phase,
    round_to_grid,
    sine_penalty,
    sine_penalty_gradients,
    wave,
)

TIGHT = {"rtol": 1e-12, "atol": 1e-12}
GRID_BITS = [(grid, bits) for grid in Grid for bits in range(1 if grid is Grid.MID_RISE else 2, 10)]


def double(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


# ---------------------------------------------------------------------- the wave


@given(u=st.floats(-1, 1), beta=betas(0.0, 8.0), grid=grids(), order=st.sampled_from([0, 1, 2]))
def test_wave_is_the_printed_formula(u: float, beta: float, grid: Grid, order: int) -> None:
    ours = wave(double(u), double(beta), grid=grid, order=order)
    assert float(ours) == pytest.approx(wave_of_eq_2_5(u, beta, grid.value, order), abs=1e-11)


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("grid", list(Grid))
def test_gradcheck_in_weights_and_beta(grid: Grid, order: int) -> None:
    generator = torch.Generator().manual_seed(order)
    for beta_value in (1.0, 2.3, 3.0, 5.7, 8.0):
        u = (torch.rand(11, generator=generator, dtype=torch.float64) * 2 - 1).requires_grad_()
        beta = double(beta_value).requires_grad_()
        assert torch.autograd.gradcheck(lambda u, b: sine_penalty(u, b, grid=grid, order=order), (u, beta), eps=1e-7)
        assert torch.autograd.gradgradcheck(
            lambda u, b: sine_penalty(u, b, grid=grid, order=order), (u, beta), eps=1e-7, rtol=1e-2
        )


@given(u=weights(largest=1.0), beta=betas(0.0, 8.0), grid=grids(), order=st.sampled_from([0, 1, 2]))
def test_closed_form_gradients_equal_autograd(u: torch.Tensor, beta: float, grid: Grid, order: int) -> None:
    u, at = u.requires_grad_(), double(beta).requires_grad_()
    expected = torch.autograd.grad(sine_penalty(u, at, grid=grid, order=order), (u, at))
    for ours, theirs in zip(
        sine_penalty_gradients(u.detach(), at.detach(), grid=grid, order=order), expected, strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_hand_computed_values_and_gradients() -> None:
    # u = 1/4, beta = 1, mid-tread: n = 1, theta = pi/4. R1 = (1/2)/2; dR/du = pi sin(pi/2)/2;
    # dR/dbeta = ln2 (pi/4 - (1/2)/2)
    value = sine_penalty(torch.tensor([0.25], dtype=torch.float64), double(1.0))
    du, dbeta = sine_penalty_gradients(torch.tensor([0.25], dtype=torch.float64), double(1.0))
    assert float(value) == pytest.approx(0.25)
    assert float(du) == pytest.approx(math.pi / 2)
    assert float(dbeta) == pytest.approx(math.log(2) * (math.pi / 4 - 0.25))
    # u = 1/6, beta = 1, mid-rise: n = 3/2, theta = pi/4 + pi/2. R0 = 1/2; dR0/du = pi (3/2) sin(3 pi/2)
    u = torch.tensor([1 / 6], dtype=torch.float64)
    assert float(sine_penalty(u, double(1.0), grid=Grid.MID_RISE, order=0)) == pytest.approx(0.5)
    du, _ = sine_penalty_gradients(u, double(1.0), grid=Grid.MID_RISE, order=0)
    assert float(du) == pytest.approx(-1.5 * math.pi)


@pytest.mark.parametrize(("grid", "bits"), GRID_BITS)
def test_wave_is_zero_on_levels_and_largest_midway(grid: Grid, bits: int) -> None:
    levels, beta = grid_levels(bits, grid), double(bits - 1.0)
    assert float(wave(levels, beta, grid=grid, order=0).max()) < 1e-20
    midway = (levels[1:] + levels[:-1]) / 2
    torch.testing.assert_close(
        wave(midway, beta, grid=grid, order=1), torch.full_like(midway, 2.0 ** -(bits - 1)), **TIGHT
    )


@given(u=weights(largest=1.0), beta=betas(0.0, 8.0), grid=grids())
def test_r1_pulls_no_weight_harder_than_pi(u: torch.Tensor, beta: float, grid: Grid) -> None:
    u = u.requires_grad_()
    (slope,) = torch.autograd.grad(wave(u, double(beta), grid=grid).sum(), u)
    assert float(slope.abs().max()) <= math.pi + 1e-12


@given(u=weights(largest=1.0), beta=betas(), grid=grids(), order=st.sampled_from([0, 1, 2]))
def test_penalty_is_a_mean_and_even_in_u(u: torch.Tensor, beta: float, grid: Grid, order: int) -> None:
    value = sine_penalty(u, double(beta), grid=grid, order=order)
    torch.testing.assert_close(sine_penalty(-u.flip(0), double(beta), grid=grid, order=order), value, **TIGHT)
    torch.testing.assert_close(sine_penalty(u.repeat(3), double(beta), grid=grid, order=order), value, **TIGHT)


@pytest.mark.parametrize("order", [-1, 3, 0.5, "1", None])
def test_order_out_of_range(order: object) -> None:
    with pytest.raises(ValueError, match=r"order must be 0, 1 or 2 .* not " + repr(order).replace(".", r"\.")):
        wave(torch.zeros(2), torch.tensor(2.0), order=order)  # type: ignore[arg-type]


# ---------------------------------------------------------------------- zeros are levels, levels are zeros


@pytest.mark.parametrize(("grid", "bits"), GRID_BITS)
def test_zeros_found_by_search_are_the_levels(grid: Grid, bits: int) -> None:
    beta = double(bits - 1.0)
    found = zeros_by_search(lambda u: wave(torch.from_numpy(u), beta, grid=grid, order=0).numpy(), 2.0 ** (bits - 1))
    levels = grid_levels(bits, grid).numpy()
    assert len(found) == len(levels) == 2**bits - (grid is Grid.MID_TREAD)
    np.testing.assert_allclose(found, levels, atol=2e-7)


@pytest.mark.slow
@given(beta=betas(0.0, 8.0), grid=grids())
def test_zeros_at_a_real_beta_are_the_stretched_levels(beta: float, grid: Grid) -> None:
    if grid is Grid.MID_TREAD and beta < 0.05:
        return  # hardly a quarter of a period fits: the wave is flat around its one zero
    at, bits = double(beta), torch.ceil(double(beta))
    found = zeros_by_search(lambda u: wave(torch.from_numpy(u), at, grid=grid, order=0).numpy(), 2.0**beta)
    stretched = float(grid_scale(at, bits, grid=grid)) * _all_levels(int(bits), grid)
    inside = stretched[np.abs(stretched) <= 1 + 1e-9]
    edge = np.abs(np.abs(stretched) - 1) < 1e-6
    if edge.any() and beta != math.ceil(beta):
        return  # a level within rounding of the end of the range: in or out, both are right
    np.testing.assert_allclose(found, inside, atol=1e-5)


def _all_levels(magnitude_bits: int, grid: Grid) -> np.ndarray:
    """Built here from DESIGN's table, apart from ``grid_levels``, which has no mid-tread grid of one bit."""
    if grid is Grid.MID_TREAD:
        k = 2**magnitude_bits - 1
        return np.arange(-k, k + 1) / max(k, 1)
    count = 2 ** (magnitude_bits + 1)
    return (2 * np.arange(count) + 1 - count) / (count - 1)


@pytest.mark.parametrize(("grid", "bits"), GRID_BITS)
def test_grid_levels_are_the_table(grid: Grid, bits: int) -> None:
    np.testing.assert_allclose(grid_levels(bits, grid).numpy(), _all_levels(bits - 1, grid), rtol=1e-15)


def test_binary_and_ternary() -> None:
    assert grid_levels(1, Grid.MID_RISE).tolist() == [-1, 1]
    assert grid_levels(2, Grid.MID_TREAD).tolist() == [-1, 0, 1]
    assert grid_levels(2, Grid.MID_RISE).tolist() == pytest.approx([-1, -1 / 3, 1 / 3, 1])


@pytest.mark.parametrize(
    ("grid", "bits"), [(Grid.MID_TREAD, 1), (Grid.MID_RISE, 0), (Grid.MID_RISE, 10), (Grid.MID_TREAD, 10)]
)
def test_grid_levels_out_of_range(grid: Grid, bits: int) -> None:
    with pytest.raises(ValueError, match=rf"total_bits on the {grid} grid must be \d to 9, not {bits}"):
        grid_levels(bits, grid)


def test_authors_formula_on_dorefas_own_bits_would_put_minima_on_boundaries() -> None:
    # why the wave is derived from the grid: sin^2(pi u (2^B - 1)) at B-bit DoReFa has twice as many zeros as levels
    levels = grid_levels(3, Grid.MID_RISE).numpy()
    found = zeros_by_search(lambda u: np.sin(np.pi * u * 7) ** 2, 8.0)
    boundaries = (levels[1:] + levels[:-1]) / 2
    np.testing.assert_allclose(found, np.sort(np.concatenate([levels, boundaries])), atol=1e-7)


# ---------------------------------------------------------------------- rounding


@given(u=weights(largest=1.5), bits=total_bits(2), grid=grids())
def test_rounding_goes_to_the_nearest_level(u: torch.Tensor, bits: int, grid: Grid) -> None:
    rounded = round_to_grid(u, double(bits - 1.0), grid=grid).numpy()
    levels = grid_levels(bits, grid).numpy()
    expected = nearest_level(u.numpy(), levels)
    # at a boundary both neighbours are as near: compare distances, and that the value is a level
    np.testing.assert_allclose(np.abs(rounded - u.numpy()), np.abs(expected - u.numpy()), atol=1e-12)
    np.testing.assert_allclose(nearest_level(rounded, levels), rounded, atol=1e-15)


@given(u=weights(largest=1.0), beta=betas(), grid=grids())
def test_rounding_at_a_real_beta_goes_to_zeros_of_the_wave(u: torch.Tensor, beta: float, grid: Grid) -> None:
    at, bits = double(beta), torch.ceil(double(beta))
    rounded = round_to_grid(u, bits, grid=grid, scale=grid_scale(at, bits, grid=grid))
    assert float(wave(rounded, at, grid=grid, order=0).max()) < 1e-20
    assert float((rounded - u).abs().max()) <= 0.5 / float(frequency(at, grid)) + 1e-12


@given(bits=total_bits(2), grid=grids(), c=st.floats(0.25, 4.0))
def test_straight_through_gradient_is_exact(bits: int, grid: Grid, c: float) -> None:
    u = torch.linspace(-2.0, 2.0, 41, dtype=torch.float64) * c
    u = u[(u.abs() - c).abs() > 1e-9].requires_grad_()
    scale = double(c).requires_grad_()
    each = round_to_grid(u, double(bits - 1.0), grid=grid, scale=scale)
    inside = u.detach().abs() < c
    (du,) = torch.autograd.grad(each.sum(), u, retain_graph=True)
    torch.testing.assert_close(du, inside.double(), **TIGHT)
    # LSQ, Esser et al. 2020 eq. 3, in units of the range instead of the step
    lsq = torch.where(inside, (each.detach() - u.detach()) / c, torch.sign(u.detach()))
    for index in range(0, len(u), 5):
        (dc,) = torch.autograd.grad(each[index], scale, retain_graph=True)
        torch.testing.assert_close(dc, lsq[index], rtol=1e-10, atol=1e-10)


@pytest.mark.slow
@given(u=weights(largest=1.25), bits=total_bits(2), grid=grids())
def test_scale_one_is_no_scale_and_scales_multiply(u: torch.Tensor, bits: int, grid: Grid) -> None:
    b = double(bits - 1.0)
    plain = round_to_grid(u, b, grid=grid)
    torch.testing.assert_close(round_to_grid(u, b, grid=grid, scale=double(1.0)), plain, **TIGHT)
    torch.testing.assert_close(round_to_grid(u * 4, b, grid=grid, scale=double(4.0)), plain * 4, **TIGHT)


@given(u=weights(largest=1.0), bits=total_bits(2), grid=grids())
def test_rounding_is_odd_monotone_and_idempotent(u: torch.Tensor, bits: int, grid: Grid) -> None:
    b = double(bits - 1.0)
    ordered = round_to_grid(u.sort().values, b, grid=grid)
    assert bool((ordered.diff() >= 0).all())
    torch.testing.assert_close(round_to_grid(ordered, b, grid=grid), ordered, **TIGHT)
    away = u[(phase(u, b, grid) % 1 - 0.5).abs() > 1e-6]  # odd except on boundaries, where halves go to even
    torch.testing.assert_close(round_to_grid(-away, b, grid=grid), -round_to_grid(away, b, grid=grid), **TIGHT)


# ---------------------------------------------------------------------- bits and stretch


@given(beta=betas(0.01, 8.0), grid=grids())
def test_stretch_is_at_least_one_and_one_at_whole_bits(beta: float, grid: Grid) -> None:
    at = double(beta)
    assert float(grid_scale(at, torch.ceil(at), grid=grid)) >= 1.0
    assert float(grid_scale(torch.ceil(at), torch.ceil(at), grid=grid)) == 1.0


@pytest.mark.parametrize(
    ("rule", "beta", "bits", "expected"),
    [
        ("exact", 3.5, 4.0, 15 / (2**3.5 - 1)),
        ("2^(b/beta)", 3.5, 4.0, 2 ** (4 / 3.5)),
        ("2^(b-beta)", 3.5, 4.0, math.sqrt(2)),
        ("2^(b/beta)", 4.0, 4.0, 2.0),  # the printed form is no stretch of 1 at whole bits: why "exact" is the default
    ],
)
def test_scale_rules(rule: str, beta: float, bits: float, expected: float) -> None:
    assert float(grid_scale(double(beta), double(bits), rule=rule)) == pytest.approx(expected)  # type: ignore[arg-type]


def test_scale_rule_gradients_and_unknown_rule() -> None:
    for rule in ("exact", "2^(b/beta)", "2^(b-beta)"):
        for grid in Grid:
            beta = double(2.7).requires_grad_()
            assert torch.autograd.gradcheck(
                lambda b, g=grid, r=rule: grid_scale(b, double(3.0), grid=g, rule=r), (beta,)
            )
    with pytest.raises(ValueError, match=r"rule must be 'exact', .* not 'linear'"):
        grid_scale(double(2.7), double(3.0), rule="linear")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("beta", "hysteresis", "bits"),
    [(3.0, 0.0, 3), (3.01, 0.0, 4), (3.01, 0.05, 3), (3.06, 0.05, 4), (1.0, 0.05, 1), (7.0, 0.05, 7)],
)
def test_magnitude_bits(beta: float, hysteresis: float, bits: int) -> None:
    assert int(magnitude_bits(torch.tensor(beta), hysteresis)) == bits


def test_magnitude_bits_carry_no_gradient() -> None:
    assert not magnitude_bits(torch.tensor(2.5, requires_grad=True)).requires_grad


# ---------------------------------------------------------------------- equilibrium


@pytest.mark.parametrize(
    ("lambda_beta", "beta"),
    [(0.1, 1.79), (0.05, 2.79), (0.04, 3.12), (0.03, 3.53), (0.02, 4.12), (0.01, 5.12), (0.005, 6.12)],
)
def test_equilibrium_is_the_published_table(lambda_beta: float, beta: float) -> None:
    assert equilibrium_beta(1.0, lambda_beta) == pytest.approx(beta, abs=0.006)


@pytest.mark.parametrize(("order", "lambda_beta"), [(1, 0.05), (1, 0.02), (2, 0.01)])
@pytest.mark.parametrize("grid", list(Grid))
def test_descent_on_spread_weights_ends_at_the_equilibrium(grid: Grid, order: int, lambda_beta: float) -> None:
    # quantiles, not draws: the noise of 4000 draws (0.007) is enough to hold beta above where a price of 0.02 wants it
    u = 0.3 * torch.special.ndtri((torch.arange(4000, dtype=torch.float64) + 0.5) / 4000)
    beta = double(7.0)
    for _ in range(400):
        _, slope = sine_penalty_gradients(u, beta, grid=grid, order=order)
        beta = (beta - 0.02 / lambda_beta * (slope + lambda_beta)).clamp(0.1, 7.0)
    assert float(beta) == pytest.approx(equilibrium_beta(1.0, lambda_beta, order=order), abs=0.25)


def test_equilibrium_without_a_balance() -> None:
    assert equilibrium_beta(1.0, 0.0) == math.inf
    assert equilibrium_beta(0.0, 0.1) == -math.inf
    assert equilibrium_beta(1.0, 0.1, order=0) == -math.inf


def test_inputs_are_never_changed() -> None:
    u, beta = torch.linspace(-1, 1, 9), torch.tensor(2.4)
    u_before, beta_before = u.clone(), beta.clone()
    (
        sine_penalty(u, beta),
        sine_penalty_gradients(u, beta),
        round_to_grid(u, torch.tensor(3.0), grid=Grid.MID_RISE, scale=beta),
    )
    assert torch.equal(u, u_before)
    assert torch.equal(beta, beta_before)

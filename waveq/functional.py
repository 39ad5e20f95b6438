"""The formulas of WaveQ as pure functions of tensors.

Paper: A. Elthakeb et al., "WaveQ: Gradient-Based Deep Quantization of Neural Networks through Sinusoidal Adaptive
Regularization", arXiv 2003.00146v2; equation numbers are that text's. Symbols: u is the tensor that a quantiser rounds,
with |u| <= 1; beta counts magnitude bits as a real number; b = ceil(beta); the sign is one more bit, B = b + 1.

Differences from the paper, each with its reason:

- The wave is derived from the quantiser's grid. Eq. 2.2 fits the mid-tread grid alone; on DoReFa's mid-rise grid half
  of its minima would lie on rounding boundaries.
- The sum over weights is a mean: the printed sum makes the pull on beta grow with the layer's size.
- The scale of eq. 2.4 is c = (2^b - 1)/(2^beta - 1), the only form that puts the levels of the b-bit grid on the
  zeros of the wave. The two printed forms stay available under their names.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Literal

import torch
from torch import Tensor

from waveq._bits import BETA_MAX, BETA_MIN, MAX_TOTAL_BITS
from waveq._boundaries import clip

__all__ = [
    "BETA_MAX",
    "BETA_MIN",
    "MAX_TOTAL_BITS",
    "Grid",
    "ScaleRule",
    "equilibrium_beta",
    "exact_scale",
    "frequency",
    "grid_levels",
    "grid_scale",
    "magnitude_bits",
    "phase",
    "power_of_two",
    "round_to_grid",
    "sine_penalty",
    "sine_penalty_gradients",
    "wave",
]

_LN2 = math.log(2.0)

ScaleRule = Literal["exact", "2^(b/beta)", "2^(b-beta)"]


class Grid(StrEnum):
    """Where the levels of a uniform quantiser lie on [-1, 1].

    ``MID_TREAD``: m / (2^b - 1), zero is a level, 2^B - 1 levels (WRPN, symmetric, ternary).
    ``MID_RISE``: (2m - 1) / (2^B - 1), zero lies midway between two levels, 2^B levels (DoReFa, binary).
    """

    MID_TREAD = "mid-tread"
    MID_RISE = "mid-rise"

    @property
    def shift(self) -> float:
        """The wave's offset in periods: 0, or 1/2 where zero is a crest."""
        return 0.0 if self is Grid.MID_TREAD else 0.5

    @property
    def deficit(self) -> float:
        """What 2^b exceeds the number of steps on [0, 1] by: 1, or 1/2."""
        return 1.0 - self.shift


def power_of_two(exponent: Tensor) -> Tensor:
    """2^exponent, of any shape, where an element does not depend on those beside it.

    On a CPU torch takes another formula for the last elements of a float32 vector than for the others, and for 0-dim
    tensors, which differs by a rounding in one value of sixteen: a layer would be rounded otherwise alone than among
    others, and a resumed run, which begins layer by layer, would not be the same run. Via float64 all come out alike.

    Example:
        >>> exponents = torch.linspace(1.0, 8.0, 100)
        >>> all(power_of_two(each) == among for each, among in zip(exponents, power_of_two(exponents)))
        True
    """
    if exponent.dtype is torch.float32 and exponent.is_cpu:
        return torch.exp2(exponent.double()).float()
    return torch.exp2(exponent)


def frequency(beta: Tensor, grid: Grid) -> Tensor:
    """Periods of the wave per unit of u: 2^beta - 1 (mid-tread) or 2^beta - 1/2 (mid-rise).

    At an integer beta it is the number of quantisation steps on [0, 1].

    Args:
        beta: magnitude bits, any shape, floating.
        grid: the quantiser's grid.

    Example:
        >>> frequency(torch.tensor([1.0, 3.0]), Grid.MID_TREAD)
        tensor([1., 7.])
    """
    return power_of_two(beta) - grid.deficit


def phase(u: Tensor, beta: Tensor, grid: Grid) -> Tensor:
    """Periods of the wave at u: u (2^beta - 1), or u (2^beta - 1/2) + 1/2; an integer exactly on a level."""
    return u * frequency(beta, grid) + grid.shift


def wave(u: Tensor, beta: Tensor, *, grid: Grid = Grid.MID_TREAD, order: int = 1) -> Tensor:
    """R_k element by element, eq. 2.5: sin^2(pi phase(u, beta)) / 2^(k beta).

    Args:
        u: what the quantiser rounds, any shape, |u| <= 1.
        beta: magnitude bits, broadcastable to u.
        grid: the quantiser's grid.
        order: k of R_k: 0, 1 (the paper's choice: its gradient in w is at most pi for every beta) or 2.

    Raises:
        ValueError: order is none of 0, 1, 2.

    Example:
        >>> [round(float(x), 6) for x in wave(torch.tensor([0.0, 0.5, 1.0]), torch.tensor(1.0), order=0)]
        [0.0, 1.0, 0.0]
    """
    if order not in (0, 1, 2):
        raise ValueError(f"order must be 0, 1 or 2 (R0, R1, R2 of eq. 2.5), not {order!r}")
    return torch.sin(math.pi * phase(u, beta, grid)).square() * power_of_two(-order * beta)


def sine_penalty(u: Tensor, beta: Tensor, *, grid: Grid = Grid.MID_TREAD, order: int = 1) -> Tensor:
    """First term of eq. 2.2 for one layer: the mean of the wave over the layer's weights, 0-dim.

    Example:
        >>> levels = grid_levels(3, Grid.MID_RISE)
        >>> bool(sine_penalty(levels, torch.tensor(2.0), grid=Grid.MID_RISE) < 1e-10)
        True
    """
    return wave(u, beta, grid=grid, order=order).mean()


def sine_penalty_gradients(
    u: Tensor, beta: Tensor, *, grid: Grid = Grid.MID_TREAD, order: int = 1
) -> tuple[Tensor, Tensor]:
    """Closed forms of d sine_penalty / du (the shape of u) and d sine_penalty / dbeta (0-dim).

    With n = frequency(beta), N weights and theta = pi phase(u, beta):

        dR/du    = pi n sin(2 theta) / (N 2^(k beta))
        dR/dbeta = ln 2 mean[ pi u 2^beta sin(2 theta) - k sin^2(theta) ] / 2^(k beta)

    For k = 1 the second is ln 2 mean[pi u sin(2 theta) - sin^2(theta) / 2^beta]: bounded for every beta.

    Example:
        >>> du, dbeta = sine_penalty_gradients(torch.tensor([0.25]), torch.tensor(1.0))
        >>> round(float(du), 4), round(float(dbeta), 4)
        (1.5708, 0.3711)
    """
    theta2 = 2.0 * math.pi * phase(u, beta, grid)
    sine, half_chord = torch.sin(theta2), (1.0 - torch.cos(theta2)) / 2.0
    damping = power_of_two(-order * beta)
    du = math.pi * frequency(beta, grid) * damping * sine / u.numel()
    dbeta = _LN2 * damping * (math.pi * u * power_of_two(beta) * sine - order * half_chord).mean()
    return du, dbeta


def magnitude_bits(beta: Tensor, hysteresis: float = 0.0) -> Tensor:
    """b = ceil(beta - hysteresis), eq. 2.4: the whole magnitude bits that a real beta pays for.

    A beta of 3.01 would pay a fourth bit for one percent more levels; a small hysteresis rounds it to 3.

    Example:
        >>> magnitude_bits(torch.tensor([3.0, 3.01, 3.2]), hysteresis=0.05)
        tensor([3., 3., 4.])
    """
    return torch.ceil(beta.detach() - hysteresis)


def grid_scale(beta: Tensor, bits: Tensor, *, grid: Grid = Grid.MID_TREAD, rule: ScaleRule = "exact") -> Tensor:
    """c of eq. 2.4: how far the b-bit grid is stretched so that its levels sit on the zeros of the wave at beta.

    Differentiable in beta; ``bits`` (magnitude bits b) is treated as a constant. The exact form is
    (2^b - 1)/(2^beta - 1) on the mid-tread and (2^b - 1/2)/(2^beta - 1/2) on the mid-rise grid. The paper prints
    2^(b/beta), its supplement 2^b/2^beta; both are kept for comparison and line up with the wave only approximately.

    Example:
        >>> round(float(grid_scale(torch.tensor(3.5), torch.tensor(4.0))), 3)
        1.454
    """
    if rule == "exact":
        return exact_scale(frequency(bits, grid), frequency(beta, grid))
    if rule == "2^(b/beta)":
        return power_of_two(bits / beta)
    if rule == "2^(b-beta)":
        return power_of_two(bits - beta)
    raise ValueError(f"rule must be 'exact', '2^(b/beta)' or '2^(b-beta)', not {rule!r}")


def exact_scale(steps: Tensor, periods: Tensor) -> Tensor:
    """The exact c of ``grid_scale`` from ``frequency`` at the bits and at beta.

    Example:
        >>> exact_scale(torch.tensor(15.0), torch.tensor(7.5))
        tensor(2.)
    """
    return steps / periods


def round_to_grid(u: Tensor, bits: Tensor, *, grid: Grid, scale: Tensor | None = None) -> Tensor:
    """Q(u) = c round(u/c k)/k, clipped to the outermost level, with a straight-through gradient.

    k = 2^b - 1 on the mid-tread grid, 2^b - 1/2 on the mid-rise grid (where the rounding goes to half-integers).
    Gradients: dQ/du = 1 inside the range, its ends included, and 0 outside; dQ/dc = (Q(u) - u)/c inside and Q(u)/c
    outside, as LSQ has it (Esser et al. 2020, eq. 3). Through c(beta) the task loss reaches beta, which the sine alone
    does not give it.

    Args:
        u: values, any shape.
        bits: magnitude bits b, 0-dim (a whole number; no gradient).
        grid: where the levels lie.
        scale: c, 0-dim; None is 1.

    Example:
        >>> round_to_grid(torch.tensor([-0.9, 0.1, 0.6]), torch.tensor(1.0), grid=Grid.MID_TREAD)
        tensor([-1.,  0.,  1.])
        >>> round_to_grid(torch.tensor([-0.9, 0.1, 0.6]), torch.tensor(1.0), grid=Grid.MID_RISE)
        tensor([-1.0000,  0.3333,  0.3333])
    """
    steps = frequency(bits, grid)
    pitch = 1.0 / steps if scale is None else scale / steps
    index = clip(u / pitch, -steps, steps)
    rounded = torch.round(index - grid.shift) + grid.shift
    # summed in this order the index is exactly a whole or half number: weights lie on the grid to the last bit
    return (rounded.detach() + (index - index.detach())) * pitch


def grid_levels(total_bits: int, grid: Grid) -> Tensor:
    """All levels on [-1, 1], ascending, float64: 2^B - 1 of them (mid-tread) or 2^B (mid-rise).

    Args:
        total_bits: B, sign included: 1 to 9, from 2 on the mid-tread grid (with one bit it has the level 0 alone).
        grid: where the levels lie.

    Raises:
        ValueError: total_bits is out of range for the grid.

    Example:
        >>> grid_levels(2, Grid.MID_TREAD)
        tensor([-1.,  0.,  1.], dtype=torch.float64)
    """
    fewest = 2 if grid is Grid.MID_TREAD else 1
    if not fewest <= total_bits <= MAX_TOTAL_BITS:
        raise ValueError(f"total_bits on the {grid} grid must be {fewest} to {MAX_TOTAL_BITS}, not {total_bits!r}")
    steps = 2.0 ** (total_bits - 1) - grid.deficit
    count = round(2 * steps) + 1
    return (torch.arange(count, dtype=torch.float64) - steps) / steps


def equilibrium_beta(lambda_w: float, lambda_beta: float, *, order: int = 1) -> float:
    """Where beta settles when the sine alone moves it and the weights are spread out.

    Spread weights average sin(2 theta) away and leave dR_k/dbeta = -(k ln2 / 2) / 2^(k beta), so that
    beta = log2(k ln2 lambda_w / (2 lambda_beta)) / k; for R1 log2(0.347 lambda_w / lambda_beta).

    Returns:
        The beta, not clamped; ``inf`` without a bitwidth strength, ``-inf`` for R0, which has no resting point.

    Example:
        >>> round(equilibrium_beta(1.0, 0.05), 2), round(equilibrium_beta(1.0, 0.01), 2)
        (2.79, 5.12)
    """
    if lambda_beta <= 0.0:
        return math.inf
    if order == 0 or lambda_w <= 0.0:
        return -math.inf
    return math.log2(order * _LN2 / 2.0 * lambda_w / lambda_beta) / order

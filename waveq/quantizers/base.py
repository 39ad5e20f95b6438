"""What every weight quantiser says of itself, and the rounding that all uniform ones share."""

from __future__ import annotations

import functools
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from waveq._boundaries import clip
from waveq._kernels.recipe import TINY, Coordinate, Number, Rounding
from waveq.functional import MAX_TOTAL_BITS, Grid, frequency, round_to_grid

__all__ = ["TINY", "ScaleMode", "WeightQuantizer", "check_scale_mode", "damped", "kept_positive", "straight_through"]

ScaleMode = Literal["none", "max", "learned"]
_FORMULAS = ("unit", "coordinate", "gain", "forward", "grid")


class WeightQuantizer(nn.Module):
    """One layer's quantiser: w_q = gain(w) * Q(unit(w)), with Q the rounding to the grid on [-1, 1].

    A method says which tensor is rounded (``unit``, the u of the wave), on which grid (``grid``) and by what the levels
    are multiplied (``gain``). A method that does not fit this form overrides ``forward``; its ``coordinate`` and
    ``grid`` must still put the zeros of the wave on its levels. Where levels are not equally far apart (LQ-Nets, TTQ)
    the coordinate is piecewise linear: neighbouring levels are one period of the wave apart, and the crests between
    them lie where the rounding changes.

    Attributes:
        method: the name in the registry and in policies; by default that of the class, in lower case.
        activation: the activation quantiser that the method was published with.
        scale_modes: the scales that the method can have; the first is taken where nobody asks.
        bit_counts: the total bits that the method is defined for.
        learns_bits: whether its grid stretches with a real beta, so that bits can be learned.
        scale: how the levels are scaled: "none" (as DoReFa and WRPN were published), "max" or "learned".

    Args:
        weight: the layer's weights; they start what is learned and are not kept.
        total_bits: B of this layer; None while bits are learned.
        scale: one of ``scale_modes``; None takes the first.

    Raises:
        ValueError: a scale that the method does not have.
    """

    method: ClassVar[str] = ""
    activation: ClassVar[str] = "dorefa"
    scale_modes: ClassVar[tuple[ScaleMode, ...]] = get_args(ScaleMode)
    bit_counts: ClassVar[range] = range(1, MAX_TOTAL_BITS + 1)
    learns_bits: ClassVar[bool] = True
    scale: ScaleMode

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "method" not in vars(cls):
            cls.method = cls.__name__.lower()

    def __init__(self, weight: Tensor, *, total_bits: int | None = None, scale: ScaleMode | None = None) -> None:
        super().__init__()
        self.scale = self.scale_modes[0] if scale is None else check_scale_mode(scale)
        if self.scale not in self.scale_modes:
            known = " or ".join(map(repr, self.scale_modes))
            raise ValueError(f"quantizer {self.method!r} has its own levels and takes scale {known}, not {scale!r}")

    def grid(self, total_bits: int | None = None) -> Grid:
        """The grid at a number of total bits; None asks for the grid while bits are learned (2 and more)."""
        raise NotImplementedError

    def unit(self, weight: Tensor) -> Tensor:
        """u: what is rounded, |u| <= 1 wherever levels exist; shape of weight, differentiable."""
        raise NotImplementedError

    def coordinate(self, weight: Tensor, beta: Tensor) -> Tensor:
        """The tensor that the wave acts on at a beta (0-dim): ``unit``, unless its range depends on beta."""
        return self.unit(weight)

    def binary_coordinate(self, weight: Tensor) -> Tensor:
        """The tensor that the wave acts on where a layer has one bit: clip(w / E|w|, -1, 1), on -1 and 1."""
        return clip(weight / weight.detach().abs().mean().clamp_min(TINY), -1.0, 1.0)

    def gain(self, weight: Tensor) -> Tensor:
        """The factor from grid to weights, 0-dim, positive; only for levels that are equally far apart."""
        raise NotImplementedError

    def pitch(self, weight: Tensor, bits: Tensor, grid_scale: Tensor) -> Tensor | None:
        """Distance between neighbouring levels in units of the weights, 0-dim; None where it is not one number."""
        if not bits.any():
            return 2 * weight.abs().mean()
        return self.gain(weight) * grid_scale / frequency(bits, self.grid())

    def forward(self, weight: Tensor, bits: Tensor, grid_scale: Tensor | None = None) -> Tensor:
        """Quantised weights for b = ``bits`` magnitude bits (0-dim) and the stretch c(beta) of the grid.

        One bit in total (b = 0) is for ``binarize``; here b >= 1.
        """
        return self.gain(weight) * round_to_grid(self.unit(weight), bits, grid=self.grid(), scale=grid_scale)

    @torch.no_grad()
    def restart(self, weight: Tensor, total_bits: int) -> None:
        """Learned bits have just been frozen: start what is learned beside them anew where it depends on their number.

        Args:
            weight: the float weights as they are now.
            total_bits: B, 2 and more.
        """

    @torch.no_grad()
    def follow_bits(self, weight: Tensor, before: int, now: int) -> None:
        """beta has just taken a step: shorten what is learned beside it where it is too long for its bits.

        Args:
            weight: the float weights as they are now.
            before: total bits, 2 and more, before beta's step.
            now: total bits after it.
        """

    def compiles(self) -> bool:
        """Whether the two recipes below stand for this method's formulas; subclasses that change a formula say no."""
        return False

    def coordinate_recipe(self, weight: Tensor, largest: Number, beta: Number) -> Coordinate:
        """What a compiled kernel needs to compute ``coordinate``.

        Args:
            weight: its shape counts, its values are not read.
            largest: max|w|, constant; like the others a 0-dim tensor or a plain number.
            beta: magnitude bits, constant.
        """
        raise NotImplementedError

    def rounding_recipe(self, weight: Tensor, largest: Number, bits: Number, grid_scale: Number) -> Rounding:
        """What a compiled kernel needs to compute ``forward``."""
        raise NotImplementedError

    def computes_as(self, owner: type[WeightQuantizer]) -> bool:
        """Whether no subclass has changed the formulas that ``owner``'s recipes stand for."""
        return _same_formulas(type(self), owner)  # type: ignore[arg-type]  # mypy takes a class for its instances

    def binarize(self, weight: Tensor) -> Tensor:
        """One bit: sign(w) E|w| with 0 -> +E|w|, straight-through (DoReFa eq. 7; WRPN uses the same)."""
        magnitude = weight.detach().abs().mean()
        return straight_through(weight, torch.where(weight.detach() < 0, -magnitude, magnitude))


@functools.cache
def _same_formulas(method: type[WeightQuantizer], owner: type[WeightQuantizer]) -> bool:
    return all(getattr(method, name) is getattr(owner, name) for name in _FORMULAS)


def straight_through(value: Tensor, rounded: Tensor) -> Tensor:
    """``rounded`` going forward, the gradient of ``value`` going back.

    Example:
        >>> x = torch.tensor([0.2, 1.7], requires_grad=True)
        >>> y = straight_through(x, x.detach().round()); y.sum().backward(); y.tolist(), x.grad.tolist()
        ([0.0, 2.0], [1.0, 1.0])
    """
    return rounded.detach() + (value - value.detach())  # in this order the result is exactly ``rounded``


def damped(parameter: Tensor, factor: Tensor | float) -> Tensor:
    """``parameter`` going forward, ``factor`` times the gradient going back (LSQ's gradient scale).

    Example:
        >>> s = torch.tensor(3.0, requires_grad=True)
        >>> y = damped(s, 0.5); y.backward(); y.item(), s.grad.item()
        (3.0, 0.5)
    """
    return straight_through(factor * parameter, parameter)


def kept_positive(parameter: Tensor, least: float = TINY) -> Tensor:
    """max(parameter, least) with the gradient of ``parameter``: a step that overshoots below zero can come back.

    Example:
        >>> s = torch.tensor(-1.0, requires_grad=True)
        >>> y = kept_positive(s, 0.25); y.backward(); y.item(), s.grad.item()
        (0.25, 1.0)
    """
    return straight_through(parameter, parameter.detach().clamp_min(least))


def check_scale_mode(scale: str) -> ScaleMode:
    """The scale mode, or a ValueError that lists the known ones."""
    for mode in get_args(ScaleMode):
        if scale == mode:
            return mode  # type: ignore[no-any-return]
    raise ValueError(f"scale must be one of {', '.join(map(repr, get_args(ScaleMode)))}, not {scale!r}")

"""What every weight quantiser says of itself, and the rounding and the wave that follow from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from waveq._bits import Granularity
from waveq._boundaries import clip
from waveq._kernels.levels import TINY, Given, Levels, plain_given, rounded, wave_coordinate
from waveq.functional import MAX_TOTAL_BITS, Grid
from waveq.layers import Outputs

__all__ = [
    "TINY",
    "Given",
    "Granularity",
    "Levels",
    "ScaleMode",
    "WeightQuantizer",
    "check_channels",
    "check_scale_mode",
    "damped",
    "kept_positive",
    "straight_through",
]

ScaleMode = Literal["none", "max", "learned"]


class WeightQuantizer(nn.Module):
    """One layer's quantiser. It states where its levels lie (``levels``) and on which grid (``grid``).

    The rounding, the wave and the gradients of both follow, in plain torch and in the compiled kernels, which hand
    ``levels`` the numbers of many layers at once: write it elementwise, with 0-dim parameters and buffers. A method
    that does not fit overrides ``forward`` (the rounding) or ``coordinate`` (what the wave acts on) and is computed in
    plain torch there; its coordinate and grid must still put the zeros of the wave on its levels. Where levels are not
    equally far apart (LQ-Nets, TTQ) the coordinate is piecewise linear: neighbouring levels are one period of the wave
    apart, and the crests between them lie where the rounding changes.

    Attributes:
        method: the name in the registry and in policies; by default that of the class, in lower case.
        activation: the activation quantiser that the method was published with.
        scale_modes: the scales that the method can have; the first is taken where nobody asks.
        bit_counts: the total bits that the method is defined for.
        learns_bits: whether its grid stretches with a real beta, so that bits can be learned.
        by_output: whether its levels differ between output channels; it is then made with ``outputs=`` too, a
            ``waveq.layers.Outputs`` that says where these lie in the weight.
        by_channel: whether it can have a scale for each output channel (``granularity="channel"``): it is then made
            with ``channels=``, such an ``Outputs``. What it learns is (C,), one number a channel, and so is all that
            ``levels`` is given of the weights; what starts from the weights asks ``largest_of`` and ``mean_of``.
        bounded: names of learned parameters that must not change by more than a share of themselves in one step of the
            optimizer (``waveq.method.step_bounds``).
        squash: f, the function of the weights that is rounded: "tanh", or "none" for the weights themselves.
        scale: how the levels are scaled: "none" (as DoReFa and WRPN were published), "max" or "learned".

    Args:
        weight: the layer's weights; they start what is learned and are not kept.
        total_bits: B of this layer; None while bits are learned.
        scale: one of ``scale_modes``; None takes the first.
        channels: where the output channels lie that have levels of their own; None for one set of levels.

    Raises:
        ValueError: a scale that the method does not have; channels of a method without a scale for each.

    Example:
        A quantiser whose levels span three standard deviations of the weights that it was made with:

        >>> class ThreeSigma(WeightQuantizer):
        ...     scale_modes = ("none",)
        ...
        ...     def __init__(self, weight, **options):
        ...         super().__init__(weight, **options)
        ...         self.register_buffer("span", 3 * weight.detach().std())
        ...
        ...     def grid(self, total_bits=None):
        ...         return Grid.MID_TREAD
        ...
        ...     def levels(self, given):
        ...         k = given.steps
        ...         return Levels(
        ...             pitch=given.stretch / k, low=-k, high=k, divisor=self.span, gain=self.span, bounds=(-1.0, 1.0)
        ...         )
        >>> weight = torch.tensor([-1.0, -0.2, 0.3, 0.9])
        >>> q = ThreeSigma(weight)
        >>> [round(w, 3) for w in (q(weight, torch.tensor(2.0)) / q.span).tolist()]
        [-0.333, 0.0, 0.0, 0.333]
    """

    method: ClassVar[str] = ""
    activation: ClassVar[str] = "dorefa"
    scale_modes: ClassVar[tuple[ScaleMode, ...]] = get_args(ScaleMode)
    bit_counts: ClassVar[range] = range(1, MAX_TOTAL_BITS + 1)
    learns_bits: ClassVar[bool] = True
    by_output: ClassVar[bool] = False
    by_channel: ClassVar[bool] = False
    bounded: ClassVar[tuple[str, ...]] = ()
    squash: ClassVar[Literal["none", "tanh"]] = "none"
    scale: ScaleMode

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "method" not in vars(cls):
            cls.method = cls.__name__.lower()

    def __init__(
        self,
        weight: Tensor,
        *,
        total_bits: int | None = None,
        scale: ScaleMode | None = None,
        channels: Outputs | None = None,
    ) -> None:
        super().__init__()
        self.scale = self.scale_modes[0] if scale is None else check_scale_mode(scale)
        if self.scale not in self.scale_modes:
            known = " or ".join(map(repr, self.scale_modes))
            raise ValueError(
                f"quantizer {self.method!r} has its own levels and takes scale {known}, not {scale!r} (which 'dorefa', "
                "'wrpn', 'midrise' and 'pact' have)"
            )
        self._channels: Outputs | None = None
        self._numbers = 1
        if channels is not None:
            check_channels(self, self.scale)
            self.divide(weight, channels)

    def divide(self, weight: Tensor, channels: Outputs) -> None:
        """Each output channel gets levels of its own; before anything is learned of them."""
        self._channels, self._numbers = channels, channels.count(weight)

    @property
    def channels(self) -> Outputs | None:
        """Where the output channels lie that have levels of their own; None for one set of levels."""
        return self._channels

    @property
    def numbers(self) -> int:
        """How many sets of levels there are: 1, or C, one for each output channel."""
        return self._numbers

    @property
    def granularity(self) -> Granularity:
        """What has a scale of its own: the layer, or each of its output channels."""
        return "layer" if self._channels is None else "channel"

    def grid(self, total_bits: int | None = None) -> Grid:
        """The grid at a number of total bits; None asks for the grid while bits are learned (2 and more)."""
        raise NotImplementedError

    def levels(self, given: Given) -> Levels:
        """Where the levels lie, from what is given of the layer (or of many layers at once)."""
        raise NotImplementedError(
            f"{type(self).__name__} must say where its levels lie: levels(given), or forward and coordinate"
        )

    def coordinate(self, weight: Tensor, beta: Tensor) -> Tensor:
        """The tensor that the wave acts on at a beta (0-dim); shape of weight, differentiable."""
        beta = beta.detach()
        squashed, given = plain_given(self, self.by_column(weight), torch.ceil(beta), beta, 1.0)
        return self.from_columns(wave_coordinate(squashed, self.levels(given)), weight)

    def binary_coordinate(self, weight: Tensor) -> Tensor:
        """The tensor that the wave acts on where a layer has one bit: clip(w / E|w|, -1, 1), on -1 and 1."""
        return clip(weight / self.spread(self.mean_of(weight.detach()).clamp_min(TINY), weight), -1.0, 1.0)

    def pitch(self, weight: Tensor, bits: Tensor, grid_scale: Tensor) -> Tensor | None:
        """Distance between neighbouring levels in units of the weights, 0-dim; None where it is not one number."""
        if self.channels is not None:
            return None
        if not bits.any():
            return 2 * weight.abs().mean()
        _, given = plain_given(self, weight, bits, bits, grid_scale)
        levels = self.levels(given)
        return torch.as_tensor(levels.gain * levels.pitch)

    def forward(self, weight: Tensor, bits: Tensor, grid_scale: Tensor | None = None) -> Tensor:
        """Quantised weights for b = ``bits`` magnitude bits (0-dim) and the stretch c(beta) of the grid.

        One bit in total (b = 0) is for ``binarize``; here b >= 1.
        """
        columns = self.by_column(weight)
        squashed, given = plain_given(self, columns, bits, bits, 1.0 if grid_scale is None else grid_scale)
        return self.from_columns(rounded(squashed, self.levels(given), given.grid.shift), weight)

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

    def compiles(self, formula: Literal["forward", "coordinate"]) -> bool:
        """Whether the compiled kernels may stand for ``forward`` or ``coordinate``: ``levels`` says it all.

        So it is unless a subclass overrides that formula, or has parameters, buffers or modules that are no numbers
        (one for each channel where these have levels of their own).
        """
        if getattr(type(self), formula) is not getattr(WeightQuantizer, formula):
            return False
        return not self._modules and all(
            value is not None and value.ndim <= (self.channels is not None)
            for kept in (self._parameters, self._buffers)
            for value in kept.values()
        )

    def binarize(self, weight: Tensor) -> Tensor:
        """One bit: sign(w) E|w| with 0 -> +E|w|, straight-through (DoReFa eq. 7; WRPN uses the same)."""
        size = weight.detach()
        mean, least, most = self.mean_of(size), self._of_each(size, torch.amin), self.largest_of(size)
        magnitude = self.spread(mean.clamp(least, most), weight)  # sums of equal numbers miss these by their last bit
        return straight_through(weight, torch.where(weight.detach() < 0, -magnitude, magnitude))

    def by_column(self, weight: Tensor) -> Tensor:
        """The weight as it is; (weights of each channel, C) where channels have levels of their own."""
        return weight if self.channels is None else self.channels.rows(weight).T

    def from_columns(self, columns: Tensor, like: Tensor) -> Tensor:
        """What was made of ``by_column``, in the shape of the weight."""
        return columns if self.channels is None else self.channels.back(columns.T, like)

    def spread(self, number: Tensor, like: Tensor) -> Tensor:
        """A number 0-dim, or one for each channel (C,), in a shape that broadcasts to the weight."""
        return number if self.channels is None else self.channels.spread(number, like)

    def largest_of(self, weight: Tensor) -> Tensor:
        """max|w|, 0-dim; of each channel, (C,)."""
        return self._of_each(weight, torch.amax)

    def mean_of(self, weight: Tensor) -> Tensor:
        """E|w|, 0-dim; of each channel, (C,)."""
        return self._of_each(weight, torch.mean)

    def _of_each(self, weight: Tensor, reduce: Callable[..., Tensor]) -> Tensor:
        sizes = self.by_column(weight).abs()
        return reduce(sizes) if self.channels is None else reduce(sizes, dim=0)


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


def check_channels(method: type[WeightQuantizer] | WeightQuantizer, scale: ScaleMode | None) -> None:
    """Whether a method can have a scale for each output channel.

    Raises:
        ValueError: it cannot, or not with this scale; None stands for the method's own.
    """
    name = method.method
    if not method.by_channel:
        why = ": its levels differ between output channels as it is" if method.by_output else ""
        raise ValueError(
            f"quantizer {name!r} has no granularity 'channel'{why}; leave granularity out, or take 'dorefa', 'wrpn' "
            "or 'lsq'"
        )
    if (scale or (method.scale_modes[0] if isinstance(method, type) else method.scale)) == "none":
        known = " or ".join(repr(mode) for mode in method.scale_modes if mode != "none")
        raise ValueError(
            "granularity 'channel' is a scale for each output channel, and scale 'none' has no scale: take scale "
            f"{known} with quantizer {name!r}"
        )


def check_scale_mode(scale: str) -> ScaleMode:
    """The scale mode, or a ValueError that lists the known ones."""
    for mode in get_args(ScaleMode):
        if scale == mode:
            return mode  # type: ignore[no-any-return]
    raise ValueError(f"scale must be one of {', '.join(map(repr, get_args(ScaleMode)))}, not {scale!r}")

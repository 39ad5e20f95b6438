"""How strong the two terms of eq. 2.2 are at each optimiser step, and in which of the three phases a step lies."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral

__all__ = [
    "Course",
    "Schedule",
    "check_total_steps",
    "constant",
    "exponential",
    "freezing_course",
    "from_callable",
    "rising",
    "three_phase",
]

Profile = Callable[[int], tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """step -> (lambda_w, lambda_beta), with the two steps that part the phases.

    Phase 1 (before ``rise``) is task loss only, phase 2 (before ``fall``) learns the bits, phase 3 keeps them.

    Attributes:
        name: "three-phase", "search", "constant", "exponential", "rising" or "callable".
        profile: the strengths at a step.
        rise: first optimiser step of phase 2.
        fall: first optimiser step of phase 3; None where no bits are learned.
    """

    name: str
    profile: Profile
    rise: int
    fall: int | None

    def __call__(self, step: int) -> tuple[float, float]:
        """(lambda_w, lambda_beta) at an optimiser step counted from 0."""
        return self.profile(step)

    def phase(self, step: int) -> int:
        """1, 2 or 3."""
        if self.fall is None or step >= self.fall:
            return 3
        return 1 if step < self.rise else 2


_BEGINS = 0.1  # of the run: the network first learns to do without its outliers
_ENDS = 17 / 18  # of what is left then; in the rest biases and batch norm follow the last weights
_LOOKS = 100  # a run, at which more is frozen


@dataclass(frozen=True, kw_only=True)
class Course:
    """How weights freeze on the float road: share = ((step - begin)/(end - begin))^exponent.

    Attributes:
        begin: the step after which weights freeze.
        end: the step at which all of them are frozen.
        exponent: above 0; the smaller, the earlier the weights freeze.
        every: steps between two looks.
    """

    begin: int
    end: int
    exponent: float
    every: int

    def share(self, step: int) -> float:
        """The share of a layer's weights that is frozen at a step, 0 to 1."""
        if step >= self.end:
            return 1.0
        return 0.0 if step <= self.begin else ((step - self.begin) / (self.end - self.begin)) ** self.exponent

    def is_due(self, step: int) -> bool:
        """Whether more weights freeze at a step."""
        return step == self.end or (self.begin < step < self.end and (step - self.begin) % self.every == 0)


def freezing_course(total_steps: int, *, exponent: float, fall: int | None = None) -> Course:
    """From a tenth of the run to 95 % of it; where bits are learned from their freezing on.

    Args:
        total_steps: optimiser steps of the whole run.
        exponent: of the course.
        fall: first step of phase 3, in which the bits are fixed; None where none are learned.

    Example:
        >>> course = freezing_course(1000, exponent=0.5)
        >>> course.begin, course.end, [round(course.share(step), 2) for step in (110, 312, 525, 950)]
        (100, 950, [0.11, 0.5, 0.71, 1.0])
    """
    check_total_steps(total_steps)
    begin = min(max(math.ceil(_BEGINS * total_steps), fall or 0), total_steps - 1)
    end = math.ceil(begin + _ENDS * (total_steps - begin))
    return Course(begin=begin, end=end, exponent=exponent, every=math.ceil(total_steps / _LOOKS))


def three_phase(
    total_steps: int,
    *,
    lambda_w: float,
    lambda_beta: float,
    rise: float | None = None,
    fall: float | None = None,
    sharpness: float | None = None,
    wave_rise: float | None = None,
) -> Schedule:
    """Fig. 2e and 9: f1 = (1 + tanh((i - rise)/s))/2, f2 alike at fall; lambda_w = Lw f1, lambda_beta = Lb (f1 - f2).

    The figure has rise 200, fall 500, s 10 (its listing's ``d`` is ``fall``). The defaults put the phases in Table 4's
    proportion 4:5:3, that is rise at 1/3 and fall at 3/4 of the run, with s at 1/60 of it.

    Args:
        total_steps: optimiser steps of the whole run.
        lambda_w: Lw, the strength of the wave on the weights once risen.
        lambda_beta: Lb, the price of one bit during phase 2.
        rise: where phase 2 begins, in steps.
        fall: where phase 3 begins, in steps.
        sharpness: s, in steps.
        wave_rise: where lambda_w rises, in steps; None is ``rise``, as in the figure.

    Raises:
        ValueError: not 0 <= rise < fall <= total_steps, or a sharpness that is not positive.

    Example:
        >>> schedule = three_phase(600, lambda_w=1.0, lambda_beta=0.05, rise=200, fall=500, sharpness=10)
        >>> [tuple(round(x, 3) for x in schedule(i)) for i in (0, 200, 350, 590)]
        [(0.0, 0.0), (0.5, 0.025), (1.0, 0.05), (1.0, 0.0)]
    """
    check_total_steps(total_steps)
    start = total_steps / 3 if rise is None else rise
    end = 3 * total_steps / 4 if fall is None else fall
    width = max(1.0, total_steps / 60) if sharpness is None else sharpness
    wave_start = start if wave_rise is None else wave_rise
    if not 0 <= start < end <= total_steps or width <= 0:
        raise ValueError(
            "a three-phase schedule needs 0 <= rise < fall <= total_steps and sharpness > 0, "
            f"not {rise=}, {fall=}, {total_steps=}, {sharpness=}"
        )

    def profile(step: int) -> tuple[float, float]:
        f1 = 0.5 * (1.0 + math.tanh((step - start) / width))
        f2 = 0.5 * (1.0 + math.tanh((step - end) / width))
        f_wave = 0.5 * (1.0 + math.tanh((step - wave_start) / width))
        return lambda_w * f_wave, lambda_beta * (f1 - f2)

    return Schedule(name="three-phase", profile=profile, rise=math.ceil(start), fall=math.ceil(end))


def constant(total_steps: int | None = None, *, lambda_w: float, lambda_beta: float = 0.0) -> Schedule:
    """The same strengths at every step; when bits are learned they freeze after 3/4 of the run.

    Example:
        >>> constant(lambda_w=1.0)(10_000)
        (1.0, 0.0)
    """
    return Schedule(
        name="constant",
        profile=lambda _step: (lambda_w, lambda_beta),
        rise=0,
        fall=_freeze_step(total_steps, lambda_beta),
    )


def exponential(total_steps: int, *, lambda_w: float, lambda_beta: float = 0.0) -> Schedule:
    """Section 5, for training from scratch: lambda_w = Lw exp(4 (t/T - 1)), so that weights move freely at first.

    Example:
        >>> [round(exponential(100, lambda_w=1.0)(t)[0], 3) for t in (0, 50, 100)]
        [0.018, 0.135, 1.0]
    """
    check_total_steps(total_steps)

    def profile(step: int) -> tuple[float, float]:
        return lambda_w * math.exp(4.0 * (min(step, total_steps) / total_steps - 1.0)), lambda_beta

    return Schedule(name="exponential", profile=profile, rise=0, fall=_freeze_step(total_steps, lambda_beta))


def rising(
    total_steps: int,
    *,
    lambda_w: float,
    first: float,
    lambda_beta: float = 0.0,
    rise: float = 0.0,
    fall: float | None = None,
) -> Schedule:
    """For the float road: lambda_w = first (Lw/first)^(t/T), from ``first`` at step 0 to Lw at the end.

    With learned bits (``fall``) there is no wave before phase 3, where it sets in as strong as it would be by then, and
    the price is the three-phase schedule's: a tanh step up at ``rise`` and down at ``fall``.

    Args:
        total_steps: optimiser steps of the whole run.
        lambda_w: strength at the end of the run.
        first: strength at step 0.
        lambda_beta: price of one bit during phase 2.
        rise: where phase 2 begins, in steps.
        fall: where phase 3 begins, in steps; None where no bits are learned.

    Raises:
        ValueError: not 0 <= first <= lambda_w, or not 0 <= rise < fall <= total_steps.

    Example:
        >>> schedule = rising(100, lambda_w=3.0, first=0.03)
        >>> [round(schedule(step)[0], 3) for step in (0, 50, 100)]
        [0.03, 0.3, 3.0]
    """
    check_total_steps(total_steps)
    if not 0.0 <= first <= lambda_w:
        raise ValueError(f"a rising schedule needs 0 <= first <= lambda_w, not {first=}, {lambda_w=}")
    price = None
    if fall is not None:
        price = three_phase(total_steps, lambda_w=0.0, lambda_beta=lambda_beta, rise=rise, fall=fall)
    start = 0.0 if fall is None else fall

    def profile(step: int) -> tuple[float, float]:
        strength = 0.0
        if step >= start and first > 0.0:
            strength = first * (lambda_w / first) ** min(1.0, step / total_steps)
        return strength, 0.0 if price is None else price(step)[1]

    return Schedule(
        name="rising",
        profile=profile,
        rise=0 if price is None else price.rise,
        fall=None if price is None else price.fall,
    )


def from_callable(profile: Profile, total_steps: int | None, *, learning: bool) -> Schedule:
    """A user's own step -> (lambda_w, lambda_beta); learned bits freeze after 3/4 of ``total_steps``."""
    fall = _freeze_step(check_total_steps(total_steps), 1.0) if learning else None
    return Schedule(name="callable", profile=profile, rise=0, fall=fall)


def _freeze_step(total_steps: int | None, lambda_beta: float) -> int | None:
    return None if total_steps is None or lambda_beta == 0.0 else math.ceil(3 * total_steps / 4)


def check_total_steps(total_steps: object) -> int:
    """The steps as an int, or a ValueError."""
    if isinstance(total_steps, bool) or not isinstance(total_steps, Integral) or total_steps < 1:
        raise ValueError(f"total_steps must be a positive whole number of optimiser steps, not {total_steps!r}")
    return int(total_steps)

"""Whether a beta had come to rest: its drift at the end of phase 2, and how far it goes to and fro by chance.

The second half of phase 2 (with a budget, whose ramp ends later, the last two fifths) is parted into blocks of equal
length, and the travel of beta in each is kept. Where beta has come to rest the blocks differ by chance, in sign too;
where it is still on its way they agree. beta's pace falls to zero at the end of phase 2 (``Preset.settle``), by a
known amount in every block, and with it drift and chance alike: what is compared is travel over pace, by Student's test
of a mean. Of its confidence interval the end that is nearer to rest is what a run is told.

A beta at rest is where the last gradients have left it. How far it strays while it rests says how far another order of
the same images would have left it from there: ``python -m benchmarks settling`` holds the one against the other.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence

from waveq.method.price import RAMP

__all__ = ["BLOCKS", "block_of", "drift_of", "pace_at", "start_of", "stray_of", "student_tail"]

BLOCKS = 8
_FALSE_ALARMS = 0.01  # of the runs in which every beta is at rest


def pace_at(share: float, settle: float) -> float:
    """What beta's rate is multiplied with.

    Args:
        share: how much of phase 2 is over, 0 to 1.
        settle: the last part of phase 2, in which the rate falls to zero.

    Example:
        >>> pace_at(0.4, 0.5), pace_at(0.75, 0.5)
        (1.0, 0.5)
    """
    return 1.0 if share <= 1.0 - settle else (1.0 - share) / settle


def block_of(share: float, phase2_steps: int, *, start: float) -> int | None:
    """The block of a step that begins when so much of phase 2 is over; None before ``start``.

    Example:
        >>> [block_of(step / 32, 32, start=0.5) for step in (0, 15, 16, 17, 18, 31)]
        [None, None, 0, 0, 1, 7]
    """
    count = _count(phase2_steps, start)
    place = int((share - start) / (1.0 - start) * count + 1e-9)
    return min(count - 1, place) if share >= start - 1e-9 else None


def drift_of(travel: Sequence[float], phase2_steps: int, settle: float, *, start: float, layers: int = 1) -> float:
    """The bits, at least, that beta would travel in as many steps again as the later half of the blocks had.

    It is the nearer end of the drift's confidence interval, 0 where that holds 0: of the runs in which nothing drifts,
    one in a hundred has a layer in which it does not.

    Args:
        travel: bits, block by block.
        phase2_steps: the length of phase 2; a short one has fewer blocks.
        settle: see ``pace_at``.
        start: where the blocks begin, a share of phase 2.
        layers: how many are looked at in this run: the level is shared among them.

    Example:
        >>> drift_of([-0.1, -0.12, -0.1, -0.08, -0.06, -0.04, -0.02, -0.006], 1000, 0.5, start=0.5)
        -0.101...
        >>> drift_of([-0.1, 0.12, -0.1, 0.08, -0.06, -0.04, 0.02, -0.01], 1000, 0.5, start=0.5)
        0.0
    """
    count = _count(phase2_steps, start)
    if count < 2:
        return 0.0
    pace = [pace_at(start + (1.0 - start) * (place + 0.5) / count, settle) for place in range(count)]
    speeds = [moved / p for moved, p in zip(travel, pace, strict=False)]
    speed = statistics.fmean(speeds)
    uncertain = _quantile(_FALSE_ALARMS / (2 * layers), count - 1) * statistics.stdev(speeds) / math.sqrt(count)
    if abs(speed) <= uncertain:
        return 0.0
    return math.copysign(abs(speed) - uncertain, speed) * sum(pace[count // 2 :])


def student_tail(t: float, degrees: int) -> float:
    """P(T > t) of Student's distribution, t >= 0; the finite sums of Abramowitz and Stegun, 26.7.3 and 26.7.4.

    Example:
        >>> round(student_tail(2.998, 7), 4), round(student_tail(1.0, 1), 4)
        (0.01, 0.25)
    """
    angle = math.atan(t / math.sqrt(degrees))
    cosine, sine = math.cos(angle), math.sin(angle)
    term = cosine if degrees % 2 else 1.0
    total = 0.0
    for k in range(1 + degrees % 2, degrees, 2):
        total += term
        term *= cosine * cosine * k / (k + 1)
    inside = 2.0 / math.pi * (angle + sine * total) if degrees % 2 else sine * total
    return 0.5 * (1.0 - inside)


def _quantile(tail: float, degrees: int) -> float:
    """The t beyond which so much of Student's distribution lies."""
    low, high = 0.0, 1.0
    while student_tail(high, degrees) > tail:
        high *= 2.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if student_tail(middle, degrees) > tail else (low, middle)
    return high


def stray_of(travel: Sequence[float], phase2_steps: int, *, start: float) -> float:
    """How far beta goes to and fro: the standard deviation, in bits, of where it stood at the blocks' ends.

    Args:
        travel: bits, block by block.
        phase2_steps: the length of phase 2.
        start: where the blocks begin, a share of phase 2.

    Example:
        >>> stray_of([1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, 0.0], 1000, start=0.5)
        0.496...
    """
    points = itertools.accumulate(travel[: _count(phase2_steps, start)], initial=0.0)
    return statistics.pstdev(points)


def start_of(*, budgeted: bool) -> float:
    """Where the blocks begin."""
    return RAMP if budgeted else 0.5


def _count(phase2_steps: int, start: float) -> int:
    return max(1, min(BLOCKS, math.ceil(phase2_steps * (1.0 - start) - 1e-9)))

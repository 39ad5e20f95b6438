"""Whether a beta had come to rest: its drift at the end of phase 2 against the drift's own standard error.

The second half of phase 2 (with a budget, whose ramp ends later, the last two fifths) is parted into blocks of equal
length, and the travel of beta in each is kept. Where beta has come to rest the blocks differ by chance, in sign too;
where it is still on its way they agree. beta's pace falls to zero at the end of phase 2 (``Preset.settle``), by a
known amount in every block, so that the drift is the slope of a line through the origin: travel against pace.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from waveq.method.price import RAMP

__all__ = ["BLOCKS", "block_of", "drift_of", "pace_at", "start_of", "swing_of"]

BLOCKS = 8
_CERTAIN = 4.0  # standard errors
_LEAST = 0.1  # bits; less is rest, however steady


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


def drift_of(travel: Sequence[float], phase2_steps: int, settle: float, *, start: float) -> float:
    """The bits that beta would travel in as many steps again as the later half of the blocks had.

    0 unless that is a tenth of a bit and its drift over all blocks is larger than chance.

    Args:
        travel: bits, block by block.
        phase2_steps: the length of phase 2; a short one has fewer blocks.
        settle: see ``pace_at``.
        start: where the blocks begin, a share of phase 2.

    Example:
        >>> drift_of([-0.1, -0.12, -0.1, -0.08, -0.06, -0.04, -0.02, -0.01], 1000, 0.5, start=0.5)
        -0.13
        >>> drift_of([-0.1, 0.12, -0.1, 0.08, -0.06, -0.04, 0.02, -0.01], 1000, 0.5, start=0.5)
        0.0
    """
    count = _count(phase2_steps, start)
    moved = list(travel[:count])
    pace = [pace_at(start + (1.0 - start) * (place + 0.5) / count, settle) for place in range(count)]
    power = sum(p * p for p in pace)
    slope = sum(d * p for d, p in zip(moved, pace, strict=True)) / power
    left = sum((d - slope * p) ** 2 for d, p in zip(moved, pace, strict=True)) / max(1, count - 1)
    later = round(sum(moved[count // 2 :]), 6)
    return later if abs(later) > _LEAST and abs(slope) > _CERTAIN * math.sqrt(left / power) else 0.0


def swing_of(travel: Sequence[float]) -> float:
    """The distance between the highest and the lowest point of the way, at the blocks' ends.

    Example:
        >>> swing_of([1.0, -1.5, 0.25])
        1.5
    """
    points = list(itertools.accumulate(travel, initial=0.0))
    return max(points) - min(points)


def start_of(*, budgeted: bool) -> float:
    """Where the blocks begin."""
    return RAMP if budgeted else 0.5


def _count(phase2_steps: int, start: float) -> int:
    return max(1, min(BLOCKS, math.ceil(phase2_steps * (1.0 - start) - 1e-9)))

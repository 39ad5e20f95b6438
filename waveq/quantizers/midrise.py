"""DoReFa's grid in the weights themselves: evenly spaced levels on both sides of zero, none of them zero, no tanh."""

from __future__ import annotations

from waveq.functional import Grid
from waveq.quantizers.wrpn import WRPN

__all__ = ["MidRise"]


class MidRise(WRPN):
    """u = clip(w / s, -1, 1) rounded to the mid-rise grid: all 2^B levels, where WRPN's grid has one less.

    At 2 bits that is 4 levels instead of 3. Scales are WRPN's; a weight on a level is its own rounding, so that weights
    can freeze there (``forward="float"``), which DoReFa's tanh does not let.

    Example:
        >>> import torch
        >>> weight = torch.tensor([-1.0, 0.1, 0.6, 0.8])
        >>> MidRise(weight, scale="max")(weight, torch.tensor(1.0)).mul(3).tolist()
        [-3.0, 1.0, 1.0, 3.0]
    """

    method = "midrise"

    def grid(self, total_bits: int | None = None) -> Grid:
        """Mid-rise for every number of bits."""
        return Grid.MID_RISE

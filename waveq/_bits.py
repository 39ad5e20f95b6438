"""How few and how many bits there are; read without torch, by files and the command line as well."""

from __future__ import annotations

__all__ = ["BETA_MAX", "BETA_MIN", "MAX_INPUT_BITS", "MAX_TOTAL_BITS"]

BETA_MIN, BETA_MAX = 1.0, 7.0  # 2 to 8 total bits; beta = 0 is a global minimum of R, where every layer would end
MAX_TOTAL_BITS = 9
MAX_INPUT_BITS = 8

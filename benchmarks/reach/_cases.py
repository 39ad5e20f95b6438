"""All networks that ``attach`` is tried on, in the order of the table."""

from __future__ import annotations

from benchmarks.reach import _own, _timm, _torchvision, _transformers
from benchmarks.reach._case import Case

__all__ = ["CASES"]

CASES: tuple[Case, ...] = (*_torchvision.CASES, *_timm.CASES, *_transformers.CASES, *_own.CASES)

"""Whether somebody writes into a quantised weight, which is computed anew at the next reading."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["Watched"]


class Watched:
    """The weight that was handed out last, and a copy of it; a copy of this starts empty."""

    def __init__(self) -> None:
        self._handed: Tensor | None = None
        self._copy: Tensor | None = None
        self._apart: Tensor | None = None  # 0-dim, on the weight's device: a GPU is not waited for at every reading

    def __deepcopy__(self, _memo: dict[int, Any]) -> Watched:
        return Watched()

    def hand_out(self, value: Tensor) -> None:
        """A weight that somebody reads; one that evaluation keeps is copied once and compared when asked."""
        if value is self._handed or (value.is_cuda and torch.cuda.is_current_stream_capturing()):
            return  # a recorded step is repeated without us, and cannot be looked into
        self._compare()
        self._handed, self._copy = value, value.detach().clone()

    def was_written(self) -> bool:
        """Whether any weight so far is not what it was; NaN counts as itself."""
        self._compare()
        return self._apart is not None and bool(self._apart)

    def _compare(self) -> None:
        if self._handed is not None and self._copy is not None:
            apart = ~((self._handed.detach() == self._copy) | self._copy.isnan()).all()
            self._apart = apart if self._apart is None else self._apart.to(apart.device) | apart

"""Whether somebody writes into a quantised weight, which is computed anew at the next reading."""

from __future__ import annotations

from typing import Any

from torch import Tensor

__all__ = ["Watched"]


class Watched:
    """The weight that was handed out last, and a copy of it; a copy of this starts empty."""

    def __init__(self) -> None:
        self._handed: Tensor | None = None
        self._copy: Tensor | None = None
        self._written = False

    def __deepcopy__(self, _memo: dict[int, Any]) -> Watched:
        return Watched()

    def hand_out(self, value: Tensor) -> None:
        """A weight that somebody reads; one that evaluation keeps is copied once and compared when asked."""
        if value is self._handed:
            return
        self.was_written()
        self._handed, self._copy = value, value.detach().clone()

    def was_written(self) -> bool:
        """Whether any weight so far is not what it was; NaN counts as itself."""
        if self._handed is not None and self._copy is not None and not self._written:
            same = (self._handed.detach() == self._copy) | self._copy.isnan()
            self._written = not bool(same.all())
        return self._written

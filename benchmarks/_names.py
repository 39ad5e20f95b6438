"""The nearest name to one that a person typed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["unknown"]


def unknown(name: str, known: Iterable[str]) -> str:
    """The tail of a message about an unknown name: the nearest one, and all that there are."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return (f"; did you mean {near[0]!r}?" if near else "") + f" (known: {', '.join(names)})"

"""Looking things up by the name that a person typed."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TypeVar

__all__ = ["by_name", "plain"]

Thing = TypeVar("Thing")


def plain(name: str) -> str:
    """A name without case, hyphens and underscores.

    Example:
        >>> plain("VGG11_BN"), plain("Fashion-MNIST")
        ('vgg11bn', 'fashionmnist')
    """
    return str(name).lower().replace("-", "").replace("_", "")


def by_name(argument: str, name: str, known: Mapping[str, Thing], aliases: Mapping[str, str] | None = None) -> Thing:
    """The thing of that name; upper case, hyphens and underscores do not matter.

    Args:
        argument: what the name was given for, for the error.
        name: what was typed.
        known: things by their proper names.
        aliases: other plain names to proper names.

    Raises:
        ValueError: nothing has that name; the message gives the nearest one.

    Example:
        >>> by_name("model", "Le-Net", {"lenet": 1})
        1
        >>> by_name("model", "lent", {"lenet": 1})
        Traceback (most recent call last):
        ValueError: model: nothing is called 'lent'; did you mean 'lenet'? (known: lenet)
    """
    proper = {plain(key): key for key in known} | dict(aliases or {})
    key = plain(name)
    if key in proper:
        return known[proper[key]]
    near = difflib.get_close_matches(key, proper, n=1, cutoff=0.5)
    hint = f"; did you mean {proper[near[0]]!r}?" if near else ""
    raise ValueError(f"{argument}: nothing is called {name!r}{hint} (known: {', '.join(known)})")

"""What a person typed: looked up by name, or refused with the nearest name and what was expected."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

__all__ = ["by_name", "check_choice", "check_positive", "closest", "nearest", "plain", "suggestion"]

Thing = TypeVar("Thing")


def closest(name: object, known: Iterable[str]) -> str | None:
    """The known name that is most like ``name``, or None where none is.

    Example:
        >>> closest("cnov1", ("conv1", "fc")), closest("head", ("conv1", "fc"))
        ('conv1', None)
    """
    near = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return near[0] if near else None


def suggestion(name: object, known: Iterable[str]) -> str:
    """The tail of a message about an unknown name: the nearest known one, or nothing.

    Example:
        >>> suggestion("cnov1", ("conv1", "fc")), suggestion("head", ("conv1", "fc"))
        ("; did you mean 'conv1'?", '')
    """
    near = closest(name, known)
    return "" if near is None else f"; did you mean {near!r}?"


def nearest(name: object, known: Iterable[str]) -> str:
    """The tail of a message about an unknown name: the nearest known one, or all of them.

    Example:
        >>> nearest("cnov1", ("conv1", "fc")), nearest("head", ("conv1", "fc"))
        ("; did you mean 'conv1'?", ' (known: conv1, fc)')
    """
    known = list(known)
    return suggestion(name, known) or f" (known: {', '.join(known)})"


def check_choice(argument: str, value: object, choices: Sequence[str]) -> None:
    """Refuse a value that is none of a few words.

    Raises:
        ValueError: the message gives all of them, and the nearest.

    Example:
        >>> check_choice("part", "tset", ("validation", "test"))
        Traceback (most recent call last):
        ValueError: part must be one of 'validation', 'test', not 'tset'; did you mean 'test'?
    """
    if value not in choices:
        listed = ", ".join(map(repr, choices))
        raise ValueError(f"{argument} must be one of {listed}, not {value!r}{suggestion(value, choices)}")


def check_positive(argument: str, value: object) -> int:
    """The value, if it is a positive whole number.

    Raises:
        ValueError: it is none.

    Example:
        >>> check_positive("input_size", 0)
        Traceback (most recent call last):
        ValueError: input_size: a positive whole number is expected, not 0
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{argument}: a positive whole number is expected, not {value!r}")
    return value


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
    near = closest(key, proper)
    hint = "" if near is None else f"; did you mean {proper[near]!r}?"
    raise ValueError(f"{argument}: nothing is called {name!r}{hint} (known: {', '.join(known)})")

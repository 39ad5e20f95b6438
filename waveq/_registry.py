"""Things that people name on a command line or in a file, and may add to: quantizers, networks, data sets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TypeVar

from waveq._names import plain

__all__ = ["Registry", "origin"]

Thing = TypeVar("Thing")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


class Registry(Mapping[str, Thing]):
    """Things by name, in the order in which they were added.

    Args:
        what: what they are, for messages.
        aliases: other names, without hyphens, that already lead to one of them.

    Example:
        >>> shapes = Registry("shape")
        >>> shapes.add("circle", 1, maker=max)
        >>> shapes.add("Circle!", 2, maker=min)
        Traceback (most recent call last):
        ValueError: shape 'Circle!': a name of lower-case letters, digits, '-', '_' and '.' is expected
        >>> shapes.add("cir-cle", 2, maker=min)
        Traceback (most recent call last):
        ValueError: shape 'cir-cle' is taken: 'circle' is builtins.max; choose another name
    """

    def __init__(self, what: str, aliases: Mapping[str, str] | None = None) -> None:
        self._what = what
        self.aliases = dict(aliases or {})
        self._things: dict[str, Thing] = {}
        self._makers: dict[str, object] = {}

    def add(self, name: str, thing: Thing, *, maker: object) -> None:
        """Give a thing a name.

        Args:
            name: how it will be asked for.
            thing: what is found under the name.
            maker: the class or function behind it. The same one may be added again, so that a cell of a notebook may
                be run twice; its new version takes the old one's place.

        Raises:
            ValueError: not a name, or one that something else has (hyphens and underscores do not matter).
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(
                f"{self._what} {name!r}: a name of lower-case letters, digits, '-', '_' and '.' is expected"
            )
        holder = self.aliases.get(plain(name)) or next((known for known in self if plain(known) == plain(name)), None)
        if holder is not None:
            if not _same(self._makers[holder], maker):
                whose = origin(self._makers[holder])
                raise ValueError(f"{self._what} {name!r} is taken: {holder!r} is {whose}; choose another name")
            del self._things[holder], self._makers[holder]
        self._things[name] = thing
        self._makers[name] = maker

    def __getitem__(self, name: str) -> Thing:
        return self._things[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._things)

    def __len__(self) -> int:
        return len(self._things)


def origin(maker: object) -> str:
    """Where a class or function comes from.

    Example:
        >>> origin(Registry)
        'waveq._registry.Registry'
    """
    known = maker if hasattr(maker, "__qualname__") else type(maker)
    return f"{known.__module__}.{known.__qualname__}"


def _same(old: object, new: object) -> bool:
    """Whether one is the other, or its source run again; functions without a name of their own are never."""
    return old is new or (origin(old) == origin(new) and "<" not in origin(new))

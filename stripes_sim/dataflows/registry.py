"""The dataflows by name: those that ship, and a user's own."""

from __future__ import annotations

from typing import TypeVar

from stripes_sim.bits import nearest
from stripes_sim.dataflows.base import Dataflow

__all__ = ["dataflow_named", "dataflow_names", "register"]

_REGISTERED: dict[str, Dataflow] = {}
Kind = TypeVar("Kind", bound=type[Dataflow])


def register(kind: Kind) -> Kind:
    """Make a class derived from `Dataflow` known, so that machines may name it in ``serial``; for use as a decorator.

    The same class again (a notebook cell that is run twice) replaces itself.

    Raises:
        TypeError: not a class derived from `Dataflow`, or one that leaves an answer out.
        ValueError: no name or title, or a name that another class has.

    >>> from stripes_sim.dataflows.parallel import Parallel
    >>> register(Parallel).name
    'none'
    """
    if not (isinstance(kind, type) and issubclass(kind, Dataflow)):
        raise TypeError(f"register takes a class derived from stripes_sim.dataflows.Dataflow, but it is {kind!r}")
    for attribute in ("name", "title"):
        text = getattr(kind, attribute, None)
        if not (isinstance(text, str) and text):
            raise ValueError(f"{kind.__qualname__}.{attribute} must be a text that is not empty, but it is {text!r}")
    known = _REGISTERED.get(kind.name)
    if known is not None and _place(type(known)) != _place(kind):
        raise ValueError(f"{kind.__qualname__}.name is {kind.name!r}, which is {'.'.join(_place(type(known)))} already")
    _REGISTERED[kind.name] = kind()
    return kind


def dataflow_named(name: str) -> Dataflow:
    """The dataflow that machines with ``serial=name`` have.

    Raises:
        ValueError: there is none of that name.

    >>> dataflow_named("both").title
    'both operands serial'
    """
    if name not in _REGISTERED:
        known = dataflow_names()
        raise ValueError(f"serial must be one of {known}, but it is {name!r}{nearest(name, known)}")
    return _REGISTERED[name]


def dataflow_names() -> tuple[str, ...]:
    """What ``serial`` may say.

    >>> dataflow_names()[:5]
    ('weights', 'activations', 'both', 'none', 'spatial')
    """
    return tuple(_REGISTERED)


def _place(kind: type) -> tuple[str, str]:
    return kind.__module__, kind.__qualname__

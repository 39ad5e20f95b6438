"""Names of a package that are loaded on first use, so that ``waveq --help`` does not wait for torch."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping

__all__ = ["lazy_names"]


def lazy_names(package: str, home: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` for a package's ``__init__`` (PEP 562).

    Args:
        package: its ``__name__``.
        home: each public name, and the module that holds it.

    Example:
        >>> get, names = lazy_names("waveq", {"Policy": "waveq.policy"})
        >>> get("Policy").__name__, "Policy" in names()
        ('Policy', True)
    """

    def get(name: str) -> object:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(home[name]), name)
        setattr(sys.modules[package], name, value)  # the next access does not come here
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home})

    return get, names

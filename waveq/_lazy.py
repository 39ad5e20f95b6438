"""Names of a package that are loaded on first use, so that ``waveq --help`` does not wait for torch."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping

from waveq._extras import needed_by

__all__ = ["lazy_names"]


def lazy_names(package: str, home: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` for a package's ``__init__`` (PEP 562).

    Args:
        package: its ``__name__``.
        home: each public name, and the module that holds it; a module of the package is its own home.

    ``__getattr__`` raises ModuleNotFoundError with the line for pip where an extra is missing.

    Example:
        >>> get, names = lazy_names("waveq", {"Policy": "waveq.policy"})
        >>> get("Policy").__name__, "Policy" in names()
        ('Policy', True)
    """

    def get(name: str) -> object:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with needed_by(f"{package}.{name}"):
            module = importlib.import_module(home[name])
        value = module if home[name] == f"{package}.{name}" else getattr(module, name)
        setattr(sys.modules[package], name, value)  # the next access does not come here
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home})

    return get, names

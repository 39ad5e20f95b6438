"""``waveq.sim`` and ``waveq.pareto``: the packages ``stripes_sim`` and ``pareto`` under a name inside this one.

The same modules, so that a class or a patched name is the same under both. Type checkers read sim.pyi and pareto.pyi.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

__all__ = ["ALIASES", "Same", "serve_aliases"]

ALIASES = {"sim": "stripes_sim", "pareto": "pareto"}


class Same(importlib.abc.Loader):
    """Loads the module that has another name, and leaves it as it is.

    Args:
        own: the name that it has.
    """

    def __init__(self, own: str) -> None:
        self._own = own
        self._spec: importlib.machinery.ModuleSpec | None = None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._own)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        module.__spec__ = self._spec  # Python has just given it the spec of the other name
        if spec is not None:
            _serve_loaded(self._own, spec.name)


def _serve_loaded(own: str, alias: str) -> None:
    """Know what is loaded inside under the other name too, or Python would load it anew and then bind the module to
    its name in the package: over `stripes_sim.trace`, which is a function there.
    """
    for name, module in list(sys.modules.items()):
        if name.startswith(f"{own}."):
            sys.modules.setdefault(alias + name.removeprefix(own), module)


class _Aliases(importlib.abc.MetaPathFinder):
    """Answers for the aliases and what lies inside; asked first, or Python would load copies of that."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        package, _, rest = fullname.partition(".")
        alias, dot, inside = rest.partition(".")
        if package != "waveq" or alias not in ALIASES:
            return None
        own = ALIASES[alias] + dot + inside
        if importlib.util.find_spec(own) is None:
            return None
        return importlib.machinery.ModuleSpec(fullname, Same(own))


def serve_aliases() -> None:
    """Let the aliases be imported."""
    if not any(isinstance(finder, _Aliases) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Aliases())

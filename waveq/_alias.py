"""A package under a second name: the same modules, so that a class or a patched name is the same under both."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

__all__ = ["Same", "stand_for"]


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
        module.__spec__ = self._spec  # Python has just given it the spec of the second name


class _Inside(importlib.abc.MetaPathFinder):
    """Answers for the modules of packages that have a second name; asked first, or Python would load copies."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        for alias, package in self.names.items():
            if fullname.startswith(f"{alias}."):
                own = package + fullname.removeprefix(alias)
                if importlib.util.find_spec(own) is not None:
                    return importlib.machinery.ModuleSpec(fullname, Same(own))
        return None


_FINDER = _Inside()


def stand_for(alias: str, package: ModuleType) -> None:
    """Let ``import alias``, and what lies inside, give the package itself; called by the file of the alias.

    Args:
        alias: dotted name of the module that is being imported.
        package: what it is another name of.
    """
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    _FINDER.names[alias] = package.__name__
    sys.modules[alias] = package

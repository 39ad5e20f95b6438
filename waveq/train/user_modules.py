"""Modules of the user's own, imported by name so that they register their quantizers, networks and data sets."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Collection
from typing import Any

from waveq._names import nearest

__all__ = ["import_modules", "module_name", "user_object"]


def module_name(text: str) -> str:
    """The text, if it is a module's name and no path: what a run folder records must not lead into a folder of files.

    Raises:
        ValueError: it is none.

    Example:
        >>> module_name("my_package.methods")
        'my_package.methods'
        >>> module_name("lab/methods.py")
        Traceback (most recent call last):
        ValueError: a module's name is expected, as in "import my_package.methods", not 'lab/methods.py'
    """
    if text.endswith(".py") or not all(part.isidentifier() for part in text.split(".")):
        raise ValueError(f'a module\'s name is expected, as in "import my_package.methods", not {text!r}')
    return text


def import_modules(names: Collection[str] | None) -> None:
    """Import modules, where there are any, from Python's path or, after all other places, from the current folder.

    Raises:
        ValueError: not a module's name, or no such module. Errors of the module's own come through as they are.

    Example:
        >>> import_modules(["json", "no_such_module"])
        Traceback (most recent call last):
        ValueError: no module 'no_such_module' in the current folder or on Python's path (PYTHONPATH)
    """
    if not names:
        return
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    importlib.invalidate_caches()  # a file may have been written a moment ago
    for name in names:
        try:
            importlib.import_module(module_name(name))
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # something that the module itself needs
            raise ValueError(f"no module {name!r} in the current folder or on Python's path (PYTHONPATH)") from None


def user_object(name: str) -> Any:
    """What ``PACKAGE.MODULE:NAME`` names, a function as a rule; the module is imported.

    Raises:
        ValueError: not of that form, no such module, no such name in it, or nothing that can be called.

    Example:
        >>> user_object("json:dumps")([1])
        '[1]'
        >>> user_object("json:dunps")
        Traceback (most recent call last):
        ValueError: module 'json' has no 'dunps'; did you mean 'dumps'?
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute.isidentifier():
        raise ValueError(f"a function is named as PACKAGE.MODULE:FUNCTION, not {name!r}")
    import_modules([module])
    found = getattr(sys.modules[module], attribute, None)
    if found is None:
        raise ValueError(f"module {module!r} has no {attribute!r}{nearest(attribute, dir(sys.modules[module]))}")
    if not callable(found):
        raise ValueError(f"{name} must be a function, but it is {found!r}")
    return found

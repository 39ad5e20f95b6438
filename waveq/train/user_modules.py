"""Modules of the user's own, imported by name so that they register their quantizers, networks and data sets."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Collection
from typing import Any

from waveq._names import nearest

__all__ = ["IN_MEMORY", "give", "import_modules", "is_own", "module_name", "user_call", "user_object"]

IN_MEMORY = "in-memory:"
"""What the names of things begin with that were given in Python and that no import finds."""
_HELD: dict[str, Callable[[], Any]] = {}


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


def is_own(name: str) -> bool:
    """Whether a name is somebody's function, PACKAGE.MODULE:FUNCTION, and none of a registry.

    Example:
        >>> is_own("my_models:net"), is_own("resnet18")
        (True, False)
    """
    return ":" in name


def give(label: str, maker: Callable[[], Any]) -> str:
    """Keep a function for as long as this process lives; returns the name that `user_object` finds it by."""
    _HELD[IN_MEMORY + label] = maker
    return IN_MEMORY + label


def user_object(name: str) -> Callable[..., Any]:
    """What ``PACKAGE.MODULE:FUNCTION`` names, a class too; the module is imported.

    Raises:
        ValueError: not of that form, no such module, no such name in it, or nothing that can be called.

    Example:
        >>> user_object("json:dumps")([1])
        '[1]'
        >>> user_object("json:dunps")
        Traceback (most recent call last):
        ValueError: module 'json' has no 'dunps'; did you mean 'dumps'?
    """
    if name.startswith(IN_MEMORY):
        if name not in _HELD:
            raise ValueError(
                f"{name} was given to Python as an object, in a process that has ended; give it again in Python, or "
                "make the run with a function that can be imported, PACKAGE.MODULE:FUNCTION"
            )
        return _HELD[name]
    module, _, attribute = name.partition(":")
    if not module or not attribute.isidentifier():
        raise ValueError(f"a function is named as PACKAGE.MODULE:FUNCTION, not {name!r}")
    import_modules([module])
    names = vars(sys.modules[module])
    if attribute not in names:
        own = [known for known, thing in names.items() if callable(thing) and not known.startswith("_")]
        raise ValueError(f"module {module!r} has no {attribute!r}{nearest(attribute, own)}")
    found = names[attribute]
    if not callable(found):
        raise ValueError(f"{name} must be a function, but it is {found!r}")
    return found  # type: ignore[no-any-return]


def user_call(name: str) -> Any:
    """What the function of that name gives; it is called without arguments.

    Raises:
        ValueError: see `user_object`; or it needs arguments.

    Example:
        >>> user_call("os:getcwd") == os.getcwd()
        True
        >>> user_call("os.path:isabs")
        Traceback (most recent call last):
        ValueError: os.path:isabs needs 's'; it is called without arguments: give it defaults, or name one that has none
    """
    function = user_object(name)
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # written in C, without a signature
        parameters = {}.values()
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [repr(each.name) for each in parameters if each.default is each.empty and each.kind not in optional]
    if needed:
        raise ValueError(
            f"{name} needs {', '.join(needed)}; it is called without arguments: give it defaults, or name one that has "
            "none"
        )
    return function()

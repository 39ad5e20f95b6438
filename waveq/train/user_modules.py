"""Modules of the user's own, imported by name so that they register their quantizers, networks and data sets."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

from waveq._names import nearest
from waveq._own_code import naming_errors

__all__ = ["IN_MEMORY", "give", "import_modules", "is_own", "module_name", "named_or_own", "user_call", "user_object"]

Thing = TypeVar("Thing")
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
        raise ValueError(
            f'a module\'s name is expected, as in "import my_package.methods", not {text!r}{_as_module(text)}'
        )
    return text


def _as_module(path: str) -> str:
    """What a path to a file below the current folder is called as a module."""
    found = Path(path if path.endswith(".py") else f"{path}.py").absolute()
    if not (found.is_file() and found.is_relative_to(Path.cwd())):
        return f"; change to the folder of {path}, or put it on PYTHONPATH" if found.is_file() else ""
    name = ".".join(found.relative_to(Path.cwd()).with_suffix("").parts)
    return f"; did you mean {name!r}?" if all(part.isidentifier() for part in name.split(".")) else ""


def import_modules(names: Collection[str] | None) -> None:
    """Import modules, where there are any, from Python's path or, after all other places, from the current folder.

    Raises:
        ValueError: not a module's name, no such module, or one that raises an error.
        ModuleNotFoundError: it imports a package that an extra of waveq brings, which is not installed.

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
            with naming_errors(f"import {module_name(name)}"):
                importlib.import_module(name)
        except ValueError as told:
            error = told.__cause__
            if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
                raise ValueError(f"no module {name!r} in the current folder or on Python's path (PYTHONPATH)") from None
            raise


def is_own(name: str) -> bool:
    """Whether a name is somebody's function, PACKAGE.MODULE:FUNCTION, and none of a registry.

    Example:
        >>> is_own("my_models:net"), is_own("resnet18")
        (True, False)
    """
    return ":" in name


def named_or_own(name: str, known: Callable[[str], Thing]) -> Thing:
    """The thing of a registry that has this name; where there is none, how one's own would be named.

    Raises:
        ValueError: nothing has that name.
    """
    try:
        return known(name)
    except ValueError as error:
        raise ValueError(f"{error}; one of yours is PACKAGE.MODULE:FUNCTION{_with_colon(name)}") from None


def _with_colon(name: str) -> str:
    """ "; did you mean my_models:net?" for "my_models.net", where there is such a file."""
    module, _, function = name.rpartition(".")
    there = module and function != "py" and Path(*module.split(".")).with_suffix(".py").is_file()
    return f"; did you mean {module}:{function}?" if there else ""


def give(label: str, maker: Callable[[], Any]) -> str:
    """Keep a function for as long as this process lives; returns the name that `user_object` finds it by."""
    _HELD[IN_MEMORY + label] = maker
    return IN_MEMORY + label


def user_object(name: str) -> Any:
    """What ``PACKAGE.MODULE:FUNCTION`` names, as it is: a function, a class, or what it would give.

    Raises:
        ValueError: not of that form, no such module, or no such name in it.

    Example:
        >>> user_object("json:dumps")([1]), user_object("json:JSONDecoder.decode").__name__
        ('[1]', 'decode')
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
    module, _, path = name.partition(":")
    if not module or not all(part.isidentifier() for part in path.split(".")):
        raise ValueError(f"a function is named as PACKAGE.MODULE:FUNCTION, not {name!r}")
    import_modules([module])
    found, parts = sys.modules[module], path.split(".")
    for at, part in enumerate(parts):
        if not hasattr(found, part):
            where = ":".join((module, ".".join(parts[:at]))) if at else f"module {module!r}"
            own = [known for known, thing in vars(found).items() if callable(thing) and not known.startswith("_")]
            raise ValueError(f"{where} has no {part!r}{nearest(part, own) if own else ''}{_hidden(module)}")
        found = getattr(found, part)
    return found


def _hidden(module: str) -> str:
    """Where a file of the current folder has the name of a module that Python finds before it."""
    here, taken = Path(*module.split(".")).with_suffix(".py"), getattr(sys.modules[module], "__file__", None)
    if not here.is_file() or (taken is not None and Path(taken).samefile(here)):
        return ""
    return f"; {here} of the current folder is hidden by a module of that name ({taken or 'built in'}): rename it"


def user_call(name: str) -> Any:
    """What the function of that name gives, called without arguments; what is no function is taken as it is.

    Raises:
        ValueError: see `user_object`; or it needs arguments, or raises an error.

    Example:
        >>> user_call("os:getcwd") == os.getcwd(), user_call("os:sep") == os.sep
        (True, True)
        >>> user_call("os.path:isabs")
        Traceback (most recent call last):
        ValueError: os.path:isabs needs 's'; it is called without arguments: give it defaults, or name one that has none
    """
    function = user_object(name)
    made = not isinstance(function, type) and hasattr(function, "state_dict")  # a network: it can be called, with data
    if made or not callable(function):
        return function
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
    with naming_errors(name):
        return function()

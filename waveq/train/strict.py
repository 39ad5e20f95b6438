"""Values as they were written: `true` is no number, and "3" is none either.

Pydantic turns one into the other unless it is told not to, and when it is told so it refuses a list for a tuple and a
text for a path, which is all that TOML and JSON have.
"""

from __future__ import annotations

import math
import reprlib
import types
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

__all__ = ["as_typed", "expected", "fits", "require_types", "words"]

_WORDS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a text", Path: "a path"}


def fits(value: object, annotation: Any) -> bool:
    """Whether a value of a TOML or JSON file is one of the annotated type, without turning it into another.

    Args:
        value: plain data; a list will do for a tuple, a text for a path, a text of digits for a whole number as a key.
        annotation: of a field: int, float, bool, str, Path, None, Literal, tuple, dict, and unions of them.

    Example:
        >>> fits(3, float), fits(True, float), fits("3", int | None), fits({"a": 1}, dict[str, float])
        (True, False, False, True)
    """
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return fits(value, inner[0])
    if origin in (Union, types.UnionType):
        return any(fits(value, part) for part in inner)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in inner)
    if origin in (dict, Mapping):
        return isinstance(value, Mapping) and all(_key(k, inner[0]) and fits(v, inner[1]) for k, v in value.items())
    if origin is tuple:
        return isinstance(value, list | tuple) and all(fits(part, inner[0]) for part in value)
    return _is(value, annotation)


def _is(value: object, kind: Any) -> bool:
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    if kind is int:
        return isinstance(value, Integral)
    if kind is float:
        return isinstance(value, Real) and math.isfinite(value)
    if kind is Path:
        return isinstance(value, str | Path)
    return value is None if kind in (None, type(None)) else isinstance(value, kind)


def _key(key: object, kind: Any) -> bool:
    return fits(key, kind) or (kind is int and isinstance(key, str) and key.isdecimal())


def expected(annotation: Any) -> str:
    """What fits, in words.

    Example:
        >>> expected(dict[str, float] | int | None)
        'a table of a finite number, or a whole number'
    """
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return expected(inner[0])
    if origin in (Union, types.UnionType):
        return ", or ".join(dict.fromkeys(expected(part) for part in inner if part is not type(None)))
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if origin in (dict, Mapping):
        return f"a table of {expected(inner[1])}"
    if origin is tuple:
        return f"a list of {expected(inner[0])}"
    return _WORDS.get(annotation, str(annotation))


def words(annotation: Any) -> tuple[str, ...]:
    """The words that an annotation allows.

    Example:
        >>> words(int | Literal["learn", "off"] | None)
        ('learn', 'off')
    """
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return tuple(choice for choice in inner if isinstance(choice, str))
    if origin in (Annotated, Union, types.UnionType):
        return tuple(word for part in inner for word in words(part))
    return ()


def as_typed(text: str, annotation: Any) -> Any:
    """A word of a command line as the number or truth value that the annotation wants, else the text.

    Example:
        >>> as_typed("3", int | Literal["learn"]), as_typed("32", Literal["32", "64"]), as_typed("true", bool)
        (3, '32', True)
    """
    candidates: list[object] = [{"true": True, "false": False}.get(text.lower())]
    for number in (int, float):
        try:
            candidates.append(number(text))
        except ValueError:
            continue
    return next((value for value in candidates if value is not None and fits(value, annotation)), text)


def require_types(found: Mapping[str, Any], kinds: Mapping[str, Any], *, where: str) -> None:
    """Each field that is asked for is there, and of its type.

    Args:
        found: an object of a JSON file.
        kinds: by field an annotation (see `fits`), a range of whole numbers, or the same of an object inside.
        where: the file, for the error.

    Raises:
        ValueError: names file and field.

    Example:
        >>> require_types({"data": {"images": 0}}, {"data": {"images": range(1, 10)}}, where="a.json")
        Traceback (most recent call last):
        ValueError: a.json: damaged: data.images is 0, a whole number from 1 to 9 is expected
    """
    _require_types(found, kinds, where, "")


def _require_types(found: Mapping[str, Any], kinds: Mapping[str, Any], where: str, before: str) -> None:
    for name, kind in kinds.items():
        if name not in found:
            raise ValueError(f"{where}: damaged: field {before + name!r} is missing")
        value = found[name]
        if isinstance(kind, range):
            right, wanted = fits(value, int) and value in kind, f"a whole number from {kind[0]} to {kind[-1]}"
        elif isinstance(kind, Mapping):
            right, wanted = isinstance(value, Mapping), "an object"
        else:
            right, wanted = fits(value, kind), expected(kind)
        if not right:
            raise ValueError(f"{where}: damaged: {before + name} is {reprlib.repr(value)}, {wanted} is expected")
        if isinstance(kind, Mapping):
            _require_types(value, kind, where, f"{before}{name}.")

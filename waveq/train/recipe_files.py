"""Recipes that ship with the package, and files like them: the fields of a run as they are written there."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from waveq._names import suggestion
from waveq._reading import parse_json, read_text

__all__ = ["read_recipe", "recipe_names"]


def recipe_names() -> tuple[str, ...]:
    """The recipes that ship with the package.

    Example:
        >>> "simplenet5-cifar10" in recipe_names()
        True
    """
    files = resources.files("waveq.zoo.recipes").iterdir()
    return tuple(sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml")))


def read_recipe(name: str | Path) -> tuple[dict[str, Any], str]:
    """The fields of a recipe, or of a TOML or JSON file, as they are written there, and what to call it in errors.

    Raises:
        ValueError: no such recipe or file (the message gives the nearest name), not TOML or JSON.

    Example:
        >>> read_recipe("digits")[0]["batch_size"]
        32
    """
    text, where = _recipe_text(name)
    if where.endswith(".json"):
        fields = parse_json(text, where=where)
        if not isinstance(fields, dict):
            raise ValueError(f"{where}: a JSON object is expected, not {type(fields).__name__}")
        return fields, where
    try:
        return tomllib.loads(text), where
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is no TOMLDecodeError
        raise ValueError(f"{where}: damaged ({error})") from None


def _recipe_text(name: str | Path) -> tuple[str, str]:
    if str(name) in recipe_names():
        return resources.files("waveq.zoo.recipes").joinpath(f"{name}.toml").read_text("utf-8"), f"recipe {name}"
    path = Path(name)
    if path.suffix in (".toml", ".json") and path.exists():
        return read_text(path), str(path)
    known = recipe_names()
    written = Path(name) / "config.json"
    hint = f"; did you mean {written}?" if written.is_file() else suggestion(name, known)
    raise ValueError(f"recipe: {name} is neither a recipe nor a file{hint} (known: {', '.join(known)})")

"""Which numbers of a shipped machine are assumed, and why: read from the ``[sources]`` of its file."""

from __future__ import annotations

import tomllib
from dataclasses import fields
from functools import lru_cache
from importlib import resources

from stripes_sim.parameters import Parameters

__all__ = ["assumed_parameters"]

_FILES = {"DynamicStripes": "dynamic_stripes"}


def assumed_parameters(hw: Parameters) -> dict[str, str]:
    """Parameter -> reason, for the parameters of ``hw`` that are as its preset assumes them.

    A number that was changed is the user's own, and so is every machine that no file describes.

    >>> from stripes_sim import Stripes
    >>> assumed_parameters(Stripes())["dram_bytes_per_s"]
    'two 32-bit LPDDR4-3200 channels'
    >>> "dram_bytes_per_s" in assumed_parameters(Stripes(dram_bytes_per_s=1e9))
    False
    """
    for kind in type(hw).__mro__:
        reasons = _reasons(_FILES.get(kind.__name__, kind.__name__.lower()))
        if reasons:
            default = {field.name: field.default for field in fields(hw)}
            return {key: reason for key, reason in reasons.items() if getattr(hw, key) == default[key]}
    return {}


@lru_cache
def _reasons(preset: str) -> dict[str, str]:
    file = resources.files("stripes_sim.configs") / f"{preset}.toml"
    if not file.is_file():
        return {}
    sources = tomllib.loads(file.read_text(encoding="utf-8"))["sources"]
    return {key: text.removeprefix("assumed: ") for key, text in sources.items() if text.startswith("assumed: ")}

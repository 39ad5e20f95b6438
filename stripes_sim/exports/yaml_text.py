"""Plain data as YAML, as much of it as the exports need: no package is needed to write it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

__all__ = ["yaml_text"]


def yaml_text(data: object) -> str:
    """Mappings, sequences, strings and numbers as YAML; sequences of plain values stand on one line.

    >>> print(yaml_text({"a": [1, 2.5], "b": [{"name": "x: y", "on": True}, {"empty": []}]}), end="")
    a: [1, 2.5]
    b:
    - name: "x: y"
      on: true
    - empty: []
    """
    return "\n".join(_lines(data)) + "\n"


def _lines(data: object) -> list[str]:
    if isinstance(data, Mapping):
        lines = []
        for key, value in data.items():
            if _is_flat(value):
                lines.append(f"{key}: {_flat(value)}")
            else:
                inner = _lines(value)
                # the dashes of a sequence need no indentation of their own
                lines += [f"{key}:", *(inner if isinstance(value, Sequence) else ["  " + line for line in inner])]
        return lines
    if isinstance(data, Sequence) and not _is_flat(data):
        lines = []
        for item in data:
            first, *others = [_flat(item)] if _is_flat(item) else _lines(item)
            lines += [f"- {first}", *("  " + line for line in others)]
        return lines
    return [_flat(data)]


def _is_flat(data: object) -> bool:
    if isinstance(data, Mapping):
        return not data
    if isinstance(data, Sequence) and not isinstance(data, str):
        return all(_is_flat(item) and not isinstance(item, Mapping) for item in data)
    return True


def _flat(data: object) -> str:
    return json.dumps(data)

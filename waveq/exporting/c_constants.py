"""Constants of a C file: numbers that read back as they are, each tensor once."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
from torch import Tensor

from waveq.exporting.integers import Integers
from waveq.exporting.npz import pack

__all__ = ["Constants", "identifier", "literal"]


def identifier(text: str) -> str:
    """Any text as (part of) a name in C.

    Example:
        >>> identifier("layer1.0.conv2"), identifier("3bits")
        ('layer1_0_conv2', 'net_3bits')
    """
    name = re.sub(r"\W", "_", text, flags=re.ASCII)
    return name if name and not name[0].isdigit() else f"net_{name}"


def literal(value: float) -> str:
    """A float32 that reads back as it is; infinities are ``math.h``'s.

    Example:
        >>> literal(1 / 3), literal(2.0), literal(float("-inf"))
        ('0.333333343f', '2.0f', '-INFINITY')
    """
    single = float(np.float32(value))
    if np.isinf(single):
        return "INFINITY" if single > 0 else "-INFINITY"
    text = f"{single:.9g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"


class Constants:
    """What has been declared so far.

    Args:
        prefix: what every name begins with.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.lines: list[str] = []
        self._names: dict[str, str] = {}

    def floats(self, key: str, values: Tensor) -> str:
        """The name of an array; the same key is declared once."""
        return self._array(key, "float", (literal(each) for each in values.detach().reshape(-1).tolist()))

    def codes(self, key: str, each: Integers) -> str:
        """Packed codes, and the byte after them that ``waveq_code`` looks at."""
        packed = [*pack(each.codes.cpu().numpy(), each.bits).tolist(), 0]
        return self._array(key, "uint8_t", map(str, packed))

    def record(self, kind: str, fields: str) -> str:
        """The address of a struct with these fields."""
        key = f"{kind.removeprefix('waveq_')} {len(self._names)}"
        self.lines.append(f"static const {kind} {self._name(key)} = {{{fields}}};")
        return f"&{self._names[key]}"

    def _array(self, key: str, kind: str, items: Iterable[str]) -> str:
        if key not in self._names:
            self.lines.append(f"static const {kind} {self._name(key)}[] = {{\n{_rows(items)}\n}};")
        return self._names[key]

    def _name(self, key: str) -> str:
        name = f"{self.prefix}_{identifier(key)}"
        while name in self._names.values():  # "a.b" beside "a_b"
            name += "_"
        self._names[key] = name
        return name


def _rows(items: Iterable[str]) -> str:
    """Lines of at most 120 characters."""
    lines, line = [], "    "
    for each in items:
        if len(line) + len(each) + 1 > 120:
            lines.append(line)
            line = "    "
        line += f"{each},"
    return "\n".join([*lines, line])

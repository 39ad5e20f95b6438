"""Whose results a store holds: the names of its columns, the fingerprint, and what differs between two of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pareto._check import nearest

__all__ = ["CampaignChangedError", "array_digest", "differences", "identity_of", "names_of"]


class CampaignChangedError(ValueError):
    """The store belongs to another campaign; the message lists what differs."""


def array_digest(arrays: Mapping[str, npt.ArrayLike]) -> str:
    """A short hash of named arrays (say, model weights), equal exactly when names, shapes, dtypes and bytes
    are.

    >>> array_digest({"w": [1.0, 2.0]}) == array_digest({"w": np.array([1.0, 2.0])})
    True
    """
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def names_of(argument: str, names: Sequence[str]) -> tuple[str, ...]:
    """The names as they are; ValueError where one is none, or there twice."""
    if isinstance(names, str) or not all(isinstance(name, str) and name for name in names) or not len(names):
        raise ValueError(f"{argument} must be a sequence of names, got {names!r}")
    if len(set(names)) != len(names):
        raise ValueError(f"{argument} lists a name twice: {list(names)}")
    return tuple(names)


def identity_of(layers: Sequence[str], metrics: Sequence[str], fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """All that decides whether results belong together, as plain JSON values."""
    if not isinstance(fingerprint, Mapping):
        raise TypeError(f"fingerprint must be a mapping of JSON values, got {type(fingerprint).__name__}")
    try:
        plain = json.loads(json.dumps(dict(fingerprint), sort_keys=True))
    except TypeError as error:
        raise ValueError(f"fingerprint must hold plain JSON values: {error}") from None
    return {"layers": list(layers), "metrics": list(metrics), "fingerprint": plain}


def differences(stored: Any, now: Any, name: str = "") -> list[str]:
    """One line for each entry of two nested JSON values that differs."""
    if isinstance(stored, dict) and isinstance(now, dict):
        lines = []
        for key in sorted(stored.keys() | now.keys()):
            inner = f"{name}.{key}" if name else key
            if key not in now:
                added = now.keys() - stored.keys()  # a name that both have was not meant
                hint = nearest(key, added) if added else ""
                lines.append(f"{inner}: stored {stored[key]!r}, not given now{hint if 'mean' in hint else ''}")
            elif key not in stored:
                lines.append(f"{inner}: not stored, given now as {now[key]!r}")
            else:
                lines += differences(stored[key], now[key], inner)
        return lines
    return [] if stored == now else [f"{name}: stored {stored!r}, now {now!r}"]

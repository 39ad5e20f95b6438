"""Plain facts as a tensor, which every kind of checkpoint can hold: ASCII JSON, one byte a value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["noted", "read_note"]


def noted(facts: Mapping[str, Any]) -> Tensor:
    """The facts (JSON values) as uint8, 1-D, on the CPU.

    Files that hold tensors alone (safetensors) and ``torch.load(weights_only=True)`` take it; it survives a copy of the
    checkpoint in half precision, which holds whole numbers up to 256 exactly.

    Example:
        >>> noted({"bits": 3}).dtype, read_note(noted({"bits": 3}).half())
        (torch.uint8, {'bits': 3})
    """
    return torch.tensor(list(json.dumps(facts).encode("ascii")), dtype=torch.uint8)


def read_note(note: Any) -> dict[str, Any] | None:
    """The facts; None for what is no such tensor."""
    try:
        values = note.round().tolist()
        found = json.loads(bytes(map(int, values)))
    except (AttributeError, OverflowError, TypeError, ValueError):
        return None
    return found if isinstance(found, dict) else None

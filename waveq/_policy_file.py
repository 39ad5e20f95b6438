"""The JSON form of a policy, checked field by field; pydantic is imported only when a file is read."""

from __future__ import annotations

import json
import reprlib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, StrictInt, ValidationError

from waveq._names import suggestion

__all__ = ["read_policy_file"]


class _PolicyFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal["waveq-policy/1"]
    bits: dict[str, StrictInt]
    activation_bits: dict[str, StrictInt] = {}
    betas: dict[str, float] = {}
    scales: dict[str, float] = {}
    weight_counts: dict[str, StrictInt] = {}
    skipped: tuple[str, ...] = ()
    quantizer: str | None = None
    granularity: Literal["layer", "channel"] | None = None
    provenance: dict[str, Any] = {}


class _PlainPolicy(BaseModel):
    bits: dict[str, StrictInt]


def read_policy_file(path: Path) -> dict[str, Any]:
    """The arguments of ``Policy`` that a file holds."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique)
    except _TwiceError as error:
        raise ValueError(f"{path} names {error} twice") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not a policy: it is not valid JSON ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a policy: expected a JSON object, found {type(content).__name__}")
    try:
        if "format" in content or "bits" in content:
            return _PolicyFile.model_validate(content).model_dump(exclude={"format"})
        return _PlainPolicy.model_validate({"bits": content}).model_dump()
    except ValidationError as error:
        raise ValueError(f"{path}: {_first_problem(error)}") from None


class _TwiceError(Exception):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON allows a name twice and keeps the last: here one of the two would be lost without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _TwiceError(repr(next(name for name in names if names.count(name) > 1)))
    return found


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = list(_PolicyFile.model_fields)
        return f"unknown field {where!r}{suggestion(where, known)} (known: {', '.join(known)})"
    if problem["type"] == "missing":
        return f"field {where!r} is missing"
    return f"field {where!r} is {reprlib.repr(problem['input'])}: {problem['msg']}"

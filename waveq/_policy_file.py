"""The JSON form of a policy, checked field by field; pydantic is imported only when a file is read."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, StrictInt, ValidationError

from waveq._names import suggestion
from waveq._reading import read_json

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
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a policy: expected a JSON object, found {type(content).__name__}")
    try:
        if "format" in content or "bits" in content:
            return _PolicyFile.model_validate(content).model_dump(exclude={"format"})
        return _PlainPolicy.model_validate({"bits": content}).model_dump()
    except ValidationError as error:
        raise ValueError(f"{path}: {_first_problem(error)}") from None


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = list(_PolicyFile.model_fields)
        return f"unknown field {where!r}{suggestion(where, known)} (known: {', '.join(known)})"
    if problem["type"] == "missing":
        told = f"field {where!r} is missing"
        if where != "format":
            return told
        return (
            f'{told}; a saved policy has "format": "waveq-policy/1", and one written by hand is layers and bits alone, '
            '{"conv1": 3, "fc": 4}'
        )
    return f"field {where!r} is {reprlib.repr(problem['input'])}: {problem['msg']}"

"""What came out of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from waveq.train.strict import require_types

__all__ = ["TrainResult", "share_sentence"]


def share_sentence(search: int, rest: int) -> str:
    """How a run is parted.

    Example:
        >>> share_sentence(154, 614)
        'bits are learned in 154 of 768 steps (20 %); the other 614 train the float weights with them'
    """
    share = f"{search} of {search + rest} steps ({100 * search / (search + rest):.0f} %)"
    return f"bits are learned in {share}; the other {rest} train the float weights with them"


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What came out of a run; accuracies are shares of 1."""

    run_dir: Path
    bits: dict[str, int]
    """Total bits by layer."""
    mean_bits: float
    """Mean over the layers."""
    float_validation_accuracy: float
    validation_accuracy: float
    """Of the final network, its weights on their grids."""
    float_test_accuracy: float
    test_accuracy: float
    """Of the final network."""
    forecast: str
    """What the strengths implied before training."""
    warnings: tuple[str, ...]
    """What makes the learned bits doubtful."""
    input_bits: dict[str, int] = field(default_factory=dict)
    """Bits of the inputs by layer; layers with inputs in floating point are left out."""
    unrounded_validation_accuracy: float | None = None
    """Of the final network before its weights were rounded; on the float road only."""
    unrounded_test_accuracy: float | None = None
    rounded_once_validation_accuracy: float | None = None
    """Of the float network that training began with, its weights rounded to the final bits; on the float road only."""
    rounded_once_test_accuracy: float | None = None
    steps: Mapping[str, int] = field(default_factory=dict)
    """Optimizer steps of every stage; "search" is among them where bits were learned first and the weights rewound."""
    search_validation_accuracy: float | None = None
    """Of the network at the end of the search, before it was rewound."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {"run_dir": str(self.run_dir), "warnings": list(self.warnings)}

    @classmethod
    def of(cls, run_dir: Path, found: Mapping[str, Any]) -> TrainResult:
        """What a finished run folder's result.json says.

        Raises:
            ValueError: a field is missing, unknown, or not of its type.
        """
        hints, where = get_type_hints(cls), str(run_dir / "result.json")
        for name in found:
            if name not in hints or name == "run_dir":
                raise ValueError(f"{where}: damaged: {name} is no field of a result")
        needed = {part.name for part in fields(cls) if part.default is part.default_factory} - {"run_dir"}
        require_types(found, {name: hints[name] for name in (*needed, *found)}, where=where)
        return cls(run_dir=run_dir, **{**found, "warnings": tuple(found["warnings"])})

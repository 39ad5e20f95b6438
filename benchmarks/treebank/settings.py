"""Sizes, steps and rates of table5: one setting for each budget, and its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["BUDGETS", "HEADS", "ROWS", "Budget", "Setting"]

Budget = Literal["tiny", "quick", "full"]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How a parser is trained, in float and then with a quantised encoder.

    Attributes:
        sentences: of the training part, the same ones for every seed; 0 takes all.
        validation_sentences: the first ones, parsed after training as well; 0 takes all.
        batch: sentences a step.
        float_steps: of the float parser that every row of a seed starts from.
        steps: of each row after that, searches included.
        search_share: of the steps, where bits are learned; the rest is trained from the float parser again.
        float_rate: Adam's peak rate for the encoder in float.
        rate: the same in the rows.
        head_factor: what the heads, which begin at random, get more than the encoder; in the rows they do not.
        scale_rate: the rate of what quantisers learn as a share of the weights': Adam takes steps of the rate's own
            size, and a step between levels is a hundredth of a weight's size.
        arc_size: of the vectors that score heads.
        relation_size: of the vectors that score relations.
        dropout: before and within the heads.
    """

    sentences: int
    validation_sentences: int
    batch: int
    float_steps: int
    steps: int
    search_share: float = 0.2
    float_rate: float = 3e-4
    rate: float = 1e-4
    head_factor: float = 10.0
    scale_rate: float = 0.1
    arc_size: int = 128
    relation_size: int = 64
    dropout: float = 0.2


BUDGETS: dict[Budget, Setting] = {
    "tiny": Setting(
        sentences=16, validation_sentences=4, batch=4, float_steps=6, steps=10, arc_size=8, relation_size=4
    ),
    "quick": Setting(sentences=400, validation_sentences=50, batch=4, float_steps=100, steps=50),
    "full": Setting(sentences=0, validation_sentences=0, batch=16, float_steps=600, steps=300),
}

HEADS = ("tag", "arc_*", "relation_*")
"""What stays in floating point beside embeddings, norms and the products of attention: attach's ``skip``."""

_LEARNED: Mapping[str, Any] = {"bits": "learn", "target": {"mean_bits": 4.5}}
ROWS: dict[str, Mapping[str, Any] | None] = {
    "float": None,
    "W8/A8": {"bits": 8, "lambda_w": 0.0},
    "W5/A8": {"bits": 5, "lambda_w": 0.0},
    "W4/A8": {"bits": 4, "lambda_w": 0.0},
    "W4,5/A8": {**_LEARNED, "lambda_w": 0.0},
    "W4,5/A8, wave": _LEARNED,
}
"""Arguments for attach beside 8 bits for all inputs; None trains on in float. W4,5 is what Table 5 calls its mix."""

"""A frontier says where training reached far more than its protocol does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from waveq.codesign.protocol import require_choices
from waveq.codesign.report import placement_sentence
from waveq.codesign.training_gap import training_gap
from waveq.train.config import TrainConfig

RUN: Any = SimpleNamespace(result={"validation_accuracy": 0.9, "float_validation_accuracy": 0.6})


def described(images: int = 100, part: str = "validation") -> dict[str, Any]:
    return {"protocol": {"part": part}, "data": {"images": images}}


def test_a_gap_beyond_two_standard_errors_is_told() -> None:
    gap = training_gap(RUN, described(), 70.0)
    assert gap == {"trained": 90.0, "float": 60.0, "measured": 70.0}
    placed = {"efficient": True, "training_gap": gap}
    assert "it has 90.00 % on these images, 20.00 points more than the frontier" in placement_sentence(placed)
    assert placement_sentence({"efficient": True}).endswith("not worse in the other.")


@pytest.mark.parametrize(
    ("accuracy", "told"),
    [
        (82.0, described()),  # 8 points, and the standard error of 100 images is 4.9
        (89.2, described(10**6)),  # less than a point
        (95.0, described()),
        (10.0, described(part="train")),  # training did not measure these
        (10.0, None),
    ],
)
def test_a_small_gap_and_other_images_are_not(accuracy: float, told: dict[str, Any] | None) -> None:
    assert training_gap(RUN, told, accuracy) is None


def test_bits_that_the_quantizer_does_not_have_are_refused_beforehand() -> None:
    config = TrainConfig(quantizer="lsq")
    require_choices(config, (2, 9))
    for choices, message in (
        ((1, 2), "has 2 to 9 total bits, not 1"),
        ((), "must be numbers of bits"),
        ("2", "not '2'"),
    ):
        with pytest.raises(ValueError, match=message):
            require_choices(config, choices)

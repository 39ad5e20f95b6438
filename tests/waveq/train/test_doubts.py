from __future__ import annotations

import pytest

from waveq.train.doubts import Doubts, is_worse


@pytest.mark.parametrize(
    ("before", "after", "images", "worse"),
    [
        (1.0, 1.0, 10, False),  # no error at all is no division by it
        (0.9, 0.95, 1000, False),
        (0.5, 0.4, 100, False),  # 0.1 against 2 * sqrt(0.0049) = 0.14
        (0.5, 0.4, 400, True),  # 0.07
        (0.9, 0.1, 50, True),
    ],
)
def test_worse_is_more_than_two_standard_errors(before: float, after: float, images: int, worse: bool) -> None:
    assert is_worse(before, after, images) is worse


def test_a_network_that_kept_its_accuracy_clears_what_depends_on_it() -> None:
    search = Doubts(["never ran: a."], ["beta collapsed in: b.", "never ran: a."])
    both = search.and_then(Doubts([], []))
    kept = {"float_validation_accuracy": 0.9, "validation_accuracy": 0.9}
    assert both.left(kept, images=100) == ["never ran: a."]
    assert both.left(kept | {"validation_accuracy": 0.6}, images=100) == ["beta collapsed in: b.", "never ran: a."]

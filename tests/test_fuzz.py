"""A part of `make fuzz`, the same in every run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from tests.fuzz import COLUMNS, Kind, fuzz, kinds, run_kind


@pytest.mark.slow
@pytest.mark.parametrize(("chosen", "attempts", "refused"), [(kinds, 100, 40), (lambda: [run_kind()], 40, 10)])
def test_no_damage_is_trusted_and_none_ends_in_a_traceback(
    chosen: Callable[[], list[Kind]], attempts: int, refused: int
) -> None:
    counts = fuzz(chosen(), seed=1, attempts=attempts)
    total = sum(counts.values(), Counter[str]())
    assert total["attempts"] == attempts * len(counts)
    assert {column: total[column] for column in COLUMNS[4:]} == dict.fromkeys(COLUMNS[4:], 0)
    assert all(found["refused by name"] > refused for found in counts.values())

"""A part of `make fuzz`, the same in every run."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.fuzz import COLUMNS, fuzz, kinds


@pytest.mark.slow
def test_no_damage_is_trusted_and_none_ends_in_a_traceback() -> None:
    counts = fuzz(kinds(), seed=1, attempts=150)
    total = sum(counts.values(), Counter[str]())
    assert total["attempts"] == 150 * len(counts)
    assert {column: total[column] for column in COLUMNS[4:]} == dict.fromkeys(COLUMNS[4:], 0)
    assert all(found["refused by name"] > 50 for found in counts.values())

"""Every way to train leaves what was measured, or is refused by name."""

from __future__ import annotations

import pytest

from benchmarks.reach._check import run_loop
from benchmarks.reach._loop import Loop
from benchmarks.reach._loops import LOOPS


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.name)
def test_a_way_to_train(loop: Loop) -> None:
    pytest.importorskip(loop.package)
    outcome = run_loop(loop)
    assert (outcome.moved is None) == ("refused: TypeError" in outcome.note or "finalised while" in loop.name)
    assert outcome.said == ()

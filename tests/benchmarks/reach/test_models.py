"""Networks of other packages keep what finalize() promises; each skips, by name, without its package."""

from __future__ import annotations

import pytest

from benchmarks.reach._case import Case
from benchmarks.reach._cases import CASES
from benchmarks.reach._check import HOW, run_case

# what must be said, and of nothing else
SAID = {
    "timm ResNetV2": "quantised weights go through another formula",
    "timm nf_resnet26": "quantised weights go through another formula",
    "LoRA": "layers with a forward of their own",
}


@pytest.mark.slow
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_was_measured_is_what_is_left(case: Case, how: str) -> None:
    pytest.importorskip(case.package)
    outcome = run_case(case, how)
    assert outcome.share > 0.7
    assert any(SAID.get(case.name, "nothing") in text for text in outcome.said) == (case.name in SAID)
    assert outcome.said == () or case.name in SAID

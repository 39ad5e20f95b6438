"""After training: what the bits cost, where they lie among all policies, the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waveq._lazy import lazy_names

if TYPE_CHECKING:
    from waveq.codesign.pipeline import CoDesign as CoDesign
    from waveq.codesign.pipeline import codesign as codesign
    from waveq.codesign.pipeline import save_score as save_score
    from waveq.codesign.pipeline import weigh_by_cost as weigh_by_cost

__all__ = ["CoDesign", "codesign", "save_score", "weigh_by_cost"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "CoDesign": "waveq.codesign.pipeline",
        "codesign": "waveq.codesign.pipeline",
        "save_score": "waveq.codesign.pipeline",
        "weigh_by_cost": "waveq.codesign.pipeline",
    },
)

"""The accuracy of many policies: shared prefixes, or fine-tuning side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waveq._lazy import lazy_names

if TYPE_CHECKING:
    from waveq.evaluate.evaluator import PolicyEvaluator as PolicyEvaluator
    from waveq.evaluate.finetune import PolicyFinetuner as PolicyFinetuner
    from waveq.evaluate.finetune import finetune_policies as finetune_policies

__all__ = ["PolicyEvaluator", "PolicyFinetuner", "finetune_policies"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "PolicyEvaluator": "waveq.evaluate.evaluator",
        "PolicyFinetuner": "waveq.evaluate.finetune",
        "finetune_policies": "waveq.evaluate.finetune",
    },
)

"""WaveQ: learn how many bits each layer of a PyTorch network needs, by gradient.

Names are loaded on first use, so that ``waveq --help`` does not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from waveq.attachment import WaveQ as WaveQ
    from waveq.attachment import attach as attach
    from waveq._kernels.backends import backend as backend
    from waveq.batch_norm import reestimate_batch_norm as reestimate_batch_norm
    from waveq.evaluate import PolicyEvaluator as PolicyEvaluator
    from waveq.policy import Policy as Policy

_HOME = {
    "attach": "waveq.attachment",
    "WaveQ": "waveq.attachment",
    "Policy": "waveq.policy",
    "PolicyEvaluator": "waveq.evaluate",
    "backend": "waveq._kernels.backends",
    "reestimate_batch_norm": "waveq.batch_norm",
}

__all__ = ["Policy", "PolicyEvaluator", "WaveQ", "attach", "backend", "reestimate_batch_norm"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'waveq' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])

"""WaveQ: learn how many bits each layer of a PyTorch network needs, by gradient.

Names are loaded on first use, so that ``waveq --help`` does not wait for torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from waveq._lazy import lazy_names
from waveq._moved import serve_moved_modules

if TYPE_CHECKING:
    from waveq import pareto as pareto
    from waveq import sim as sim
    from waveq._kernels.backends import backend as backend
    from waveq._kernels.backends import use_backend as use_backend
    from waveq.evaluate import PolicyEvaluator as PolicyEvaluator
    from waveq.exporting.door import export as export
    from waveq.exporting.integers import integers as integers
    from waveq.method.attachment import WaveQ as WaveQ
    from waveq.method.attachment import attach as attach
    from waveq.method.batch_norm import reestimate_batch_norm as reestimate_batch_norm
    from waveq.method.distillation import distillation_loss as distillation_loss
    from waveq.method.folding import fold_batch_norm as fold_batch_norm
    from waveq.method.input_quantizers import restore_inputs as restore_inputs
    from waveq.method.input_ranges import calibrate as calibrate
    from waveq.method.learning_plot import plot_learning as plot_learning
    from waveq.method.rewinding import rewind as rewind
    from waveq.policy import Policy as Policy

__all__ = [
    "Policy",
    "PolicyEvaluator",
    "WaveQ",
    "attach",
    "backend",
    "calibrate",
    "distillation_loss",
    "export",
    "fold_batch_norm",
    "integers",
    "pareto",
    "plot_learning",
    "reestimate_batch_norm",
    "restore_inputs",
    "rewind",
    "sim",
    "use_backend",
]

serve_moved_modules()
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "attach": "waveq.method.attachment",
        "WaveQ": "waveq.method.attachment",
        "Policy": "waveq.policy",
        "PolicyEvaluator": "waveq.evaluate.evaluator",
        "backend": "waveq._kernels.backends",
        "use_backend": "waveq._kernels.backends",
        "calibrate": "waveq.method.input_ranges",
        "fold_batch_norm": "waveq.method.folding",
        "distillation_loss": "waveq.method.distillation",
        "reestimate_batch_norm": "waveq.method.batch_norm",
        "export": "waveq.exporting.door",
        "integers": "waveq.exporting.integers",
        "plot_learning": "waveq.method.learning_plot",
        "restore_inputs": "waveq.method.input_quantizers",
        "rewind": "waveq.method.rewinding",
        "pareto": "waveq.pareto",
        "sim": "waveq.sim",
    },
)

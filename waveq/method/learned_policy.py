"""The policy that a run has come to: bits with their betas, scales and provenance."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from waveq.method.coverage import Summary
from waveq.method.input_quantizers import INPUTS, describe_inputs
from waveq.method.settings import Settings, WaveLayer
from waveq.policy import COVERAGE, Policy

__all__ = ["policy_of", "require_finite"]


def policy_of(layers: Sequence[WaveLayer], settings: Settings, steps: int, summary: Summary) -> Policy:
    """The bits as they would be frozen now.

    Args:
        layers: what ``attach`` made.
        settings: what it decided.
        steps: optimiser steps taken.
        summary: what of the model is quantised.

    Raises:
        ValueError: a layer's weights hold NaN or infinity.
    """
    require_finite(layers)
    return Policy(
        {layer.name: layer.total_bits for layer in layers},
        activation_bits={
            layer.name: layer.state.activation_bits for layer in layers if layer.state.activation_bits is not None
        },
        betas={layer.name: layer.beta for layer in layers},
        scales={layer.name: scale for layer in layers if (scale := layer.state.level_scale(layer.values)) is not None},
        weight_counts={layer.name: layer.weight.numel() for layer in layers},
        skipped=settings.skipped,
        quantizer=settings.quantizer,
        granularity=settings.granularity,
        provenance={
            **settings.described,
            "steps": steps,
            COVERAGE: {
                "share": summary.share,
                "in_floating_point": {row.name: row.why for row in summary if row.layer is None and len(row.shape) > 1},
            },
            "torch": str(torch.__version__),
            INPUTS: describe_inputs({layer.name: layer.state for layer in layers}),
        },
    )


def require_finite(layers: Sequence[WaveLayer]) -> None:
    """Refuse weights that lie on no grid.

    Raises:
        ValueError: names the layer.
    """
    for layer in layers:
        if not bool(torch.isfinite(layer.values).all()):
            raise ValueError(
                f"the weights of layer {layer.name!r} hold NaN or infinity: training diverged, or the checkpoint is "
                "damaged"
            )

"""What policies of a run cost on an accelerator: one scored in detail, thousands in a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from waveq.train.trained_run import FLOAT_BITS, TrainedRun

if TYPE_CHECKING:
    from stripes_sim import Accelerator, LayerShape, Result
    from waveq.train.config import TrainConfig

__all__ = ["price_policies", "result_data", "score_run", "trace_config", "training_costs"]

OBJECTIVES = ("cycles", "energy_pj", "weight_bytes")


def score_run(run: TrainedRun, hardware: Accelerator, *, batch: int = 1) -> Result:
    """The run's own policy, layer by layer; layers left in floating point count `FLOAT_BITS` bits."""
    return hardware.run(run.layers, run.weight_bits(), run.activation_bits(), batch=batch)


def price_policies(
    run: TrainedRun, hardware: Accelerator, names: Sequence[str], policies: npt.NDArray[np.uint8]
) -> pd.DataFrame:
    """Cycles, energy and weight bytes of many policies.

    Args:
        run: a finished run.
        hardware: the machine.
        names: the L layers that the policies give bits to; all others count `FLOAT_BITS`.
        policies: (N, L) uint8 total bits.

    Returns:
        A frame with N rows and the columns of OBJECTIVES.
    """
    from stripes_sim import cost_table

    bits = sorted({int(width) for width in np.unique(policies)} | {FLOAT_BITS})
    table = cost_table(run.layers, hardware, bits=bits, activation_bits=run.activation_bits())
    rows = np.full((len(policies), len(table.names)), FLOAT_BITS, dtype=np.uint8)
    for column, name in enumerate(names):
        rows[:, table.names.index(name)] = policies[:, column]
    return table.score(rows, objectives=OBJECTIVES)


def trace_config(config: TrainConfig) -> list[LayerShape]:
    """The workload of the network that a config trains, before it is trained."""
    from stripes_sim import trace
    from waveq.train.run import make_dataset, make_network

    dataset = make_dataset(config)
    return trace(make_network(config, dataset), (dataset.channels, *dataset.size))


def training_costs(
    layers: Sequence[LayerShape], hardware: Accelerator, objective: str, *, inputs: bool = False
) -> dict[str, dict[int, float]] | dict[str, dict[int, dict[int, float]]]:
    """What each layer costs by bits, as `waveq.attach` takes it for ``layer_costs``.

    Args:
        layers: the workload.
        hardware: the machine.
        objective: "energy_pj", "cycles", ...
        inputs: whether bits of inputs are learned too: the cost is then by bits of both, 16 being floating point.
    """
    from stripes_sim import cost_table

    weights = range(1, 10)
    if not inputs:
        return cost_table(layers, hardware, bits=weights).by_layer(objective)
    return cost_table(layers, hardware, bits=weights, activation_bits=(*range(1, 9), FLOAT_BITS)).by_layer(objective)


def result_data(result: Result) -> dict[str, Any]:
    """A score as plain data: totals, one row a layer, savings with their baselines named."""
    return {
        "what": result.title,
        "totals": result.score,
        "seconds": result.seconds,
        "savings": [
            {
                "baseline": saving.baseline,
                "speedup": saving.speedup,
                "energy_ratio": saving.energy_ratio,
                "energy_saving": saving.energy_saving,
            }
            for saving in result.savings
        ],
        "notes": list(result.notes),
        "layers": result.frame.to_dict("records"),
    }

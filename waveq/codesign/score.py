"""What policies of a run cost on an accelerator: one scored in detail, thousands in a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from waveq.method.operand_names import input_name
from waveq.train.trained_run import FLOAT_BITS, TrainedRun

if TYPE_CHECKING:
    from stripes_sim import Accelerator, LayerShape, Result
    from waveq.train.config import TrainConfig

__all__ = ["OBJECTIVES", "price_policies", "result_data", "score_run", "trace_config", "training_costs"]

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
        names: what the policies give bits to: layers, all others of which count `FLOAT_BITS`, and inputs
            ("conv1 (inputs)"), all others of which keep the run's.
        policies: (N, L) uint8 total bits.

    Returns:
        A frame with N rows and the columns of OBJECTIVES.
    """
    from stripes_sim import cost_table

    weights = [name for name in names if name in run.policy]
    inputs = {name: input_name(name) for name in run.policy if input_name(name) in names}
    bits = sorted({int(width) for width in np.unique(policies)} | {FLOAT_BITS})
    column = {name: place for place, name in enumerate(names)}
    streamed = run.activation_bits()
    if not inputs:
        table = cost_table(run.layers, hardware, bits=bits, activation_bits=streamed)
        return table.score(
            _rows(table.names, {n: policies[:, column[n]] for n in weights}, policies), objectives=OBJECTIVES
        )
    pairs = cost_table(run.layers, hardware, bits=bits, activation_bits=sorted({*bits, *streamed.values()}))
    own = {name: np.full(len(policies), streamed[name]) for name in pairs.names}
    varied = {name: policies[:, column[operand]] for name, operand in inputs.items()}
    return pairs.score(
        _rows(pairs.names, {name: policies[:, column[name]] for name in weights}, policies),
        _rows(pairs.names, own | varied, policies),
        objectives=OBJECTIVES,
    )


def _rows(
    names: Sequence[str], given: Mapping[str, npt.NDArray[Any]], policies: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    """(N, number of names); what nobody gives counts `FLOAT_BITS`."""
    rows = np.full((len(policies), len(names)), FLOAT_BITS, dtype=np.uint8)
    for place, name in enumerate(names):
        if name in given:
            rows[:, place] = given[name]
    return rows


def trace_config(config: TrainConfig) -> list[LayerShape]:
    """The workload of the network that a config trains, before it is trained."""
    from stripes_sim import trace
    from waveq.train.run import make_dataset, make_network

    dataset = make_dataset(config)
    return trace(make_network(config, dataset), dataset.shape)


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

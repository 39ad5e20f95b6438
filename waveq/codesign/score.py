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
    from stripes_sim import Accelerator, CostTable, LayerShape, PairCostTable, Result
    from waveq.train.config import TrainConfig

__all__ = [
    "OBJECTIVES",
    "layer_energies",
    "price_policies",
    "result_data",
    "score_run",
    "trace_config",
    "training_costs",
]

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
    weights = [name for name in names if name in run.policy]
    inputs = _inputs(run, names)
    column = {name: place for place, name in enumerate(names)}
    streamed = run.activation_bits()
    if not inputs:
        table = _weights_table(run, hardware, policies)
        return table.score(
            _rows(table.names, {n: policies[:, column[n]] for n in weights}, policies), objectives=OBJECTIVES
        )
    pairs = _pairs_table(run, hardware, policies)
    own = {name: np.full(len(policies), streamed[name]) for name in pairs.names}
    varied = {name: policies[:, column[operand]] for name, operand in inputs.items()}
    return pairs.score(
        _rows(pairs.names, {name: policies[:, column[name]] for name in weights}, policies),
        _rows(pairs.names, own | varied, policies),
        objectives=OBJECTIVES,
    )


def layer_energies(
    run: TrainedRun, hardware: Accelerator, names: Sequence[str], policies: npt.NDArray[np.uint8]
) -> list[dict[str, Any]]:
    """What each layer adds to the energy that `price_policies` gives, as plain data for JSON.

    Returns:
        For each layer its name; weights and inputs, the columns that give it bits, or None; and energy_pj, by bits of
        the weights, and in there by bits of the inputs where these have a column: a number where nothing is left to
        choose.
    """
    inputs, streamed = _inputs(run, names), run.activation_bits()
    by_layer: dict[str, Any] = (
        _pairs_table(run, hardware, policies) if inputs else _weights_table(run, hardware, policies)
    ).by_layer("energy_pj")
    found = []
    for name, by_bits in by_layer.items():
        if inputs and name not in inputs:
            by_bits = {bits: by_input[streamed[name]] for bits, by_input in by_bits.items()}
        varied = name in run.policy and name in names
        energy = by_bits if varied else by_bits[FLOAT_BITS]
        found.append(
            {"layer": name, "weights": name if varied else None, "inputs": inputs.get(name), "energy_pj": energy}
        )
    return found


def _inputs(run: TrainedRun, names: Sequence[str]) -> dict[str, str]:
    return {name: input_name(name) for name in run.policy if input_name(name) in names}


def _widths(policies: npt.NDArray[np.uint8]) -> list[int]:
    return sorted({int(width) for width in np.unique(policies)} | {FLOAT_BITS})


def _weights_table(run: TrainedRun, hardware: Accelerator, policies: npt.NDArray[np.uint8]) -> CostTable:
    from stripes_sim import cost_table

    return cost_table(run.layers, hardware, bits=_widths(policies), activation_bits=run.activation_bits())


def _pairs_table(run: TrainedRun, hardware: Accelerator, policies: npt.NDArray[np.uint8]) -> PairCostTable:
    from stripes_sim import cost_table

    bits = _widths(policies)
    streamed = sorted({*bits, *run.activation_bits().values()})
    return cost_table(run.layers, hardware, bits=bits, activation_bits=streamed)


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
    from waveq.train.materials import make_dataset, make_network

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

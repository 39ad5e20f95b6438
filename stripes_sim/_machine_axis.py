"""Many machines at once: their numbers as one more axis of the arrays that all formulas are made of."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from stripes_sim._packed import Floats, Ints
from stripes_sim.costs import LEVELS, layer_costs
from stripes_sim.dataflows import dataflow_named
from stripes_sim.energy import area_mm2
from stripes_sim.layers import LayerShape
from stripes_sim.parameters import Parameters

__all__ = ["machine_totals", "side_by_side"]


def side_by_side(base: Parameters, numbers: Mapping[str, Sequence[Any]]) -> Parameters:
    """``base`` with arrays of shape (M, 1, 1) in place of some of its numbers; they are not checked here.

    >>> side_by_side(Parameters(), {"tiles": (1, 4)}).lane_count.ravel().tolist()
    [4096.0, 16384.0]
    """
    machines = copy.copy(base)
    for key, values in numbers.items():
        # float64 as all counts are: a product of them never wraps around
        object.__setattr__(machines, key, np.array(values, dtype=np.float64).reshape(-1, 1, 1))
    return machines


def machine_totals(
    hw: Parameters, layers: Sequence[LayerShape], weight_bits: Ints, activation_bits: Ints, batch: int, machines: int
) -> dict[str, npt.NDArray[Any]]:
    """Totals over layers as `stripes_sim.Result` has them, each of shape (M, P).

    Args:
        hw: M machines side by side, or one.
        layers: the workload.
        weight_bits: (L, P) int64, a column a policy.
        activation_bits: (L, 1) int64.
        batch: samples in one run.
        machines: M.
    """
    costs = layer_costs(hw, layers, weight_bits, activation_bits, batch=batch)
    shape = (machines, len(layers), weight_bits.shape[1])

    def by_layer(values: Floats | Ints) -> npt.NDArray[Any]:
        # layers last and without gaps, so that sums are taken in the order in which a single run takes them
        return np.ascontiguousarray(np.moveaxis(np.broadcast_to(values, shape), 1, 2))

    cycles, bound = by_layer(costs.cycles), by_layer(costs.bound)
    total = cycles.sum(axis=-1)
    waited = [np.where(bound == level, cycles, 0.0).sum(axis=-1) for level in range(len(LEVELS))]
    stationary = np.where(costs.work.matmul, activation_bits, weight_bits)
    busy = dataflow_named(hw.serial).lane_cycles(hw, batch * costs.work.macs, stationary, activation_bits)
    lanes = np.reshape(np.asarray(hw.lane_count, dtype=np.float64), (-1, 1))
    seconds = total / np.reshape(hw.clock_hz, (-1, 1))
    return {
        "cycles": total,
        "compute_cycles": _sum(by_layer(costs.array.compute_cycles)),
        "seconds": seconds,
        "energy_pj": by_layer(costs.total_pj).sum(axis=-1),
        "utilisation": np.minimum(by_layer(busy).sum(axis=-1) / (lanes * np.maximum(total, 1.0)), 1.0),
        "area_mm2": np.broadcast_to(np.reshape(area_mm2(hw)["total"], (-1, 1)), total.shape),
        "bound": np.argmax(waited, axis=0),
    }


def _sum(counts: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Exact sums over layers, Python's integers where they leave int64."""
    fits = counts.astype(np.float64).sum(axis=-1).max() < 2.0**62
    return np.asarray(counts.sum(axis=-1) if fits else counts.astype(object).sum(axis=-1))

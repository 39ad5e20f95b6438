"""From a workload, a machine and bits to costs: the one place where cycles, traffic and energy meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stripes_sim._packed import Ints, Packed, pack
from stripes_sim.dataflows import ArrayWork, dataflow_named
from stripes_sim.dataflows.base import Floats
from stripes_sim.energy import buffer_pj_per_bit, dram_pj_per_bit, leakage_w
from stripes_sim.layers import LayerShape
from stripes_sim.memory import Traffic, memory_cycles, traffic
from stripes_sim.parameters import Parameters

__all__ = ["LEVELS", "PARTS", "LayerCosts", "layer_costs"]

LEVELS = ("compute", "weight buffer", "activation buffer", "DRAM")
PARTS = ("compute", "weight_buffer", "activation_buffer", "dram", "leakage")


@dataclass(frozen=True, kw_only=True)
class LayerCosts:
    """All costs of all layers for all bits, arrays of shape (L, B).

    ``cycles`` is the slowest of the array and the memory levels, ``bound`` the index of that one in LEVELS.
    ``energy_pj`` has one array for each of PARTS.
    """

    work: Packed
    array: ArrayWork
    moved: Traffic
    cycles: Floats
    bound: Ints
    energy_pj: dict[str, Floats]

    @property
    def total_pj(self) -> Floats:
        """Sum over the parts."""
        return np.asarray(sum(self.energy_pj.values()), dtype=np.float64)


def layer_costs(
    hw: Parameters, layers: Sequence[LayerShape], weight_bits: Ints, activation_bits: Ints, *, batch: int = 1
) -> LayerCosts:
    """Costs for checked bits that broadcast to (L, B); ``weight_bits`` of a matmul or lookup are not looked at."""
    work = pack(layers)
    stationary = np.where(work.matmul | work.embedding, activation_bits, weight_bits)
    stationary, streamed = np.broadcast_arrays(stationary, activation_bits)
    dataflow = dataflow_named(hw.serial)
    array = dataflow.array_work(work, hw, stationary, streamed, batch)
    moved = traffic(work, hw, array, stationary, streamed, batch)
    levels = np.stack([array.compute_cycles.astype(np.float64), *memory_cycles(hw, moved).values()])
    cycles = levels.max(axis=0)
    read_pj, write_pj = buffer_pj_per_bit(hw, "read"), buffer_pj_per_bit(hw, "write")
    energy = {
        "compute": batch * work.macs * dataflow.mac_pj(hw, stationary.astype(np.float64), streamed.astype(np.float64)),
        # what comes from DRAM is written into its buffer once
        "weight_buffer": moved.weight_buffer_bits * read_pj + moved.dram_weight_bits * write_pj,
        "activation_buffer": moved.activation_read_bits * read_pj + moved.activation_write_bits * write_pj,
        "dram": (moved.dram_read_bits + moved.dram_write_bits) * dram_pj_per_bit(hw),
        "leakage": cycles / hw.clock_hz * leakage_w(hw) * 1e12,
    }
    return LayerCosts(work=work, array=array, moved=moved, cycles=cycles, bound=levels.argmax(axis=0), energy_pj=energy)

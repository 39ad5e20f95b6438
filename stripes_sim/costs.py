"""From a workload, a machine and bits to costs: the one place where cycles, traffic and energy meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stripes_sim._packed import Ints, Packed, pack
from stripes_sim.dataflows import ArrayWork, Sensed, dataflow_named
from stripes_sim.dataflows.base import Floats
from stripes_sim.energy import buffer_pj_per_bit, dram_pj_per_bit, leakage_w
from stripes_sim.layers import LayerShape
from stripes_sim.memory import Traffic, memory_cycles, traffic
from stripes_sim.parameters import Parameters
from stripes_sim.values import Values

__all__ = ["LEVELS", "PARTS", "LayerCosts", "layer_costs"]

LEVELS = ("compute", "weight buffer", "activation buffer", "DRAM")
PARTS = ("compute", "weight_buffer", "activation_buffer", "dram", "leakage")
# float64 holds every whole number below it; beyond it costs would be rounded
_EXACT = 2.0**53
_COUNTED = {
    "compute_cycles": "array cycles",
    "scheduled_pes": "PE slots with work",
    "idle_pes": "idle PE slots",
    "dram_weight_reads": "weight reads from DRAM",
    "buffer_weight_reads": "weight buffer reads",
}


@dataclass(frozen=True, kw_only=True)
class LayerCosts:
    """All costs of all layers for all bits, arrays of shape (L, B).

    ``stationary_bits`` are those of the weights, of a product's second operand and of a table. ``cycles`` is the
    slowest of the array and the memory levels, ``bound`` the index of that one in LEVELS. ``energy_pj`` has one array
    for each of PARTS.
    """

    work: Packed
    stationary_bits: Ints
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
    hw: Parameters,
    layers: Sequence[LayerShape],
    weight_bits: Ints,
    activation_bits: Ints,
    *,
    batch: int = 1,
    cache_bits: int | None = None,
    values: Values | None = None,
) -> LayerCosts:
    """Costs for checked bits that broadcast to (L, B); ``weight_bits`` of a matmul or lookup are not looked at.

    ``cache_bits`` are those of a product's operand that was stored before the run, by default its activation bits. With
    ``values`` bits are (L, 1) and the dataflow is one that looks at them.

    Numbers of ``hw`` may be arrays of shape (M, 1, 1) where its dataflow ``broadcasts``: M machines at once, and costs
    of shape (M, L, B) or what broadcasts to it.

    Raises:
        ValueError: a count that integers of float64 cannot hold exactly, with the layer; or what the array refuses.
    """
    work = pack(layers)
    stationary = np.where(work.matmul | work.embedding, activation_bits, weight_bits)
    if cache_bits is not None:
        stationary = np.where(work.matmul & (work.stored_before > 0), cache_bits, stationary)
    stationary, streamed = np.broadcast_arrays(stationary, activation_bits)
    dataflow = dataflow_named(hw.serial)
    _refuse(work, "multiply-accumulates", batch * work.macs, 2.0**63)
    if values is None:
        array = _integers(work, dataflow.array_work(work, hw, stationary, streamed, batch))
    else:
        assert isinstance(dataflow, Sensed)  # checked where the values were
        array = _integers(work, dataflow.sensed_work(layers, values, work, hw, stationary, streamed, batch))
    moved = traffic(work, hw, array, stationary, streamed, batch)
    computing = np.ceil(array.compute_cycles * moved.tails)
    levels = np.stack(np.broadcast_arrays(computing, *memory_cycles(hw, moved).values()))
    cycles = levels.max(axis=0)
    read_pj, write_pj = buffer_pj_per_bit(hw, "read"), buffer_pj_per_bit(hw, "write")
    energy = {
        "compute": batch * work.macs * _mac_pj(hw, array, stationary.astype(np.float64), streamed.astype(np.float64)),
        # what comes from DRAM is written into its buffer once
        "weight_buffer": moved.weight_buffer_bits * read_pj + moved.dram_weight_bits * write_pj,
        "activation_buffer": moved.activation_read_bits * read_pj + moved.activation_write_bits * write_pj,
        "dram": (moved.dram_read_bits + moved.dram_write_bits) * dram_pj_per_bit(hw),
        "leakage": cycles / hw.clock_hz * leakage_w(hw) * 1e12,
    }
    return LayerCosts(
        work=work,
        stationary_bits=stationary,
        array=array,
        moved=moved,
        cycles=cycles,
        bound=levels.argmax(axis=0),
        energy_pj=energy,
    )


def _mac_pj(hw: Parameters, array: ArrayWork, weight_bits: Floats, activation_bits: Floats) -> Floats:
    dataflow = dataflow_named(hw.serial)
    if array.cycles_per_mac is not None and isinstance(dataflow, Sensed):
        return array.cycles_per_mac * dataflow.cycle_pj(hw, weight_bits, activation_bits)
    return dataflow.mac_pj(hw, weight_bits, activation_bits)


def _integers(work: Packed, array: ArrayWork) -> ArrayWork:
    """The array's counts as int64, each exact, or refused."""
    counted: dict[str, Any] = {field: _integer(work, what, getattr(array, field)) for field, what in _COUNTED.items()}
    return replace(array, **counted)


def _integer(work: Packed, what: str, counts: Floats | Ints) -> Ints:
    _refuse(work, what, counts, _EXACT)
    return np.asarray(counts, dtype=np.int64)


def _refuse(work: Packed, what: str, counts: Floats | Ints, limit: float) -> None:
    beyond = ~(counts < limit)
    if beyond.any():
        at = tuple(np.argwhere(beyond)[0])
        raise ValueError(
            f"layer {work.names[at[-2]]!r}: {counts[at]:.3g} {what} are more than can be counted exactly "
            f"({limit:.3g}); divide its sizes, its copies or the batch"
        )

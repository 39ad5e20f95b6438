"""From a workload, a machine and bits to costs: the one place where cycles, traffic and energy meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stripes_sim._packed import Ints, Packed, pack
from stripes_sim.bits import resolve_bits, streamed_bits
from stripes_sim.cycles import ArrayWork, array_work
from stripes_sim.energy import buffer_pj_per_bit, dram_pj_per_bit, leakage_w, mac_pj
from stripes_sim.layers import LayerShape
from stripes_sim.memory import Traffic, memory_cycles, traffic

if TYPE_CHECKING:
    from stripes_sim.hardware import Accelerator
    from stripes_sim.result import Result

__all__ = ["LayerCosts", "layer_costs", "simulate"]

Floats = npt.NDArray[np.float64]
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
    hw: Accelerator, layers: Sequence[LayerShape], weight_bits: Ints, activation_bits: Ints, *, batch: int = 1
) -> LayerCosts:
    """Costs for checked bits that broadcast to (L, B); ``weight_bits`` of a matmul or lookup are not looked at."""
    work = pack(layers)
    stationary = np.where(work.matmul | work.embedding, activation_bits, weight_bits)
    stationary, streamed = np.broadcast_arrays(stationary, activation_bits)
    array = array_work(work, hw, stationary, streamed, batch)
    moved = traffic(work, hw, array, stationary, streamed, batch)
    levels = np.stack([array.compute_cycles.astype(np.float64), *memory_cycles(hw, moved).values()])
    cycles = levels.max(axis=0)
    read_pj, write_pj = buffer_pj_per_bit(hw, "read"), buffer_pj_per_bit(hw, "write")
    energy = {
        "compute": batch * work.macs * mac_pj(hw, stationary.astype(np.float64), streamed.astype(np.float64)),
        # what comes from DRAM is written into its buffer once
        "weight_buffer": moved.weight_buffer_bits * read_pj + moved.dram_weight_bits * write_pj,
        "activation_buffer": moved.activation_read_bits * read_pj + moved.activation_write_bits * write_pj,
        "dram": (moved.dram_read_bits + moved.dram_write_bits) * dram_pj_per_bit(hw),
        "leakage": cycles / hw.clock_hz * leakage_w(hw) * 1e12,
    }
    return LayerCosts(work=work, array=array, moved=moved, cycles=cycles, bound=levels.argmax(axis=0), energy_pj=energy)


def simulate(
    hw: Accelerator,
    layers: Sequence[LayerShape],
    weight_bits: int | Mapping[str, int],
    activation_bits: int | Mapping[str, int] = 16,
    *,
    batch: int = 1,
    default_bits: int | None = None,
) -> Result:
    """`Accelerator.run`; see there."""
    from stripes_sim.result import Result

    if isinstance(batch, bool) or not hasattr(batch, "__index__") or batch < 1:
        raise ValueError(f"batch must be a whole number of samples, at least 1, but it is {batch!r}")
    pack(layers)
    weighted = [layer.name for layer in layers if layer.has_weights]
    bits = dict(
        zip(
            weighted,
            resolve_bits(weighted, weight_bits, argument="weight_bits", default_bits=default_bits),
            strict=True,
        )
    )
    activation = streamed_bits(layers, activation_bits, default_bits=default_bits)[:, None]
    weight = np.array([[bits.get(layer.name, 1)] for layer in layers], dtype=np.int64)
    costs = layer_costs(hw, layers, weight, activation, batch=int(batch))
    return Result(
        hardware=hw, layers=tuple(layers), weight_bits=weight, activation_bits=activation, batch=int(batch), costs=costs
    )

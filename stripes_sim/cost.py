"""Costs tabulated once per layer and bits, then added up for as many policies as wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn, overload

import numpy as np
import numpy.typing as npt
import pandas as pd

from stripes_sim.bits import MAX_BITS, MIN_BITS, checked_batch, nearest, resolve_bits, streamed_bits
from stripes_sim.costs import layer_costs
from stripes_sim.layers import LayerShape
from stripes_sim.pair_cost import PairCostTable
from stripes_sim.parameters import Parameters
from stripes_sim.scoring import totals

__all__ = ["OBJECTIVES", "CostTable", "cost_table"]

Floats = npt.NDArray[np.float64]
OBJECTIVES = ("cycles", "energy_pj", "compute_cycles", "weight_bytes")


@dataclass(frozen=True, kw_only=True)
class CostTable:
    """What every layer costs at every number of bits.

    Attributes:
        names: the L layers that a policy gives bits to, in order; the columns of ``policies`` in `score`.
        bits: the B numbers of bits, ascending.
        costs: one (L, B) float64 array per objective: "cycles" (with memory), "energy_pj", "compute_cycles",
            "weight_bytes". Each is also an attribute: ``table.energy_pj``.
        fixed: per objective, what the layers without weights cost (attention's products, lookups).
        hardware: name of the machine.
    """

    names: tuple[str, ...]
    bits: tuple[int, ...]
    costs: Mapping[str, Floats]
    fixed: Mapping[str, float]
    hardware: str

    @property
    def cycles(self) -> Floats:
        """(L, B) cycles with memory."""
        return self.costs["cycles"]

    @property
    def energy_pj(self) -> Floats:
        """(L, B) energy."""
        return self.costs["energy_pj"]

    @property
    def compute_cycles(self) -> Floats:
        """(L, B) cycles of the array alone."""
        return self.costs["compute_cycles"]

    @property
    def weight_bytes(self) -> Floats:
        """(L, B) size of the stored weights."""
        return self.costs["weight_bytes"]

    def score(
        self, policies: npt.ArrayLike, *, objectives: Sequence[str] = ("cycles", "energy_pj", "weight_bytes")
    ) -> pd.DataFrame:
        """Totals of many policies.

        Args:
            policies: (N, L) bits, uint8 for speed; columns in the order of ``names``.
            objectives: any of OBJECTIVES.

        Returns:
            A frame with N rows and one float64 column per objective.

        Raises:
            ValueError: a wrong shape, an unknown objective, or bits that are not in the table (with row and layer).

        >>> from stripes_sim import LayerShape, Stripes, cost_table
        >>> fc = LayerShape(name="fc", kind="linear", in_channels=512, out_channels=256)
        >>> cost_table([fc], Stripes()).score([[2], [8]], objectives=["compute_cycles"])["compute_cycles"].tolist()
        [4.0, 16.0]
        """
        for objective in objectives:
            self.check_objective(objective)
        block = self._policies(policies)
        columns = totals(
            block, self.bits, [self.costs[key] for key in objectives], [self.fixed[key] for key in objectives]
        )
        if columns is None:
            self.refuse(block)
        # each column is its own contiguous array already: pandas need not copy them into one block
        return pd.DataFrame(dict(zip(objectives, columns, strict=True)), copy=False)

    def score_one(self, policy: Mapping[str, int] | int) -> dict[str, float]:
        """Totals of one policy by layer name (or one int), as a plain dict over OBJECTIVES."""
        bits = resolve_bits(self.names, policy, argument="policy")
        index = self._index(bits[None, :])[0]
        rows = np.arange(len(self.names))
        return {key: float(self.costs[key][rows, index].sum()) + self.fixed[key] for key in OBJECTIVES}

    def policy_array(self, policies: Sequence[Mapping[str, int]]) -> npt.NDArray[np.uint8]:
        """Mappings as the (N, L) uint8 array that `score` takes."""
        rows = [resolve_bits(self.names, policy, argument="policy") for policy in policies]
        return np.array(rows, dtype=np.uint8).reshape(len(rows), len(self.names))

    def marginal(self, objective: str = "energy_pj", *, from_bits: int | None = None) -> dict[str, float]:
        """What one more bit of each layer costs: the mean slope over the table, or the step from ``from_bits``.

        >>> from stripes_sim import LayerShape, Stripes, cost_table
        >>> fc = LayerShape(name="fc", kind="linear", in_channels=512, out_channels=256)
        >>> cost_table([fc], Stripes()).marginal("compute_cycles")
        {'fc': 2.0}
        """
        self.check_objective(objective)
        costs = self.costs[objective]
        if from_bits is None:
            if len(self.bits) < 2:
                raise ValueError(f"one more bit has no price in a table of one column (bits={self.bits})")
            slopes = (costs[:, -1] - costs[:, 0]) / (self.bits[-1] - self.bits[0])
        else:
            for bits in (from_bits, from_bits + 1):
                if bits not in self.bits:
                    raise ValueError(f"from_bits={from_bits} needs {bits} bits in the table, which has {self.bits}")
            slopes = costs[:, self.bits.index(from_bits + 1)] - costs[:, self.bits.index(from_bits)]
        return {name: float(slope) for name, slope in zip(self.names, slopes, strict=True)}

    def by_layer(self, objective: str = "energy_pj") -> dict[str, dict[int, float]]:
        """The table of one objective as plain data: layer -> bits -> cost, what `waveq` takes as ``layer_costs``."""
        self.check_objective(objective)
        return {
            name: dict(zip(self.bits, row, strict=True))
            for name, row in zip(self.names, self.costs[objective].tolist(), strict=True)
        }

    def to_frame(self) -> pd.DataFrame:
        """The whole table in long form: name, bits and one column per objective; for CSV files and other tools."""
        columns = {key: values.ravel() for key, values in self.costs.items()}
        index = {"name": np.repeat(self.names, len(self.bits)), "bits": np.tile(self.bits, len(self.names))}
        return pd.DataFrame({**index, **columns})

    def check_objective(self, objective: str) -> None:
        """Raise ValueError unless the table has it."""
        if objective not in self.costs:
            raise ValueError(
                f"objective must be one of {OBJECTIVES}, but it is {objective!r}{nearest(objective, OBJECTIVES)}"
            )

    def _policies(self, policies: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        block = np.asarray(policies)
        if block.ndim != 2 or block.shape[1] != len(self.names):
            raise ValueError(
                f"policies must have shape (N, {len(self.names)}), one column per layer of the table, "
                f"but it has shape {block.shape}"
            )
        if block.dtype == np.uint8:
            return np.ascontiguousarray(block)
        if block.size and not np.issubdtype(block.dtype, np.integer):
            raise TypeError(f"policies must be integers (uint8), but the array holds {block.dtype}")
        if block.size and (block.min() < 0 or block.max() > 255):
            self.refuse(block)
        return np.ascontiguousarray(block, dtype=np.uint8)

    def _index(self, block: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        index = np.searchsorted(self.bits, block).clip(max=len(self.bits) - 1)
        if (np.asarray(self.bits)[index] != block).any():
            self.refuse(block)
        return np.asarray(index, dtype=np.int64)

    def refuse(self, block: npt.NDArray[np.integer]) -> NoReturn:
        """Name the first entry of ``block`` that is not in the table."""
        row, column = np.argwhere(~np.isin(block, self.bits))[0]
        raise ValueError(
            f"row {row} of policies gives layer {self.names[column]!r} {block[row, column]} bits, "
            f"but the table has {self.bits}"
        )


@overload
def cost_table(
    layers: Sequence[LayerShape],
    hardware: Parameters,
    bits: Sequence[int] = ...,
    *,
    activation_bits: int | Mapping[str, int] = ...,
    batch: int = ...,
) -> CostTable: ...
@overload
def cost_table(
    layers: Sequence[LayerShape],
    hardware: Parameters,
    bits: Sequence[int] = ...,
    *,
    activation_bits: Sequence[int],
    batch: int = ...,
) -> PairCostTable: ...
def cost_table(
    layers: Sequence[LayerShape],
    hardware: Parameters,
    bits: Sequence[int] = range(2, 9),
    *,
    activation_bits: int | Mapping[str, int] | Sequence[int] = 16,
    batch: int = 1,
) -> CostTable | PairCostTable:
    """Tabulate ``hardware.run`` over layers and weight bits, and over bits of inputs where several are given.

    Args:
        layers: the workload; layers that share a name share their bits, and their costs are added.
        hardware: the machine.
        bits: the numbers of weight bits to tabulate, each 1 to 16.
        activation_bits: as in `Accelerator.run`; or several numbers, an axis of the table (``range(2, 9)``). Layers
            without weights then stay at 16.
        batch: as in `Accelerator.run`.

    Raises:
        ValueError, TypeError: as in `Accelerator.run`.

    >>> from stripes_sim import LayerShape, Loom, Stripes
    >>> fc = LayerShape(name="fc", kind="linear", in_channels=512, out_channels=256)
    >>> cost_table([fc], Stripes(), bits=(2, 4, 8)).compute_cycles
    array([[ 4.,  8., 16.]])
    >>> cost_table([fc], Loom(), bits=(2, 4), activation_bits=(2, 4)).compute_cycles
    array([[[ 65.,  67.],
            [129., 131.]]])
    """
    choices = _choices(bits, "bits")
    names = list(dict.fromkeys(layer.name for layer in layers if layer.has_weights))
    if not names:
        raise ValueError("no layer of this workload has weights, so bits change nothing: there is no table to make")
    several = not isinstance(activation_bits, Mapping) and isinstance(activation_bits, Sequence)
    if not several:
        streamed = streamed_bits(layers, activation_bits)[:, None]  # type: ignore[arg-type]
        costs, fixed = _tabulated(layers, hardware, np.array([choices]), streamed, batch)
        return CostTable(names=tuple(names), bits=choices, costs=costs, fixed=fixed, hardware=hardware.name)
    columns = _choices(activation_bits, "activation_bits")  # type: ignore[arg-type]
    weights, inputs = (axis.reshape(1, -1) for axis in np.meshgrid(choices, columns, indexing="ij"))
    weighted = np.array([[layer.has_weights] for layer in layers])
    flat, fixed = _tabulated(layers, hardware, weights, np.where(weighted, inputs, MAX_BITS), batch)
    shape = (len(names), len(choices), len(columns))
    return PairCostTable(
        names=tuple(names),
        bits=choices,
        activation_bits=columns,
        costs={key: values.reshape(shape) for key, values in flat.items()},
        fixed=fixed,
        hardware=hardware.name,
    )


def _choices(bits: Sequence[int], argument: str) -> tuple[int, ...]:
    choices = sorted({int(resolve_bits([argument], value, argument=argument)[0]) for value in bits})
    if not choices:
        raise ValueError(f"{argument} must name at least one number from {MIN_BITS} to {MAX_BITS}, but it is empty")
    return tuple(choices)


def _tabulated(
    layers: Sequence[LayerShape],
    hardware: Parameters,
    weight_bits: npt.NDArray[np.int64],
    activation_bits: npt.NDArray[np.int64],
    batch: int,
) -> tuple[dict[str, Floats], dict[str, float]]:
    """Costs by objective, (L, B), of the names with weights, and the sums of the layers without.

    Args:
        layers: the workload.
        hardware: the machine.
        weight_bits: (1, B).
        activation_bits: broadcastable to (number of layers, B).
        batch: inputs at once.
    """
    costs = layer_costs(hardware, layers, weight_bits, activation_bits, batch=checked_batch(batch))
    full = {
        "cycles": costs.cycles,
        "energy_pj": costs.total_pj,
        "compute_cycles": costs.array.compute_cycles.astype(np.float64),
        "weight_bytes": costs.moved.weight_bytes,
    }
    shape = (len(layers), weight_bits.shape[1])
    row_of: dict[str, int] = {}
    for layer in layers:
        if layer.has_weights:
            row_of.setdefault(layer.name, len(row_of))
    owner = np.array([row_of[layer.name] if layer.has_weights else len(row_of) for layer in layers])
    tables, fixed = {}, {}
    for key, values in full.items():
        summed = np.zeros((len(row_of) + 1, shape[1]))
        np.add.at(summed, owner, np.broadcast_to(values, shape))
        tables[key], fixed[key] = summed[:-1], float(summed[-1, 0])
    return tables, fixed

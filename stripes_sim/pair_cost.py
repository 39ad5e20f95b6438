"""Costs by the bits of both operands: one table, layer x weight bits x input bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

__all__ = ["PairCostTable"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PairCostTable:
    """What every layer costs at every pair of bits.

    Attributes:
        names: the L layers that a policy gives bits to, in order.
        bits: the B numbers of weight bits, ascending.
        activation_bits: the A numbers of input bits, ascending.
        costs: one (L, B, A) float64 array per objective, as in `CostTable`. Each is also an attribute.
        fixed: per objective, what the layers without weights cost.
        hardware: name of the machine.
    """

    names: tuple[str, ...]
    bits: tuple[int, ...]
    activation_bits: tuple[int, ...]
    costs: Mapping[str, Floats]
    fixed: Mapping[str, float]
    hardware: str

    @property
    def cycles(self) -> Floats:
        """(L, B, A) cycles with memory."""
        return self.costs["cycles"]

    @property
    def energy_pj(self) -> Floats:
        """(L, B, A) energy."""
        return self.costs["energy_pj"]

    @property
    def compute_cycles(self) -> Floats:
        """(L, B, A) cycles of the array alone."""
        return self.costs["compute_cycles"]

    @property
    def weight_bytes(self) -> Floats:
        """(L, B, A) size of the stored weights."""
        return self.costs["weight_bytes"]

    def score(
        self,
        policies: npt.ArrayLike,
        inputs: npt.ArrayLike,
        *,
        objectives: Sequence[str] = ("cycles", "energy_pj", "weight_bytes"),
    ) -> pd.DataFrame:
        """Totals of many policies.

        Args:
            policies: (N, L) weight bits; columns in the order of ``names``.
            inputs: (N, L) input bits.
            objectives: any of those in ``costs``.

        Returns:
            A frame with N rows and one float64 column per objective.

        Raises:
            ValueError: a wrong shape, an unknown objective, or bits that are not in the table (with row and layer).

        >>> from stripes_sim import LayerShape, Loom, cost_table
        >>> fc = LayerShape(name="fc", kind="linear", in_channels=512, out_channels=256)
        >>> table = cost_table([fc], Loom(), bits=(2, 4), activation_bits=(2, 4))
        >>> table.score([[2], [4]], [[2], [4]], objectives=["compute_cycles"])["compute_cycles"].tolist()
        [65.0, 131.0]
        """
        rows = self._places(policies, self.bits, "policies")
        columns = self._places(inputs, self.activation_bits, "inputs")
        if len(rows) != len(columns):
            raise ValueError(
                f"policies and inputs must have as many rows, but they have {len(rows)} and {len(columns)}"
            )
        layer = np.arange(len(self.names))
        return pd.DataFrame(
            {key: self._of(key)[layer, rows, columns].sum(axis=1) + self.fixed[key] for key in objectives}
        )

    def by_layer(self, objective: str = "energy_pj") -> dict[str, dict[int, dict[int, float]]]:
        """One objective as plain data: layer -> weight bits -> input bits -> cost, ``waveq``'s ``layer_costs``."""
        return {
            name: {
                bits: dict(zip(self.activation_bits, row, strict=True))
                for bits, row in zip(self.bits, rows, strict=True)
            }
            for name, rows in zip(self.names, self._of(objective).tolist(), strict=True)
        }

    def to_frame(self) -> pd.DataFrame:
        """The whole table in long form: name, bits, activation_bits and one column per objective."""
        index = pd.MultiIndex.from_product(
            [self.names, self.bits, self.activation_bits], names=["name", "bits", "activation_bits"]
        )
        return pd.DataFrame({key: values.ravel() for key, values in self.costs.items()}, index=index).reset_index()

    def _of(self, objective: str) -> Floats:
        if objective not in self.costs:
            raise ValueError(f"objective must be one of {tuple(self.costs)}, but it is {objective!r}")
        return self.costs[objective]

    def _places(self, block: npt.ArrayLike, known: tuple[int, ...], argument: str) -> npt.NDArray[np.int64]:
        given = np.asarray(block)
        if given.ndim != 2 or given.shape[1] != len(self.names):
            raise ValueError(
                f"{argument} must have shape (N, {len(self.names)}), one column per layer of the table, "
                f"but it has shape {given.shape}"
            )
        places = np.searchsorted(known, given).clip(max=len(known) - 1)
        wrong = np.asarray(known)[places] != given
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise ValueError(
                f"row {row} of {argument} gives layer {self.names[column]!r} {given[row, column]} bits, "
                f"but the table has {known}"
            )
        return np.asarray(places, dtype=np.int64)

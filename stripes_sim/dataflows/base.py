"""What a way of computing must answer: the questions that the rest of the simulator asks, and nothing more."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from stripes_sim._packed import Ints, Packed
from stripes_sim.parameters import Parameters

__all__ = ["ArrayWork", "Dataflow", "Floats", "ceil_div", "power_of_two"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ArrayWork:
    """What the array does for each layer, whole numbers of the broadcast shape (L, B), float64 or int64.

    ``passes``: how often one copy's weights travel from their buffer; ``filter_steps``: how often its activations do.
    ``scheduled_pes``, ``idle_pes``: PE slots with and without work, idle tiles not counted.
    ``dram_weight_reads``, ``buffer_weight_reads``: DNNsim's counters, 64-bit blocks and buffer accesses (0 where a
    dataflow does not keep them). ``cycles_per_mac``: of one lane on the real values, float64, where those were given.
    """

    compute_cycles: Floats
    scheduled_pes: Floats
    idle_pes: Floats
    passes: Floats
    filter_steps: Floats
    dram_weight_reads: Floats
    buffer_weight_reads: Floats
    cycles_per_mac: Floats | None = None


class Dataflow(ABC):
    """One way of computing. It holds no state: the machine is an argument of every answer.

    In all of them ``hw`` is the machine; ``weight_bits`` and ``activation_bits`` are bits that broadcast to (L, B),
    where a product of two activations has its stationary operand's bits in ``weight_bits``.

    Attributes:
        name: what a machine's ``serial`` says to choose it.
        title: what results print behind the machine's name, such as "bit-parallel".
        broadcasts: whether the numbers of ``hw`` may be arrays of shape (M, 1, 1), for M machines at once. Answers that
            use NumPy's operators alone do; one that branches on a number does not.
        options: parameters that only some dataflows have, and this one does.
        assumes: what of its energy and area no figure of its paper shows; results name it.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    broadcasts: ClassVar[bool] = False
    options: ClassVar[frozenset[str]] = frozenset()
    assumes: ClassVar[tuple[str, ...]] = ()

    def check(self, hw: Parameters) -> None:
        """Raise ValueError, naming parameter and value, where ``hw`` makes no such machine; by default all do."""
        return

    @abstractmethod
    def array_work(
        self, work: Packed, hw: Parameters, weight_bits: Ints, activation_bits: Ints, batch: int
    ) -> ArrayWork:
        """Cycles, PE slots and reads of every layer.

        Args:
            work: the workload, columns of shape (L, 1), counts as float64: a product of them never wraps around.
            hw: the machine.
            weight_bits, activation_bits: int64, both of shape (L, B).
            batch: samples in one run.

        Raises:
            ValueError: bits that the array cannot hold, with the layer.
        """

    def at_once(self, hw: Parameters, weight_bits: Ints, activation_bits: Ints) -> tuple[Floats, Floats, Floats]:
        """Windows, channels and filters that a step of the array works on, broadcastable to (L, B), float64.

        A tile of a cut layer that is no multiple of them leaves lanes idle (`stripes_sim.mapping`).
        """
        return tuple(np.asarray(1.0 * size) for size in (hw.columns, hw.lanes, hw.rows * hw.tiles))  # type: ignore[return-value]

    @abstractmethod
    def lane_cycles(self, hw: Parameters, macs: Floats, weight_bits: Ints, activation_bits: Ints) -> Floats:
        """Cycles of one lane that so many multiply-accumulates take when nothing is idle, float64."""

    @abstractmethod
    def mac_pj(self, hw: Parameters, weight_bits: Floats, activation_bits: Floats) -> Floats:
        """Energy of one multiply-accumulate, float64 in pJ. Tails cost time and leakage only: idle lanes are gated."""

    @abstractmethod
    def array_mm2(self, hw: Parameters) -> float:
        """Area of all lanes, square millimetres at the machine's node."""


def ceil_div(numerator: Floats | Ints | float, denominator: Floats | Ints | float) -> Floats:
    """Ceiling of a quotient of positive whole numbers, float64.

    It is exact while the numerator is below 2^53: a quotient that is no whole number k is at least 1 / denominator
    away from it, which is more than half a step of float64 at k.

    >>> ceil_div(np.array([8, 9]), 4).tolist()
    [2.0, 3.0]
    """
    return np.asarray(np.ceil(np.true_divide(numerator, denominator)), dtype=np.float64)


def power_of_two(bits: Ints) -> Ints:
    """The smallest power of two that is at least ``bits``.

    >>> power_of_two(np.array([1, 3, 8])).tolist()
    [1, 4, 8]
    """
    return np.asarray(2 ** np.ceil(np.log2(bits)), dtype=np.int64)

"""Run a tape for many policies as a walk over the tree of their prefixes: what two neighbours share is run once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from waveq.evaluate.prefix.tape import Segment, Tape
from waveq.evaluate.weights import Policies

__all__ = ["PolicyTree", "PreparedWeights", "grow_tree", "walk"]


@dataclass(frozen=True)
class PolicyTree:
    """Policies in lexicographic order, the network's first layer leading.

    Attributes:
        rows: (N, P) total bits by position of the tape.
        index: (N,) which of the given policies a row is.
        fresh: (N,) the first position in which a row differs from the one before; P where it repeats that.
    """

    rows: Policies
    index: npt.NDArray[np.int64]
    fresh: npt.NDArray[np.int64]

    def families(self) -> list[tuple[int, int]]:
        """(start, stop) of the runs of rows that agree in all positions but the last."""
        starts = np.flatnonzero(self.fresh < self.rows.shape[1] - 1).tolist()
        starts = sorted({0, *starts}) if len(self.rows) else []
        return list(zip(starts, [*starts[1:], len(self.rows)], strict=True))


def grow_tree(policies: Policies, order: tuple[int, ...]) -> PolicyTree:
    """Sort policies (N, L) by the layers in the network's order, and find what neighbours share.

    Example:
        >>> tree = grow_tree(np.array([[2, 3], [2, 2], [4, 2]], dtype=np.uint8), (0, 1))
        >>> tree.rows.tolist(), tree.index.tolist(), tree.fresh.tolist()
        ([[2, 2], [2, 3], [4, 2]], [1, 0, 2], [0, 1, 0])
    """
    columns = policies[:, list(order)]
    index = np.lexsort(columns.T[::-1]) if order else np.arange(len(policies))
    rows = columns[index]
    differs = np.ones((len(rows), len(order) + 1), dtype=bool)  # the last column stands for "nowhere"
    differs[1:, :-1] = rows[1:] != rows[:-1]
    return PolicyTree(rows, index, differs.argmax(axis=1))


class PreparedWeights:
    """What the tape makes of each layer's weight at each number of bits, computed once.

    Args:
        tape: the tape.
        weight: (index of the layer, total bits) -> its quantised weight.
        rows: the policies, by position of the tape.
    """

    def __init__(self, tape: Tape, weight: Callable[[int, int], Tensor], rows: Policies) -> None:
        self._done = {
            (place, int(bits)): dict(zip(step.outputs, step.run(weight(tape.order[place], int(bits))), strict=True))
            for place, step in enumerate(tape.prepare)
            for bits in np.unique(rows[:, place])
        }

    def __call__(self, place: int, bits: int) -> dict[str, Tensor]:
        """Names and values for one position of the tape."""
        return self._done[place, bits]


def walk(tape: Tape, tree: PolicyTree, prepared: PreparedWeights, x: Tensor) -> Iterator[tuple[int, Tensor]]:
    """(index of a policy, its scores (samples, classes)) for one batch, in the order of the tree.

    Alive at any time: one set of values per position (the present path), and what one segment needs while it runs.

    Args:
        tape: recorded for the shape of x.
        tree: the policies.
        prepared: their weights.
        x: the batch.
    """
    values = {tape.data: x}
    _run(tape.start, values)
    rows, index, fresh = tree.rows.tolist(), tree.index.tolist(), tree.fresh.tolist()
    last = len(tape.order) - 1
    for start, stop in tree.families():
        for place in range(fresh[start], last):
            values.update(prepared(place, rows[start][place]))
            _run(tape.segments[place], values)
        bits = [row[last] for row in rows[start:stop]] if last >= 0 else []
        together = _together(tape, prepared, bits, values) if len(set(bits)) > 1 else None
        for leaf in range(start, stop):
            if together is not None:
                yield index[leaf], together[rows[leaf][last]]
                continue
            if fresh[leaf] <= last:
                values.update(prepared(last, rows[leaf][last]))
                _run(tape.segments[last], values)
            yield index[leaf], values[tape.result]


def _together(
    tape: Tape, prepared: PreparedWeights, bits: list[int], values: dict[str, Tensor]
) -> dict[int, Tensor] | None:
    """The last layer at several widths at once, where the tape allows it."""
    if tape.ending is None:
        return None
    last = len(tape.order) - 1
    weights = {b: prepared(last, b)[tape.ending.weight] for b in dict.fromkeys(bits)}
    return tape.ending.scores(values[tape.ending.value], weights)


def _run(segment: Segment, values: dict[str, Tensor]) -> None:
    for name in segment.outputs:  # the value of the former policy is not kept beside the new one
        values.pop(name, None)
    values.update(zip(segment.outputs, segment.run(*[values[name] for name in segment.inputs]), strict=True))

"""All tilings of one layer: which fit on chip, what each moves and how long it takes; tables over cuts and cases.

What decides is said in `stripes_sim.mapping`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
import numpy.typing as npt

from stripes_sim._cuts import Cuts, in_steps
from stripes_sim.dataflows.base import Floats, ceil_div
from stripes_sim.layers import LayerShape

__all__ = ["Case", "Moved", "Way", "fitting"]

_LOOPS = {"weights": "CF", "inputs": "WC", "outputs": "WF"}
"""The loops that change an operand: over windows (W), channels (C) and filters (F)."""


@dataclass(frozen=True)
class Case:
    """One layer under N pairs of bits or machines: columns (N, 1, 1, 1), in front of windows, channels and filters."""

    weights: Floats
    inputs: Floats
    outputs: Floats
    sums: Floats
    calls: Floats
    matrices: Floats
    weight_room: Floats
    input_room: Floats
    output_room: Floats
    shared: Floats
    compute_cycles: Floats
    weight_buffer_cycles: Floats
    activation_bits: Floats
    activation_bits_per_cycle: Floats
    dram_bits_per_cycle: Floats
    burst: Floats
    windows_at_once: Floats
    channels_at_once: Floats
    filters_at_once: Floats


Way = tuple[bool, bool, bool, bool]
"""Whether weights, inputs and sums move again in every turn, and whether inputs that neighbours share do."""


def _ways() -> list[tuple[str, str, str, Way]]:
    """The loops that weights, inputs and outputs are held over, and how they then move, for every order."""
    found: dict[tuple[str, str, str, Way], None] = {}
    for order in permutations("WCF"):
        options = []
        for loops in _LOOPS.values():
            still = next(loop for loop in "WCF" if loop not in loops)
            held = "".join(loop for loop in "WCF" if loop in order[order.index(still) :] and loop in loops)
            options.append([(held, False), ("", True)] if held else [("", False)])
        for weights, inputs, outputs in product(*options):
            way = (weights[1], inputs[1], outputs[1], "W" not in inputs[0])
            found[weights[0], inputs[0], outputs[0], way] = None
    return list(found)


_WAYS = _ways()


def fitting(layer: LayerShape, table: Cuts, case: Case) -> Iterator[tuple[Way, npt.NDArray[np.bool_]]]:
    """For each way of moving, the tiles that fit in some order of the loops, (N, W, C, F)."""
    at_once = {
        "W": table.windows_at_once[:, None, None],
        "I": table.inputs_at_once[:, None, None],
        "C": table.channels[:, None],
        "F": table.filters,
    }
    whole = {"W": table.all_windows, "I": table.all_inputs, "C": table.channels[-1], "F": table.filters[-1]}

    def taken(bits: Floats, loops: str, held: str) -> Floats:
        """Bits of a tile, of the loops that are held whole; exact, as long as counts are."""
        sizes = [whole[loop] if loop.replace("I", "W") in held else at_once[loop] for loop in loops]
        return np.asarray(bits * sizes[0] * sizes[1] / (whole[loops[0]] * whole[loops[1]]))

    left = np.where(at_once["C"] < whole["C"], case.sums, case.outputs)
    shape = (len(case.weights), len(table.tiles), len(table.channels), len(table.filters))
    found: dict[Way, npt.NDArray[np.bool_]] = {}
    for held_weights, held_inputs, held_outputs, way in _WAYS:
        weights = taken(case.weights, "CF", held_weights)
        inputs = taken(case.inputs, "IC", held_inputs)
        outputs = taken(left, "WF", held_outputs)
        beside = np.where(case.shared > 0, outputs, 0.0)
        if layer.kind == "matmul":
            beside, weights = beside + weights, np.zeros(1)
        fits = (inputs + beside <= case.input_room) & (outputs <= case.output_room) & (weights <= case.weight_room)
        found[way] = np.broadcast_to(fits, shape) | found.get(way, False)
    yield from found.items()


class Moved:
    """What moves and how long it takes, for every tile of a layer: (N, W, C, F), or what broadcasts to it."""

    def __init__(self, layer: LayerShape, table: Cuts, case: Case, *, kept: bool) -> None:
        self.layer, self.case = layer, case
        whole_channels, whole_filters = table.channels[-1], table.filters[-1]
        channels, filters = table.channels[:, None], table.filters
        self.turns = table.tiles[:, None, None], ceil_div(whole_channels, channels), ceil_div(whole_filters, filters)
        overlap = np.ones_like(table.tiles) if kept else table.inputs_read / table.all_inputs
        self.overlap = overlap[:, None, None]
        # channels lie together; places follow where all channels are taken
        inputs = np.where(channels < whole_channels, channels, table.input_run[:, None, None] * whole_channels)
        outputs = np.where(filters < whole_filters, filters, table.output_run[:, None, None] * whole_filters)
        self.run_of_weights = channels * filters / (whole_channels * whole_filters)
        self.run_of_inputs = inputs / (table.all_inputs * whole_channels)
        self.run_of_outputs = outputs / (table.all_windows * whole_filters)
        self.outputs = self._in_bursts(case.outputs, self.run_of_outputs)
        self.sums = self._in_bursts(case.sums, self.run_of_outputs)
        weights_fit = case.weights <= (case.input_room if layer.kind == "matmul" else case.weight_room)
        # calls of one matrix are apart: between them it stays only where it fits
        self.fetches = np.where(weights_fit, case.matrices, case.calls)
        self.tails = self._tails(table)

    def by(self, way: Way) -> dict[str, Floats]:
        """The fields of a `Plan`."""
        case, (windows, channels, filters) = self.case, self.turns
        weights = self.fetches * self._in_bursts(case.weights, self.run_of_weights) * (windows if way[0] else 1.0)
        inputs = self._in_bursts(case.inputs, self.run_of_inputs, self.overlap if way[3] else 1.0)
        inputs = case.calls * inputs * (filters if way[1] else 1.0)
        spills = case.calls * (channels - 1) * (self.sums if way[2] else 0.0)
        product_of_two = self.layer.kind == "matmul"
        return {
            "reads": weights + inputs,
            "writes": case.calls * self.outputs,
            "spills": spills,
            "weight_fills": np.zeros_like(weights) if product_of_two else weights,
            "input_fills": inputs + weights if product_of_two else inputs,
            "sums": case.calls * (channels - 1) * case.sums,
            "tails": self.tails,
        }

    def cycles(self, moves: dict[str, Floats]) -> Floats:
        """Those of the slowest level, as `stripes_sim.memory.memory_cycles` counts them."""
        case = self.case
        moved = moves["reads"] + moves["spills"] + (moves["writes"] + moves["spills"])
        # what comes once is in it already
        again = moves["input_fills"] - case.calls * case.inputs
        if self.layer.kind == "matmul":
            again = again - self.fetches * case.weights
        buffer = case.activation_bits + again + 2 * moves["sums"]
        levels = (
            np.ceil(case.compute_cycles * self.tails),
            case.weight_buffer_cycles,
            np.ceil(buffer / case.activation_bits_per_cycle),
            np.ceil(moved / case.dram_bits_per_cycle),
        )
        return np.asarray(np.maximum(np.maximum(levels[0], levels[1]), np.maximum(levels[2], levels[3])))

    def _in_bursts(self, bits: Floats, run: Floats, again: Floats | float = 1.0) -> Floats:
        """Bits that move for one operand, each run of its tiles in whole bursts; never less than all of it once."""
        moved, burst = np.asarray(bits * again), self.case.burst
        if (burst == 1).all():
            return moved
        length = np.maximum(bits * run, 1e-9)
        return np.where(burst == 1, moved, np.maximum(bits, moved * (ceil_div(length, burst) * burst / length)))

    def _tails(self, table: Cuts) -> Floats:
        """Factor on the array's cycles: its steps over the tiles, one after the other, by those over the layer."""
        case, whole = self.case, (table.channels[-1], table.filters[-1])
        channels = in_steps(table.channels[:, None], whole[0], case.channels_at_once) / np.ceil(
            whole[0] / case.channels_at_once
        )
        filters = in_steps(table.filters, whole[1], case.filters_at_once) / np.ceil(whole[1] / case.filters_at_once)
        if not self.layer.is_spatial:  # tokens also come one by one
            return np.asarray(channels * filters)
        sizes, counts = (each[:, :, None, None] for each in table.alike)
        steps = sum(
            counts[:, column] * np.ceil(sizes[:, column] / case.windows_at_once) for column in range(sizes.shape[1])
        )
        return np.asarray(channels * filters * steps / np.ceil(table.all_windows / case.windows_at_once))

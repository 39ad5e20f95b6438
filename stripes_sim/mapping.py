"""The search: how a layer that does not fit on chip is cut into tiles, and in which order they come.

A layer is three loops of tiles, over windows, channels and filters (`stripes_sim._cuts`), in any of six orders. Each
operand has one loop that does not change it: weights the windows, inputs the filters, outputs the channels. When that
loop comes round, what was passed since is read again, or it was held: the tiles of all loops further in. So an order
and what is held in it give

    what each buffer must hold      the largest tile times the loops that are held
    what moves                      every operand once, or once for each turn of the loop that does not change it

and of all that fits the search takes what needs the fewest cycles, then what moves the fewest bits through DRAM, then
the fewest partial sums on chip. Outputs whose channels are cut lie in their buffer as 32-bit sums; their own bits leave
it at the end. The kernel is never cut. Tiles are counted as they are at the borders of the layer; where they are no
multiples of what the array works on at once, the array takes longer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import permutations, product

import numpy as np
import numpy.typing as npt

from stripes_sim._cuts import Cuts, cuts, in_steps
from stripes_sim._packed import Ints, Packed
from stripes_sim.dataflows import dataflow_named
from stripes_sim.dataflows.base import Floats, ceil_div
from stripes_sim.layers import LayerShape
from stripes_sim.operands import Operands, room
from stripes_sim.parameters import Parameters
from stripes_sim.plan import Plan, Tile

__all__ = ["Levels", "searched"]

# tables of so many cases at once stay in the processor's caches
_TOGETHER = 16
_LOOPS = {"weights": "CF", "inputs": "WC", "outputs": "WF"}
"""The loops that change an operand: over windows (W), channels (C) and filters (F)."""


@dataclass(frozen=True)
class Levels:
    """Of each layer, (L, B): cycles of array and weight buffer, bits of the activation buffer before it is cut."""

    compute_cycles: Floats
    weight_buffer_cycles: Floats
    activation_bits: Floats


@dataclass(frozen=True)
class _Case:
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


_Way = tuple[bool, bool, bool, bool]
"""Whether weights, inputs and sums move again in every turn, and whether inputs that neighbours share do."""


def _ways() -> list[tuple[str, str, str, _Way]]:
    """The loops that weights, inputs and outputs are held over, and how they then move, for every order."""
    found: dict[tuple[str, str, str, _Way], None] = {}
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


def searched(
    work: Packed,
    hw: Parameters,
    operand: Operands,
    plan: Plan,
    levels: Levels,
    weight_bits: Ints,
    activation_bits: Ints,
    batch: int,
) -> Plan:
    """``plan`` with the best tiling of every layer that does not fit on chip.

    Args:
        work, hw, batch: the workload, the machine (or several side by side) and the samples in one run.
        operand: what moves, (L, B).
        plan: what moves at least.
        levels: what is known of the cycles.
        weight_bits, activation_bits: (L, B).

    Raises:
        ValueError: no tile of a layer fits.
    """
    columns = _columns(hw, operand, levels, weight_bits, activation_bits)
    binds = ~operand.fits & ~work.embedding
    shape = np.broadcast_shapes(*(values.shape for values in columns.values()), binds.shape)
    binds = np.broadcast_to(binds, shape)
    moves = {key: np.array(np.broadcast_to(getattr(plan, key), shape)) for key in _MOVES}
    tiles: dict[int, Tile] = {}
    for row in np.flatnonzero(binds.any(axis=tuple(axis for axis in range(len(shape)) if axis != len(shape) - 2))):
        here = binds[..., row, :]
        layer, table = work.layers[row], cuts(work.layers[row], batch)
        case = {key: np.broadcast_to(values, shape)[..., row, :][here] for key, values in columns.items()}
        parts = []
        for start in range(0, int(here.sum()), _TOGETHER):
            some = _Case(**{k: v[start : start + _TOGETHER].reshape(-1, 1, 1, 1) for k, v in case.items()})
            parts.append(_best(layer, table, some, kept=hw.halo == "kept", hw=hw))
        for key in _MOVES:
            moves[key][..., row, :][here] = np.concatenate([part[key] for part, _ in parts])
        if here.size == 1:
            tiles[int(row)] = parts[0][1]
    return Plan(tiles=tiles, **moves)


_MOVES = tuple(field.name for field in fields(Plan) if field.name != "tiles")


def _columns(
    hw: Parameters, operand: Operands, levels: Levels, weight_bits: Ints, activation_bits: Ints
) -> dict[str, Floats]:
    there = room(hw)
    windows, channels, filters = dataflow_named(hw.serial).at_once(hw, weight_bits, activation_bits)
    named = {
        **{key: getattr(operand, key) for key in ("weights", "inputs", "outputs", "sums", "calls", "matrices")},
        **vars(levels),
        "weight_room": there.weights,
        "input_room": there.inputs,
        "output_room": there.outputs,
        "shared": there.shared,
        "activation_bits_per_cycle": hw.activation_buffer_bits_per_cycle,
        "dram_bits_per_cycle": 8 * hw.dram_bytes_per_s / hw.clock_hz,
        "burst": hw.dram_burst_bits,
        "windows_at_once": windows,
        "channels_at_once": channels,
        "filters_at_once": filters,
    }
    return {key: np.asarray(values, dtype=np.float64) for key, values in named.items()}


def _best(layer: LayerShape, table: Cuts, case: _Case, *, kept: bool, hw: Parameters) -> tuple[dict[str, Floats], Tile]:
    """What moves under the best tiling of each case, (N,) each, and the tiling of the first."""
    moved = _Moved(layer, table, case, kept=kept)
    cases = len(case.weights)
    best = np.full((3, cases), np.inf)
    chosen = np.zeros(cases, dtype=np.int64)
    ways: list[_Way] = []
    found: dict[str, Floats] = {key: np.zeros(cases) for key in _MOVES}
    for way, fits in _fitting(layer, table, case):
        if not fits.any():
            continue
        ways.append(way)
        moves = {key: np.broadcast_to(values, fits.shape) for key, values in moved.by(way).items()}
        at, rank = _first(
            np.where(fits, moved.cycles(moves), np.inf),
            moves["reads"] + 2 * moves["spills"] + moves["writes"],
            moves["sums"],
        )
        better = _before(rank, best)
        best[:, better] = rank[:, better]
        chosen[better] = (len(ways) - 1) * fits[0].size + at[better]
        for key, values in moves.items():
            found[key][better] = values.reshape(cases, -1)[np.arange(cases), at][better]
    if not np.isfinite(best[0]).all():
        raise ValueError(
            f"layer {layer.name!r}: no tile of it fits the buffers of {hw.name}, not even one window of one channel "
            "and filter; give it larger buffers, or mapping='closed' for a lower bound"
        )
    way, place = divmod(int(chosen[0]), fits[0].size)
    return found, _tile(table, ways[way], *np.unravel_index(place, fits.shape[1:]))


def _first(*keys: Floats) -> tuple[Ints, Floats]:
    """Place of the least of each case, by the first key, then the second and so on, and its keys."""
    rows = np.arange(len(keys[0]))
    flat = [key.reshape(len(rows), -1) for key in keys]
    ranked = flat[0]
    for following in flat[1:]:
        ranked = np.where(ranked == ranked.min(axis=1, keepdims=True), following, np.inf)
    at = ranked.argmin(axis=1)
    return at, np.stack([key[rows, at] for key in flat])


def _before(keys: Floats, others: Floats) -> npt.NDArray[np.bool_]:
    """Which columns of ``keys`` come before those of ``others``, compared row by row from the first."""
    before = np.zeros(keys.shape[1], dtype=bool)
    for key, other in zip(keys[::-1], others[::-1], strict=True):
        before = (key < other) | ((key == other) & before)
    return before


def _tile(table: Cuts, way: _Way, windows: np.intp, channels: np.intp, filters: np.intp) -> Tile:
    turns = {
        "windows": int(table.tiles[windows]),
        "channels": len(range(0, int(table.channels[-1]), int(table.channels[channels]))),
        "filters": len(range(0, int(table.filters[-1]), int(table.filters[filters]))),
    }
    return Tile(
        windows=table.windows[windows],
        channels=int(table.channels[channels]),
        filters=int(table.filters[filters]),
        weights=turns["windows"] if way[0] else 1,
        inputs=turns["filters"] if way[1] else 1,
        sums=turns["channels"] - 1 if way[2] else 0,
    )


def _fitting(layer: LayerShape, table: Cuts, case: _Case) -> Iterator[tuple[_Way, npt.NDArray[np.bool_]]]:
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
    fitting: dict[_Way, npt.NDArray[np.bool_]] = {}
    for held_weights, held_inputs, held_outputs, way in _WAYS:
        weights = taken(case.weights, "CF", held_weights)
        inputs = taken(case.inputs, "IC", held_inputs)
        outputs = taken(left, "WF", held_outputs)
        beside = np.where(case.shared > 0, outputs, 0.0)
        if layer.kind == "matmul":
            beside, weights = beside + weights, np.zeros(1)
        fits = (inputs + beside <= case.input_room) & (outputs <= case.output_room) & (weights <= case.weight_room)
        fitting[way] = np.broadcast_to(fits, shape) | fitting.get(way, False)
    yield from fitting.items()


class _Moved:
    """What moves and how long it takes, for every tile of a layer: (N, W, C, F), or what broadcasts to it."""

    def __init__(self, layer: LayerShape, table: Cuts, case: _Case, *, kept: bool) -> None:
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

    def by(self, way: _Way) -> dict[str, Floats]:
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
        if (self.case.burst == 1).all():
            return np.asarray(bits * again)
        length = np.maximum(bits * run, 1e-9)
        return np.maximum(bits, bits * again * (ceil_div(length, self.case.burst) * self.case.burst / length))

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

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

from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from stripes_sim._cuts import Cuts, cuts
from stripes_sim._packed import Ints, Packed
from stripes_sim._tilings import Case, Moved, Way, fitting
from stripes_sim.dataflows import dataflow_named
from stripes_sim.dataflows.base import Floats
from stripes_sim.layers import LayerShape
from stripes_sim.operands import Operands, room
from stripes_sim.parameters import Parameters
from stripes_sim.plan import Plan, Tile

__all__ = ["Levels", "searched"]

# tables of so many cases at once stay in the processor's caches
_TOGETHER = 16


@dataclass(frozen=True)
class Levels:
    """Of each layer, (L, B): cycles of array and weight buffer, bits of the activation buffer before it is cut."""

    compute_cycles: Floats
    weight_buffer_cycles: Floats
    activation_bits: Floats


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
    known: dict[object, tuple[dict[str, Floats], Tile]] = {}
    for row in np.flatnonzero(binds.any(axis=tuple(axis for axis in range(len(shape)) if axis != len(shape) - 2))):
        here = binds[..., row, :]
        layer = work.layers[row]
        case = {key: np.broadcast_to(values, shape)[..., row, :][here] for key, values in columns.items()}
        # layers of a network are often alike
        alike = replace(layer, name="alike", stored_as=""), *(values.tobytes() for values in case.values())
        if alike not in known:
            known[alike] = _best_of_many(layer, cuts(alike[0], batch), case, hw)
        found, tile = known[alike]
        for key in _MOVES:
            moves[key][..., row, :][here] = found[key]
        if here.size == 1:
            tiles[int(row)] = tile
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


def _best_of_many(
    layer: LayerShape, table: Cuts, case: dict[str, Floats], hw: Parameters
) -> tuple[dict[str, Floats], Tile]:
    """`_best` of cases in columns of shape (N,), a few at a time."""
    parts = []
    for start in range(0, len(case["weights"]), _TOGETHER):
        some = {key: values[start : start + _TOGETHER].reshape(-1, 1, 1, 1) for key, values in case.items()}
        parts.append(_best(layer, table, Case(**some), hw))
    return {key: np.concatenate([part[key] for part, _ in parts]) for key in _MOVES}, parts[0][1]


def _best(layer: LayerShape, table: Cuts, case: Case, hw: Parameters) -> tuple[dict[str, Floats], Tile]:
    """What moves under the best tiling of each case, (N,) each, and the tiling of the first."""
    moved = Moved(layer, table, case, kept=hw.halo == "kept")
    cases = len(case.weights)
    best = np.full((3, cases), np.inf)
    chosen = np.zeros(cases, dtype=np.int64)
    ways: list[Way] = []
    found: dict[str, Floats] = {key: np.zeros(cases) for key in _MOVES}
    for way, fits in fitting(layer, table, case):
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


def _tile(table: Cuts, way: Way, windows: np.intp, channels: np.intp, filters: np.intp) -> Tile:
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

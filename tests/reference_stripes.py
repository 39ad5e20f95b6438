"""Slow twins of stripes_sim: the array stepped through in loops, costs added one policy at a time."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from stripes_sim import Accelerator, LayerShape
from stripes_sim.energy import area_mm2


def step_through(layer: LayerShape, hw: Accelerator, weight_bits: int, activation_bits: int) -> dict[str, int]:
    """Walk over groups, window sets, filter steps and tiles of a convolution; count cycles and PE slots as they pass.

    Written from the description of the tile (Stripes, MICRO 2016), not from the closed form; one sample.
    """
    ab, wb = math.ceil(activation_bits / hw.pe_width_bits), math.ceil(weight_bits / hw.pe_width_bits)
    columns, rows, lanes, tiles = hw.columns // ab, hw.rows // wb, hw.lanes, hw.tiles
    channels, kernel, stride = layer.in_channels, list(layer.kernel_size), list(layer.stride)
    outputs = list(layer.output_size)
    folds = layer.kind == "conv" and channels == 3 and layer.groups == 1 and max(stride) > 1 and hw.space_to_depth
    if folds and set(layer.dilation) == {1}:
        kernel = [math.ceil(k / s) for k, s in zip(kernel, stride, strict=True)]
        channels *= math.prod(stride)
    windows = list(itertools.product(*(range(n) for n in outputs)))
    taps = list(itertools.product(*(range(k) for k in kernel)))
    phases: dict[object, tuple[list[object], list[object]]] = {None: (windows, taps)}
    if layer.kind == "conv_transpose":
        phases = transposed_phases(layer, windows, taps)
    per_group = channels // layer.groups
    if per_group == 1 and channels > 1:
        # diagonal: lane i and row i work on channel i, one tile
        lanes = rows = min(lanes, rows)
        tiles = 1
        groups = [range(i, min(i + rows, layer.out_channels)) for i in range(0, layer.out_channels, rows)]
        lane_steps = 1
    else:
        size = layer.out_channels // layer.groups
        groups = [range(g * size, (g + 1) * size) for g in range(layer.groups)]
        lane_steps = len(range(0, per_group, lanes))
    serial = {
        "weights": min(weight_bits, hw.pe_width_bits),
        "activations": min(activation_bits, hw.pe_width_bits),
        "both": min(weight_bits, hw.pe_width_bits) * math.ceil(min(activation_bits, hw.pe_width_bits) / hw.serial_bits),
        "none": 1,
    }[hw.serial]
    cycles = scheduled = idle = 0
    for filters in groups:
        filter_sets = [filters[i : i + rows] for i in range(0, len(filters), rows)]
        for windows, taps in phases.values():
            for start in range(0, len(windows), columns):
                at_once = windows[start : start + columns]
                for step in range(0, len(filter_sets), tiles):
                    for _ in taps:
                        for _ in range(lane_steps):
                            cycles += serial
                            for tile in filter_sets[step : step + tiles]:
                                busy = len(at_once) * ab * len(tile) * wb
                                scheduled += busy
                                idle += hw.columns * hw.rows - busy
    return {"compute_cycles": cycles, "scheduled_pes": scheduled, "idle_pes": idle}


def transposed_phases(
    layer: LayerShape, outputs: list[tuple[int, ...]], taps: list[tuple[int, ...]]
) -> dict[object, tuple[list[object], list[object]]]:
    """Outputs and taps of each phase, found by asking of every output and every tap whether an input lies between them.

    Inputs are taken to go on beyond their borders, as for the windows of an ordinary convolution.
    """
    phases: dict[object, tuple[list[object], list[object]]] = {}
    for place in outputs:
        meets = [
            tap
            for tap in taps
            if all(
                (o + before - d * t) % s == 0
                for o, t, s, d, before in zip(
                    place, tap, layer.stride, layer.dilation, layer.padding_before, strict=True
                )
            )
        ]
        if meets:
            phases.setdefault(tuple(meets), ([], list(meets)))[0].append(place)
    return phases


def places_met(layer: LayerShape) -> int:
    """Places of a convolution's input that some tap of some window lies on, collected one by one."""
    met = set()
    for window in itertools.product(*(range(n) for n in layer.output_size)):
        for tap in itertools.product(*(range(k) for k in layer.kernel_size)):
            place = tuple(
                o * s + t * d - before
                for o, t, s, d, before in zip(
                    window, tap, layer.stride, layer.dilation, layer.padding_before, strict=True
                )
            )
            if all(0 <= x < size for x, size in zip(place, layer.input_size, strict=True)):
                met.add(place)
    return len(met)


def fully_connected(layer: LayerShape, hw: Accelerator, weight_bits: int, activation_bits: int) -> int:
    """Cycles of one token, the columns followed cycle by cycle."""
    weight, activation = min(weight_bits, hw.pe_width_bits), min(activation_bits, hw.pe_width_bits)
    columns = hw.columns // math.ceil(activation_bits / hw.pe_width_bits)
    rows = hw.rows // math.ceil(weight_bits / hw.pe_width_bits)
    filter_steps = math.ceil(math.ceil(layer.out_channels / rows) / hw.tiles)
    steps = filter_steps * math.ceil(layer.in_channels / hw.lanes)
    if hw.serial == "none":
        return steps
    if hw.serial == "weights":
        # every column takes a step; all advance by one bit plane a cycle, at most pe_width_bits planes in all
        time = 0.0
        left = steps
        while left > 0:
            busy = min(columns, left)
            time += weight * max(1.0, busy / hw.pe_width_bits)
            left -= busy
        return math.ceil(time)
    planes = steps * weight if hw.serial == "both" else steps
    hold = math.ceil(activation / hw.serial_bits) if hw.serial == "both" else activation
    free_at = [0] * columns
    now = end = 0
    for plane in range(planes):
        column = plane % columns
        now = max(now, free_at[column])
        free_at[column] = now + hold
        end = max(end, free_at[column])
        now += 1
    return end


def explored(
    layers: Sequence[LayerShape],
    policy: int | Mapping[str, int],
    base: Accelerator,
    grid: Mapping[str, Sequence[object]],
) -> list[dict[str, object]]:
    """One run after the other on every machine of a grid."""
    rows = []
    for combination in itertools.product(*grid.values()):
        hw = dataclasses.replace(base, **dict(zip(grid, combination, strict=True)))
        result = hw.run(layers, policy)
        rows.append(
            {
                **dict(zip(grid, combination, strict=True)),
                "cycles": result.cycles,
                "compute_cycles": result.compute_cycles,
                "seconds": result.seconds,
                "energy_pj": result.energy_pj,
                "utilisation": result.utilisation,
                "area_mm2": area_mm2(hw)["total"],
                "bound": result.bound,
            }
        )
    return rows


def totals(table: Mapping[str, np.ndarray], bits: Sequence[int], policies: np.ndarray) -> dict[str, np.ndarray]:
    """Vectorised NumPy twin of the compiled scoring: gather, then add."""
    index = np.searchsorted(np.asarray(bits), policies)
    layers = np.arange(policies.shape[1])
    return {key: costs[layers, index].sum(axis=1) for key, costs in table.items()}


def frontier(loss: np.ndarray, cost: np.ndarray) -> list[tuple[float, float]]:
    """All (cost, loss) pairs of the space that no other pair beats, by comparing each with each, without duplicates."""
    points = {
        (
            round(float(sum(cost[layer, bit] for layer, bit in enumerate(choice))), 9),
            round(float(sum(loss[layer, bit] for layer, bit in enumerate(choice))), 9),
        )
        for choice in itertools.product(range(loss.shape[1]), repeat=loss.shape[0])
    }
    return sorted(
        point
        for point in points
        if not any(other != point and other[0] <= point[0] and other[1] <= point[1] for other in points)
    )

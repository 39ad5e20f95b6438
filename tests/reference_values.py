"""Slow twins of the machines that look at values: every lane, column and filter followed in loops.

Written from the description of the walk (groups, sets of windows, filter steps, taps, chunks of channels), not from the
gathered form. Values are Python integers; one sample.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stripes_sim import Accelerator, LayerShape
from tests.reference_stripes import transposed_phases


@dataclass
class Step:
    """Activations of each column lane by lane, and weights of each tile's filters lane by lane."""

    columns: list[list[int]]
    tiles: list[list[list[int]]]


def width(value: int, signed: bool) -> int:
    """Bits of a value, with one for the sign where the layer has one."""
    magnitude = ~value if value < 0 else value
    return max(magnitude.bit_length(), 1) + signed


def group_width(values: list[int], signed: bool, trim: bool) -> int:
    widest = max(width(value, signed) for value in values)
    lowest = min((min(p for p in range(16) if value >> p & 1) for value in values if value), default=0)
    return widest - lowest if trim else widest


def terms(value: int, booth: bool) -> set[int]:
    """Places of the powers of two of a magnitude."""
    number = abs(value)
    if not booth:
        return {place for place in range(17) if number >> place & 1}
    bits = [number >> place & 1 for place in range(18)]
    places: set[int] = set()
    place = 15
    while place >= 0:
        if bits[place] and place >= 2 and bits[place - 1] and bits[place - 2]:
            places.add(place + 1)
            while True:  # the span: each zero is a term, and so is the last one
                ends = bits[place] and (place < 1 or not bits[place - 1]) and (place < 2 or not bits[place - 2])
                if ends or not bits[place]:
                    places.add(place)
                place -= 1
                if ends:
                    break
        else:
            if bits[place]:
                places.add(place)
            place -= 1
    return places


def column_rounds(values: list[int], first_stage_bits: int, booth: bool) -> int:
    lanes = [terms(value, booth) for value in values]
    cycles = 0
    while any(lanes):
        lowest = min(min(lane) for lane in lanes if lane)
        for lane in lanes:
            if lane and min(lane) < lowest + 2**first_stage_bits:
                lane.remove(min(lane))
        cycles += 1
    return max(cycles, 1)


def steps_of(layer: LayerShape, hw: Accelerator, x: np.ndarray, w: np.ndarray | None) -> Iterator[Step]:
    """The steps of a convolution of one sample in the order of the walk; operands fit one PE."""
    if layer.kind == "conv_transpose" and w is not None:
        # (in, out of a group) to (out, in of a group)
        inputs, outputs = layer.in_channels // layer.groups, layer.out_channels // layer.groups
        swapped = np.zeros((layer.out_channels, inputs, *layer.kernel_size), dtype=int)
        for g, i, o in itertools.product(range(layer.groups), range(inputs), range(outputs)):
            swapped[g * outputs + o, i] = w[g * inputs + i, o]
        w = swapped
    fetch, taps, windows, channels = _inputs(layer, hw, x)
    if w is not None and hw.space_to_depth and channels != layer.in_channels:
        w = _folded_kernel(layer, w)
    phases: dict[object, tuple[list, list]] = {None: (windows, taps)}
    if layer.kind == "conv_transpose":
        phases = transposed_phases(layer, windows, taps)
    per_group = channels // layer.groups
    lanes, rows, tiles = hw.lanes, hw.rows, hw.tiles
    depthwise = per_group == 1 and channels > 1
    if depthwise:
        lanes = rows = min(lanes, rows)
        tiles = 1
        groups = [range(i, min(i + rows, layer.out_channels)) for i in range(0, layer.out_channels, rows)]
    else:
        size = layer.out_channels // layer.groups
        groups = [range(g * size, (g + 1) * size) for g in range(layer.groups)]
    for number, filters in enumerate(groups):
        if depthwise:
            chunks = [[f * layer.groups // layer.out_channels for f in filters]]
        else:
            own = list(range(number * per_group, (number + 1) * per_group))
            chunks = [own[i : i + lanes] for i in range(0, per_group, lanes)]
        for some_windows, some_taps in phases.values():
            for start in range(0, len(some_windows), hw.columns):
                for first in range(0, len(filters), rows * tiles):
                    held = filters[first : first + rows * tiles]
                    for tap in some_taps:
                        for chunk in chunks:
                            columns = [
                                [fetch(c, window, tap) for c in chunk]
                                for window in some_windows[start : start + hw.columns]
                            ]
                            by_tile = []
                            for t in range(0, len(held), rows):
                                tile = []
                                for f in held[t : t + rows]:
                                    if w is None:
                                        weights = [0] * len(chunk)
                                    elif depthwise:
                                        weights = [
                                            int(w[f, 0][tap]) if lane == f - filters[0] else 0
                                            for lane in range(len(chunk))
                                        ]
                                    else:
                                        weights = [int(w[f, c - number * per_group][tap]) for c in chunk]
                                    tile.append(weights)
                                by_tile.append(tile)
                            yield Step(columns, by_tile)


def _inputs(layer: LayerShape, hw: Accelerator, x: np.ndarray):
    """A function that fetches an input, taps and windows with the first axis fastest, and the channels."""
    folds = layer.kind == "conv" and layer.in_channels == 3 and layer.groups == 1 and max(layer.stride) > 1
    folds = folds and hw.space_to_depth and set(layer.dilation) == {1}
    kernel = layer.kernel_size
    if folds:
        kernel = tuple(math.ceil(k / s) for k, s in zip(kernel, layer.stride, strict=True))

    def backwards(sizes):
        return [tuple(reversed(place)) for place in itertools.product(*(range(n) for n in reversed(sizes)))]

    def at(channel, place):
        inside = all(0 <= p < size for p, size in zip(place, layer.input_size, strict=True))
        return int(x[(channel, *place)]) if inside else 0

    def fetch(channel, window, tap):
        if folds:  # channel = (channel of the image) + 3 * (place in the square, first axis fastest)
            colour, rest = channel % 3, channel // 3
            place = []
            for o, t, s, before in zip(window, tap, layer.stride, layer.padding_before, strict=True):
                rest, inner = divmod(rest, s)
                place.append((o + t) * s + inner - before)
            return at(colour, place)
        if layer.kind == "conv_transpose":
            sums = [
                o + before - d * t
                for o, t, d, before in zip(window, tap, layer.dilation, layer.padding_before, strict=True)
            ]
            return at(channel, [a // s for a, s in zip(sums, layer.stride, strict=True)])
        place = [
            o * s + t * d - before
            for o, t, s, d, before in zip(window, tap, layer.stride, layer.dilation, layer.padding_before, strict=True)
        ]
        return at(channel, place)

    channels = layer.in_channels * (math.prod(layer.stride) if folds else 1)
    return fetch, backwards(kernel), backwards(layer.output_size), channels


def _folded_kernel(layer: LayerShape, w: np.ndarray) -> np.ndarray:
    sizes = [math.ceil(k / s) for k, s in zip(layer.kernel_size, layer.stride, strict=True)]
    folded = np.zeros((layer.out_channels, 3 * math.prod(layer.stride), *sizes), dtype=int)
    for f, colour in itertools.product(range(layer.out_channels), range(3)):
        for tap in itertools.product(*(range(k) for k in layer.kernel_size)):
            inner, scale = 0, 1
            for t, s in zip(tap, layer.stride, strict=True):
                inner += t % s * scale
                scale *= s
            folded[(f, colour + 3 * inner, *(t // s for t, s in zip(tap, layer.stride, strict=True)))] = w[
                (f, colour, *tap)
            ]
    return folded


def column_costs(step: Step, hw: Accelerator, weight_bits: int, signed: bool, signed_weights: bool) -> list[int]:
    """Cycles of each column (of each group of columns) in one step."""
    if hw.serial == "pragmatic":
        return [column_rounds(column, hw.first_stage_bits, hw.booth) for column in step.columns]
    if hw.serial == "laconic":
        most = 1
        for column in step.columns:
            for tile in step.tiles:
                for weights in tile:
                    for a, b in zip(column, weights, strict=True):
                        most = max(most, len(terms(a, hw.booth)) * len(terms(b, hw.booth)))
        return [most]
    size = hw.group_columns
    groups = [list(itertools.chain(*step.columns[i : i + size])) for i in range(0, len(step.columns), size)]
    widths = [group_width(group, signed, hw.trim_zeros) for group in groups]
    if hw.serial == "dynamic":
        return widths
    planes = weight_bits
    if hw.dynamic_weights:
        planes = 0
        for tile in step.tiles:
            for i in range(0, len(tile), size):
                planes = max(
                    planes, group_width(list(itertools.chain(*tile[i : i + size])), signed_weights, hw.trim_zeros)
                )
    return [math.ceil(max(widths) / hw.serial_bits) * planes]


def convolution(layer: LayerShape, hw: Accelerator, x: np.ndarray, w: np.ndarray | None, weight_bits: int) -> int:
    """Cycles of one sample."""
    signed, signed_weights = bool((x < 0).any()), w is not None and bool((w < 0).any())
    registers = hw.column_registers
    busy: list[int] = [0] * hw.columns
    ends: list[int] = []
    total = 0
    for step in steps_of(layer, hw, x, w):
        costs = column_costs(step, hw, weight_bits, signed, signed_weights)
        if not registers:
            total += max(costs)
            continue
        ready = ends[-1 - registers] if len(ends) > registers else 0
        costs += [0] * (hw.columns - len(costs))
        busy = [max(free, ready) + cost for free, cost in zip(busy, costs, strict=True)]
        ends.append(max(busy))
    return max(busy) if registers else total


def token(layer: LayerShape, hw: Accelerator, x: np.ndarray, w: np.ndarray | None, weight_bits: int) -> int:
    """Cycles of one input vector of a linear layer, followed cycle by cycle."""
    signed, signed_weights = bool((x < 0).any()), w is not None and bool((w < 0).any())
    words = []
    for first in range(0, layer.out_channels, hw.rows * hw.tiles):
        held = range(first, min(first + hw.rows * hw.tiles, layer.out_channels))
        for start in range(0, layer.in_channels, hw.lanes):
            chunk = range(start, min(start + hw.lanes, layer.in_channels))
            tiles = [
                [[0 if w is None else int(w[f, c]) for c in chunk] for f in held[t : t + hw.rows]]
                for t in range(0, len(held), hw.rows)
            ]
            step = Step([[int(x[c]) for c in chunk]], tiles)
            if hw.serial != "both":
                words += column_costs(step, hw, weight_bits, signed, signed_weights)
                continue
            (whole,) = column_costs(step, hw, weight_bits, signed, signed_weights)
            plane = math.ceil(group_width(step.columns[0], signed, hw.trim_zeros) / hw.serial_bits)
            words += [plane] * (whole // plane)
    free_at = [0] * hw.columns
    now = end = 0
    for number, cost in enumerate(words):
        now = max(now, free_at[number % hw.columns])
        free_at[number % hw.columns] = now + cost
        end = max(end, now + cost)
        now += 1
    return end

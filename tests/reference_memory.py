"""Slow twin of the search over tilings: every order of every cut walked tile by tile, buffers as sets of values."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator

import numpy as np

from stripes_sim import Accelerator, LayerShape
from stripes_sim.dataflows import dataflow_named

Place = tuple[int, ...]
Tiles = list[list[Place]]
SUM_BITS = 32
# which of the loops over windows, channels and filters change an operand
CHANGE = {"weights": (1, 2), "inputs": (0, 1), "outputs": (0, 2)}


def best_tiling(
    layer: LayerShape, hw: Accelerator, weight_bits: int, activation_bits: int, batch: int
) -> tuple[float, float]:
    """Fewest cycles of a layer that does not fit on chip, and the fewest bits through DRAM in so many cycles.

    Cycles of array and weight buffer, and what the activation buffer moves at least, are taken from the closed form;
    all that cutting adds is counted here. For packed storage and calls that each have a matrix of their own.
    """
    costs = dataclasses.replace(hw, mapping="closed").run([layer], weight_bits, activation_bits, batch=batch).costs
    buffer_bits = float((costs.moved.activation_read_bits + costs.moved.activation_write_bits)[0, 0])
    weight_cycles = math.ceil(float(costs.moved.weight_buffer_bits[0, 0]) / hw.weight_buffer_bits_per_cycle)
    array_cycles = float(costs.array.compute_cycles[0, 0])
    second = activation_bits if layer.kind == "matmul" else weight_bits
    widths = {
        "weights": second * math.prod(layer.kernel_size),
        "inputs": activation_bits,
        "outputs": activation_bits,
    }
    at_once = _at_once(layer, hw, second, activation_bits)
    calls = layer.groups if layer.is_spatial else layer.copies * (batch if layer.kind == "matmul" else 1)
    best = (math.inf, math.inf)
    for cut in _cuts(layer, batch):
        values = {operand: _values(layer, operand, cut) for operand in CHANGE}
        sizes = [[len(tile) for tile in loop] for loop in cut]
        whole = [sum(loop) for loop in sizes]
        tails = _steps(sizes, at_once) / _steps([[total] for total in whole], at_once)
        array = math.ceil(array_cycles * tails)
        sums = calls * (len(cut[1]) - 1) * whole[0] * whole[2] * SUM_BITS
        for order in itertools.permutations((0, 1, 2)):
            walks = [
                list(_walks(operand, widths[operand], order, [len(loop) for loop in cut], values[operand]))
                for operand in CHANGE
            ]
            for weights, inputs, outputs in itertools.product(*walks):
                if not _fit(layer, hw, weights[0], inputs[0], outputs[0]):
                    continue
                arrived = inputs[1] + (weights[1] if layer.kind == "matmul" else 0)
                once = inputs[2] + (weights[2] if layer.kind == "matmul" else 0)
                dram = calls * (weights[1] + inputs[1] + outputs[1])
                buffer = buffer_bits + calls * (arrived - once) + 2 * sums
                cycles = max(
                    array,
                    weight_cycles,
                    math.ceil(buffer / hw.activation_buffer_bits_per_cycle),
                    math.ceil(dram / (8 * hw.dram_bytes_per_s / hw.clock_hz)),
                )
                best = min(best, (cycles, dram))
    return best


def _at_once(layer: LayerShape, hw: Accelerator, weight_bits: int, activation_bits: int) -> list[float]:
    both = np.array([[weight_bits]]), np.array([[activation_bits]])
    windows, channels, filters = (float(np.max(n)) for n in dataflow_named(hw.serial).at_once(hw, *both))
    return [windows if layer.is_spatial else 1.0, channels, filters]


def _steps(sizes: list[list[int]], at_once: list[float]) -> int:
    return math.prod(sum(math.ceil(size / at) for size in loop) for loop, at in zip(sizes, at_once, strict=True))


def _fit(layer: LayerShape, hw: Accelerator, weights: float, inputs: float, outputs: float) -> bool:
    half = 2 if hw.buffers == "double" else 1
    if layer.kind == "matmul":
        inputs, weights = inputs + weights, 0
    if not hw.output_buffer_bytes:
        inputs, outputs = inputs + outputs, 0
    return (
        weights * half <= 8 * hw.weight_buffer_bytes
        and inputs * half <= 8 * hw.activation_buffer_bytes
        and outputs * half <= 8 * hw.output_buffer_bytes
    )


def _powers(whole: int) -> list[int]:
    return [size for size in (2**power for power in range(40)) if size < whole] + [whole]


def _split(things: list[Place], size: int) -> Tiles:
    return [things[start : start + size] for start in range(0, len(things), size)]


def _cuts(layer: LayerShape, batch: int) -> Iterator[tuple[Tiles, Tiles, Tiles]]:
    """Tiles of windows (sample, places), of channels and of filters, each a list of lists."""
    samples = batch * layer.copies if layer.is_spatial else 1
    axes = layer.output_size if layer.is_spatial else (layer.tokens * (1 if layer.kind == "matmul" else batch),)
    images = list(itertools.product(*map(_powers, axes)))
    loops = [(1, image) for image in images] + [(together, axes) for together in _powers(samples)[1:]]
    channels = [(c,) for c in range(layer.in_channels // layer.groups)]
    filters = [(f,) for f in range(layer.out_channels // layer.groups)]
    for together, image in loops:
        sides = [_split([(n,) for n in range(samples)], together)]
        sides += [_split([(n,) for n in range(length)], size) for length, size in zip(axes, image, strict=True)]
        windows = [[sum(place, ()) for place in itertools.product(*parts)] for parts in itertools.product(*sides)]
        for c, f in itertools.product(_powers(len(channels)), _powers(len(filters))):
            yield windows, _split(channels, c), _split(filters, f)


def _values(layer: LayerShape, operand: str, cut: tuple[Tiles, Tiles, Tiles]) -> dict[Place, frozenset[object]]:
    """What a tile of an operand is made of, by the numbers of the two tiles that it depends on."""
    first, second = (cut[loop] for loop in CHANGE[operand])
    found = {}
    for (m, one), (n, other) in itertools.product(enumerate(first), enumerate(second)):
        places = _met(layer, one) if operand == "inputs" else one
        found[m, n] = frozenset(itertools.product(places, other))
    return found


def _walks(
    operand: str, width: int, order: tuple[int, ...], counts: list[int], values: dict[Place, frozenset[object]]
) -> Iterator[tuple[float, float, float]]:
    """Most bits on chip, bits moved, and bits of the whole operand, for each number of loops that it is held over."""
    kept_width = SUM_BITS if operand == "outputs" and counts[1] > 1 else width
    whole = width * len(frozenset().union(*values.values()))
    for inner in range(4):
        outer = [loop for loop in order[: 3 - inner] if loop in CHANGE[operand]] if inner else CHANGE[operand]
        held: set[object] = set()
        last, most, moved = None, 0, 0
        begun: set[Place] = set()
        for step in itertools.product(*(range(counts[loop]) for loop in order)):
            at = dict(zip(order, step, strict=True))
            where = tuple(at[loop] for loop in outer)
            if where != last:
                held, last = set(), where
            key = tuple(at[loop] for loop in CHANGE[operand])
            missing = len(values[key] - held)
            if operand != "outputs":
                moved += width * missing
            elif key in begun and missing:
                moved += 2 * SUM_BITS * missing
            begun.add(key)
            held |= values[key]
            most = max(most, kept_width * len(held))
        yield most, moved + (whole if operand == "outputs" else 0), whole


def _met(layer: LayerShape, windows: list[Place]) -> set[object]:
    """Input places under the taps of some windows; of a transposed convolution, those whose taps reach the outputs."""
    if not layer.is_spatial:
        return set(windows)
    met: set[object] = set()
    for sample, *window in windows:
        for tap in itertools.product(*(range(k) for k in layer.kernel_size)):
            sides = list(zip(window, tap, layer.stride, layer.dilation, layer.padding_before, strict=True))
            if layer.kind == "conv_transpose":
                if any((o + before - t * d) % s for o, t, s, d, before in sides):
                    continue
                place = tuple((o + before - t * d) // s for o, t, s, d, before in sides)
            else:
                place = tuple(o * s + t * d - before for o, t, s, d, before in sides)
            if all(0 <= x < size for x, size in zip(place, layer.input_size, strict=True)):
                met.add((sample, place))
    return met

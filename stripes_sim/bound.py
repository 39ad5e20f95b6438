"""The closed form: the least that any tiling of a layer can move through DRAM.

One call of a layer has W bits of weights, I of inputs, O of outputs and S of partial sums (outputs of 32 bits). Cut
into n_w windows, n_c channels and n_f filters, its loops can keep still one operand at most: that one moves once, and
fits its buffer in parts. With kW = ceil(W / weight buffer) and so on, it moves O and the least of

    weights still    n_f I + 2 (n_c - 1) S + W      n_f n_c >= kW
    inputs still     n_w W + 2 (n_c - 1) S + I      n_w n_c >= kI
    outputs still    n_f I + n_w W                  n_w n_f >= kS

An order of loops that holds more than that has all of an operand on chip, whose k is 1: then everything moves once.
Numbers of parts are real numbers here, so that each line has its least value in closed form,

    min over n m >= k of a n + b m:    n = sqrt(b k / a), not below 1 or above k,    m = k / n

No tiling moves less (`stripes_sim.mapping` searches for one that comes close); buffers get everything once.
"""

from __future__ import annotations

import numpy as np

from stripes_sim._packed import Packed
from stripes_sim.dataflows.base import Floats, ceil_div
from stripes_sim.operands import Operands, Room
from stripes_sim.plan import Plan

__all__ = ["lower_bound"]


def lower_bound(work: Packed, operand: Operands, room: Room) -> Plan:
    """What moves at least, for operands that broadcast to (L, B)."""
    weights, inputs = operand.weights, operand.inputs
    weight_parts = _parts(weights, np.where(work.matmul, room.inputs, room.weights))
    # calls of one matrix are apart: between them it stays only where it fits
    fetches = np.where(weight_parts > 1, operand.calls, operand.matrices)

    once = operand.calls * inputs + fetches * weights
    cut = ~operand.fits & ~work.embedding & (weight_parts > 1)
    reads, spills = _cut(operand, room, weight_parts) if cut.any() else (once, np.zeros((1, 1)))
    return Plan(
        reads=np.where(cut, reads, once),
        writes=operand.calls * operand.outputs,
        spills=np.where(cut, spills, 0.0),
        weight_fills=np.where(work.matmul, 0.0, fetches * weights),
        input_fills=operand.calls * inputs + np.where(work.matmul, fetches * weights, 0.0),
    )


def _cut(operand: Operands, room: Room, weight_parts: Floats) -> tuple[Floats, Floats]:
    """Bits that are read, and sums that go and come back, in the way that moves least."""
    weights, inputs, sums = operand.weights, operand.inputs, operand.sums
    filters, channels = _least(inputs, 2 * sums, weight_parts)
    weights_still = filters * inputs + weights, (channels - 1) * sums
    windows, channels = _least(weights, 2 * sums, _parts(inputs, room.inputs))
    inputs_still = windows * weights + inputs, (channels - 1) * sums
    filters, windows = _least(inputs, weights, _parts(sums, room.outputs))
    outputs_still = filters * inputs + windows * weights, np.zeros_like(windows)
    ways = (weights_still, inputs_still, outputs_still)
    least = np.argmin(np.stack(np.broadcast_arrays(*(reads + 2 * spills for reads, spills in ways))), axis=0)
    reads, spills = (np.choose(least, [way[part] for way in ways]) for part in (0, 1))
    return operand.calls * reads, operand.calls * spills


def _parts(bits: Floats, room: Floats) -> Floats:
    return np.maximum(ceil_div(bits, room), 1)


def _least(first: Floats, second: Floats, parts: Floats) -> tuple[Floats, Floats]:
    """Real n, m of at least 1 with n m = parts that make first n + second m least."""
    n = np.clip(np.sqrt(second * parts / np.maximum(first, 1e-9)), 1.0, parts)
    return n, parts / n

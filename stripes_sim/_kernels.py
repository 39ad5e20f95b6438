"""Compiled loops over many policies. No checks here: `stripes_sim.scoring` has made them.

Eight layers' bits are one 64-bit word. Less the smallest bits, each byte is a code of 3 (or 4) bits, and two shifts
bring neighbouring codes together, so one lookup serves four (or two) layers:

    bytes        ....0ccc ....0bbb ....            (3-bit codes)
    x | x >> 5   pairs of 6 bits at every 16th bit
    y | y >> 10  quads of 12 bits at every 32nd bit

Tables hold the sums of two objectives side by side, so that both arrive with one cache line.

Bits outside the table are found on the way: a byte below the smallest bits borrows and a byte above the largest carries
into its high bit once ``127 - span`` is added; the bits of both are gathered. Codes are masked, so that no lookup
leaves its table before they are looked at.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stripes_sim._wrapping import load_word, wrapping_loop

__all__ = ["CHUNK", "EACH_BYTE", "HIGH_BITS", "score_pairs", "score_quads"]

CHUNK = 512
EACH_BYTE = np.uint64(0x0101010101010101)
HIGH_BITS = np.uint64(0x8080808080808080)
_SIX_OF_16 = np.uint64(0x003F003F003F003F)
_TWELVE = np.uint64(4095)
_BY_1, _BY_5, _BY_8, _BY_10, _BY_16, _BY_32 = (np.uint64(n) for n in (1, 5, 8, 10, 16, 32))


@wrapping_loop
def score_quads(
    first_chunk: int,
    last_chunk: int,
    count: int,
    flat: Any,
    layers: int,
    low: int,
    high: int,
    table: Any,
    fixed: Any,
    out: Any,
) -> int:
    """Two totals for each policy of some chunks of CHUNK policies: ``fixed`` plus the sum over words of eight layers.

    Args:
        first_chunk, last_chunk: which chunks, the last not included.
        count: how many policies there are, N.
        flat: uint8, policy after policy; eight bytes can be read from the start of every word of every policy. The last
            word reaches into the next policy, where the table has only zeros.
        layers: L.
        low, high: smallest and largest bits of the table, at most 8 choices.
        table: (W, 2, 4096, 2) float64, W = ceil(L / 8): for each word two quads of 3-bit codes.
        fixed: (2,) float64.
        out: (2, N or more) float64, written.

    Returns:
        The number of chunks with bits outside low..high; their rows are not to be used.
    """
    words = table.shape[0]
    sums = table.reshape(-1)
    shift = np.uint64(low) * EACH_BYTE
    too_far = np.uint64(127 - (high - low)) * EACH_BYTE
    step = np.uint64(2 * 4096)
    bad = 0
    for chunk in range(first_chunk, last_chunk):
        start, stop = chunk * CHUNK, min(count, (chunk + 1) * CHUNK)
        strange = np.uint64(0)
        for row in range(start, stop):
            at, base = np.uint64(row * layers), np.uint64(0)
            first, second = fixed[0], fixed[1]
            for _ in range(words):
                x = load_word(flat, at) - shift
                strange |= x | (x + too_far)
                y = (x | (x >> _BY_5)) & _SIX_OF_16
                y |= y >> _BY_10
                a = base + ((y & _TWELVE) << _BY_1)
                b = base + step + (((y >> _BY_32) & _TWELVE) << _BY_1)
                first += sums[a] + sums[b]
                second += sums[a + _BY_1] + sums[b + _BY_1]
                base += step << _BY_1
                at += _BY_8
            out[0, row] = first
            out[1, row] = second
        bad += (strange & HIGH_BITS) != 0
    return bad


@wrapping_loop
def score_pairs(
    first_chunk: int,
    last_chunk: int,
    count: int,
    flat: Any,
    layers: int,
    low: int,
    high: int,
    table: Any,
    fixed: Any,
    out: Any,
) -> int:
    """As `score_quads`, one lookup for two layers: for tables of many layers, or of up to 16 choices of bits.

    ``table`` is (W, 4, 64 or 256, 2): for each word four pairs of codes of 3 or 4 bits.
    """
    words = table.shape[0]
    sums = table.reshape(-1)
    shift = np.uint64(low) * EACH_BYTE
    too_far = np.uint64(127 - (high - low)) * EACH_BYTE
    entries = np.uint64(table.shape[2])
    together = np.uint64(5 if table.shape[2] == 64 else 4)
    bad = 0
    for chunk in range(first_chunk, last_chunk):
        start, stop = chunk * CHUNK, min(count, (chunk + 1) * CHUNK)
        strange = np.uint64(0)
        for row in range(start, stop):
            at, base = np.uint64(row * layers), np.uint64(0)
            first, second = fixed[0], fixed[1]
            for _ in range(words):
                x = load_word(flat, at) - shift
                strange |= x | (x + too_far)
                y = x | (x >> together)
                for _ in range(4):
                    a = base + ((y & (entries - _BY_1)) << _BY_1)
                    first += sums[a]
                    second += sums[a + _BY_1]
                    base += entries << _BY_1
                    y >>= _BY_16
                at += _BY_8
            out[0, row] = first
            out[1, row] = second
        bad += (strange & HIGH_BITS) != 0
    return bad

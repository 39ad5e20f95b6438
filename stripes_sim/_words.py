"""Integers as the words that serial machines see: digits as wide as a PE, precisions, terms."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from stripes_sim._value_kernels import most_terms_of, planes_of

__all__ = ["plane_words", "precisions", "recoded", "term_counts", "term_words"]

Ints = npt.NDArray[np.int64]
Integers = npt.NDArray[np.integer[Any]]


def plane_words(values: Integers, digits: int, width: int, *, signed: bool) -> list[npt.NDArray[np.uint32]]:
    """Words whose bitwise or over a group of values says which bit planes the group needs; one array a digit.

    The low half has a highest set bit where the precision ends: bits of the value, at least one, and one more for the
    sign of two's complement where values are ``signed``. The high half has the planes themselves, so that its
    lowest set bit is the first plane that is not zero throughout. PEs of ``width`` bits hold a wide value digit by
    digit, the lowest first; the highest digit has the sign.

    >>> [int(word) & 0xFFFF for word in plane_words(np.array([0, 5, 8]), 1, 16, signed=False)[0]]
    [1, 5, 9]
    >>> [int(word) & 0xFFFF for word in plane_words(np.array([-4, 3]), 1, 16, signed=True)[0]]
    [6, 6]
    """
    words = []
    for digit in range(digits):
        top = digit == digits - 1
        mask = 0xFFFF if top else (1 << width) - 1
        filled = np.empty(values.shape, dtype=np.uint32)
        planes_of(values.reshape(-1), width * digit, mask, signed and top, filled.reshape(-1))
        words.append(filled)
    return words


def precisions(words: npt.NDArray[np.uint32], *, trim: bool) -> Ints:
    """Bits of groups whose words have been joined; ``trim`` leaves out the planes below the first that is set.

    >>> joined = plane_words(np.array([12]), 1, 16, signed=False)[0]
    >>> precisions(joined, trim=False).tolist(), precisions(joined, trim=True).tolist()
    ([4], [2])
    """
    bits = _bit_length(words & 0xFFFF)
    if not trim:
        return bits
    planes = (words >> 16).astype(np.int64)
    return bits - np.maximum(_bit_length(planes & -planes) - 1, 0)


def _bit_length(numbers: npt.NDArray[np.integer[Any]]) -> Ints:
    return np.frexp(numbers.astype(np.float64))[1].astype(np.int64)  # the exponent of a fraction below 1


def term_words(values: Integers, digits: int, width: int, *, booth: bool) -> list[npt.NDArray[np.uint64]]:
    """The places of the powers of two whose sum or difference is each magnitude; one array a digit, lowest first.

    Terms are the set bits, or those of `recoded` with ``booth``. A term's sign travels beside it and costs no cycle.
    """
    magnitudes = np.abs(values)
    parts = [(magnitudes >> (width * digit)) & ((1 << width) - 1) for digit in range(digits)]
    return [(recoded(part) if booth else part).astype(np.uint64) for part in parts]


def term_counts(values: Integers, digits: int, width: int, *, booth: bool) -> npt.NDArray[np.uint8]:
    """The most terms that any digit of each value has.

    >>> term_counts(np.array([0, 7, -7]), 1, 16, booth=False).tolist()
    [0, 3, 3]
    """
    most = np.empty(values.shape, dtype=np.uint8)
    most_terms_of(values.reshape(-1), digits, width, _terms_by_number(booth), most.reshape(-1))
    return most


@lru_cache
def _terms_by_number(booth: bool) -> npt.NDArray[np.uint8]:
    numbers = np.arange(1 << 16)
    places = recoded(numbers) if booth else numbers
    return sum(places >> place & 1 for place in range(17)).astype(np.uint8)  # type: ignore[union-attr]


def recoded(numbers: Integers) -> Integers:
    """Places of the signed terms of 16-bit numbers, as Bit-Pragmatic and Laconic encode them.

    From the top down, three ones in a row open a span, which is a term above its first place; in it zeros take a term
    each and ones none, until a last one before two zeros takes one and closes it. Shorter runs stay as they are.

    >>> [bin(places) for places in recoded(np.array([0b0111, 0b0110, 0b1110111])).tolist()]
    ['0b1001', '0b110', '0b10001001']
    """
    places, inside = np.zeros_like(numbers), np.zeros_like(numbers)
    padded = numbers << 2
    for place in range(15, -1, -1):
        here, below, next_below = (padded >> (place + shift) & 1 for shift in (2, 1, 0))
        closes = inside & here & ~below & ~next_below & 1
        opens = ~inside & here & below & next_below & 1
        term = np.where(inside == 1, (1 - here) | closes, here & (1 - opens))
        places |= term << place | opens << (place + 1)
        inside = np.where(inside == 1, 1 - closes, opens)
    return places

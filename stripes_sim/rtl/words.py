"""A layout as the words that buffers deliver and the sums that come out, lines of hexadecimal digits each.

The first lane of the first row (column, tile) is at the right end of a word, as in Verilog.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from stripes_sim.rtl.layout import Layout, Product

__all__ = ["activation_words", "hexadecimal", "output_sums", "weight_words"]

Ints = npt.NDArray[np.int64]


def weight_words(layout: Layout) -> Iterator[str]:
    """A word for each bit of each step: all filters of all tiles, once or (not shared) for every column."""
    for product in layout.products:
        filters = _filters(layout, product)  # (filter steps, tiles, rows, depth, lanes)
        if layout.shared:
            steps = filters.transpose(0, 3, 1, 2, 4).reshape(layout.parts, -1)
        else:
            # part s of a token is slice s % depth of filter step s // depth
            parts = filters.transpose(0, 3, 1, 2, 4).reshape(layout.parts, layout.tiles, 1, layout.rows, -1)
            steps = _rounds(layout, parts).transpose(0, 2, 1, 3, 4, 5).reshape(layout.rounds, -1)
        for step in steps:
            for plane in reversed(range(layout.planes)):
                yield hexadecimal(step >> plane & 1, 1)


def activation_words(layout: Layout, width: int) -> Iterator[str]:
    """A word for each step of each window set, or for each round of each token: all columns' lanes."""
    for product in layout.products:
        taken = _taken(product.windows, product.terms)  # (N, depth, lanes)
        if layout.shared:
            sets = _padded(taken, layout.window_sets * layout.columns, axis=0)
            sets = sets.reshape(layout.window_sets, layout.columns, layout.depth, -1).transpose(0, 2, 1, 3)
        else:
            parts = np.tile(taken, (1, layout.filter_steps, 1)).transpose(1, 0, 2)
            sets = _rounds(layout, parts).transpose(2, 0, 1, 3)
        for word in sets.reshape(layout.window_sets * sets.shape[1], -1):
            yield hexadecimal(word, width)


def output_sums(layout: Layout) -> Ints:
    """What the outputs must be: NumPy's matrix product, in the order in which the tiles give them.

    (runs, tiles, columns, rows) where weights are shared, (tokens, filter steps, tiles, rows) where not.
    """
    found = []
    for product in layout.products:
        rows = layout.filter_steps * layout.tiles * layout.rows
        # the tiles that have work in some step are idle in the last one
        sums = _padded(product.windows @ product.filters.T, rows, axis=1)
        if layout.shared:
            sums = _padded(sums, layout.window_sets * layout.columns, axis=0)
            shape = (layout.window_sets, layout.columns, layout.filter_steps, layout.tiles, layout.rows)
            sums = sums.reshape(shape).transpose(0, 2, 3, 1, 4)
        found.append(sums.ravel())
    return np.concatenate(found)


def hexadecimal(values: Ints, width: int) -> str:
    """One word of values of ``width`` bits in two's complement, the first at the right end.

    >>> hexadecimal(np.array([1, -1, 2]), 4)
    '2f1'
    """
    bits = (values.reshape(-1, 1) >> np.arange(width) & 1).astype(np.uint8).ravel()
    digits = -(-len(bits) // 4)
    return np.packbits(bits, bitorder="little")[::-1].tobytes().hex()[-digits:]


def _filters(layout: Layout, product: Product) -> Ints:
    taken = _padded(_taken(product.filters, product.terms), layout.filter_steps * layout.tiles * layout.rows, axis=0)
    return taken.reshape(layout.filter_steps, layout.tiles, layout.rows, layout.depth, -1)


def _rounds(layout: Layout, parts: Ints) -> Ints:
    """(parts, ...) -> (rounds, columns, ...)."""
    padded = _padded(parts, layout.rounds * layout.columns, axis=0)
    return padded.reshape(layout.rounds, layout.columns, *parts.shape[1:])


def _taken(matrix: Ints, terms: Ints) -> Ints:
    """(M, K) -> (M, steps, lanes), 0 where a lane has no term."""
    return np.asarray(np.where(terms < 0, 0, matrix[:, terms]))


def _padded(values: Ints, size: int, axis: int) -> Ints:
    missing = [(0, size - length if number == axis else 0) for number, length in enumerate(values.shape)]
    return np.pad(values, missing)

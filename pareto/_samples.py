"""Which test samples each policy gets right, one bit a sample, in a table of their own beside a store's results.

Older stores have no such table; it is made where one is opened to be added to. Programs that do not know it pass it
over.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pareto._database import refuse_damage

__all__ = ["insert_samples", "make_samples", "packed", "read_samples", "unpacked"]

Bools = npt.NDArray[np.bool_]
Packed = tuple[int, bytes]
"""The number of samples, and their bits, eight a byte."""

_QUERY_ROWS = 500


def packed(correct: Bools) -> list[Packed]:
    """Each row of (n, S) booleans as bits.

    >>> packed(np.array([[True, False, True]]))
    [(3, b'\\xa0')]
    """
    return [(correct.shape[1], row.tobytes()) for row in np.packbits(correct, axis=1)]


def unpacked(rows: Sequence[Packed]) -> Bools:
    """(n, S) booleans; the rows have one number of samples.

    >>> unpacked([(3, b"\\xa0")]).tolist()
    [[True, False, True]]
    """
    samples = rows[0][0]
    bits = np.frombuffer(b"".join(row[1] for row in rows), dtype=np.uint8).reshape(len(rows), -1)
    return np.unpackbits(bits, axis=1, count=samples).view(np.bool_)


def make_samples(connection: sqlite3.Connection) -> None:
    """The table, where there is none."""
    connection.execute(
        "CREATE TABLE IF NOT EXISTS samples (policy BLOB PRIMARY KEY, count INTEGER NOT NULL, correct BLOB NOT NULL, "
        "checksum INTEGER NOT NULL)"
    )


def insert_samples(connection: sqlite3.Connection, entries: Sequence[tuple[Any, ...]], correct: Bools) -> None:
    """Keep the bits of those results (policy, time, checksum, ...) that are in the file as they are given here.

    A policy whose first result stays keeps the bits of that one, or none.
    """
    rows = [
        (entry[0], count, bits, _checksum(entry[0], count, bits), entry[0], entry[2])
        for entry, (count, bits) in zip(entries, packed(correct), strict=True)
    ]
    connection.executemany(
        "INSERT OR IGNORE INTO samples SELECT ?, ?, ?, ? "
        "WHERE EXISTS (SELECT 1 FROM results WHERE policy = ? AND checksum = ?)",
        rows,
    )


def read_samples(connection: sqlite3.Connection, path: Path, keys: Sequence[bytes]) -> Bools | None:
    """(n, S) booleans of these policies; None where one has none, or not as many samples as the others.

    Raises:
        ValueError: bits that are not what was written.
    """
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'samples'").fetchone():
        return None
    found = dict(_read(connection, path, keys))
    if not keys or any(key not in found for key in keys) or len({count for count, _ in found.values()}) > 1:
        return None
    return unpacked([found[key] for key in keys])


def _read(connection: sqlite3.Connection, path: Path, keys: Sequence[bytes]) -> Iterator[tuple[bytes, Packed]]:
    for start in range(0, len(keys), _QUERY_ROWS):
        part = keys[start : start + _QUERY_ROWS]
        marks = ", ".join("?" * len(part))
        query = f"SELECT policy, count, correct, checksum FROM samples WHERE policy IN ({marks})"
        for policy, count, bits, written in connection.execute(query, part):
            if not isinstance(count, int) or not isinstance(bits, bytes) or written != _checksum(policy, count, bits):
                raise refuse_damage(path, f"the samples that policy {list(policy)} gets right are not what was written")
            yield policy, (count, bits)


def _checksum(policy: bytes, count: int, bits: bytes) -> int:
    return zlib.crc32(policy + count.to_bytes(8, "little", signed=True) + bits)

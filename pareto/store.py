"""Results of one campaign in one SQLite file: append-only, safe against kill -9, open to two writers at once.

A campaign is one question asked about many policies: this model, these data, this quantizer, this protocol,
this seed. The fingerprint records the question; a store answers only the question that it was made for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sqlite3
import struct
import time
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from pareto._check import Floats, nearest
from pareto._files import whole
from pareto.space import Policies

__all__ = ["CampaignChangedError", "Store", "array_digest"]

_FORMAT = "pareto campaign 2"
_BUSY_SECONDS = 60.0  # how long one writer waits while another commits
_DAMAGE = (sqlite3.DatabaseError, OverflowError, UnicodeDecodeError)  # of bytes that SQLite did not write so
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_QUERY_ROWS = 500  # SQLite allows at least 999 placeholders in one statement


class CampaignChangedError(ValueError):
    """The store belongs to another campaign; the message lists what differs."""


def array_digest(arrays: Mapping[str, npt.ArrayLike]) -> str:
    """A short hash of named arrays (say, model weights), equal exactly when names, shapes, dtypes and bytes
    are.

    >>> array_digest({"w": [1.0, 2.0]}) == array_digest({"w": np.array([1.0, 2.0])})
    True
    """
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


class Store:
    """Metrics of evaluated policies, kept in a file.

    Every `add` is one transaction in write-ahead-log mode: after a kill at any moment the file holds whole
    transactions only. The file must lie on a local disk (the log is shared memory). Use as a context manager.

    Args:
        path: the SQLite file; made, with its folder, when absent.
        layers: layer names, the columns of every policy array.
        fingerprint: what the results depend on, as plain JSON values: model weights (`array_digest`), data,
            quantizer, protocol, seed, ...
        metrics: the names of what is measured for each policy.

    Raises:
        CampaignChangedError: the file was made for other layers, metrics or another fingerprint.
        ValueError: the file is no such store; a fingerprint that JSON cannot hold.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> with Store(folder.name + "/run.sqlite", layers=["conv", "fc"], fingerprint={"seed": 0}) as store:
    ...     store.add([[2, 3], [2, 4]], [81.5, 82.0])
    ...     store.frame()
    2
       conv  fc  accuracy
    0     2   3      81.5
    1     2   4      82.0
    >>> folder.cleanup()
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        layers: Sequence[str],
        fingerprint: Mapping[str, Any],
        metrics: Sequence[str] = ("accuracy",),
    ) -> None:
        self.path = Path(path)
        self.layers = _names("layers", layers)
        self.metrics = _names("metrics", metrics)
        clash = sorted(set(self.layers) & set(self.metrics))
        if clash:
            raise ValueError(f"metrics and layers both name {clash[0]!r}")
        self._identity = _identity(self.layers, self.metrics, fingerprint)
        self._connection = _connect(self.path)
        try:
            self._create_or_check()
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return int(self._fetch("SELECT count(*) FROM results")[0][0])

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r}, {len(self)} policies, metrics {', '.join(self.metrics)})"

    def close(self) -> None:
        """Let go of the file; further calls raise sqlite3.ProgrammingError."""
        self._connection.close()

    def add(self, policies: npt.ArrayLike, values: npt.ArrayLike) -> int:
        """Record policies (n, L) with their metrics (n,) or (n, M), all or nothing; returns how many were
        new.

        A policy that is already there keeps its first values; a warning says so where the new ones differ,
        because then the evaluation is not reproducible. Raises ValueError for shapes that do not fit and for
        NaN.
        """
        rows = self._rows(policies)
        numbers = np.asarray(values, dtype=np.float64)
        numbers = numbers[:, None] if numbers.ndim == 1 else numbers
        if numbers.shape != (len(rows), len(self.metrics)):
            raise ValueError(
                f"values must have shape ({len(rows)}, {len(self.metrics)}), one row a policy and one "
                f"column for each of {', '.join(self.metrics)}; got {numbers.shape}"
            )
        wrong = np.argwhere(np.isnan(numbers))
        if wrong.size:
            policy = dict(zip(self.layers, rows[wrong[0][0]].tolist(), strict=True))
            raise ValueError(f"{self.metrics[wrong[0][1]]} is NaN for policy {policy}")
        marks = ", ".join("?" * (3 + len(self.metrics)))
        entries = []
        for row, measured in zip(rows, numbers.tolist(), strict=True):
            policy, now = row.tobytes(), time.time()
            entries.append((policy, now, _checksum(policy, now, measured), *measured))
        with self._named(), self._transaction():
            before = self._connection.total_changes
            self._connection.executemany(f"INSERT OR IGNORE INTO results VALUES ({marks})", entries)
            new = self._connection.total_changes - before
        if new < len(rows):
            self._compare(rows, numbers)
        return new

    def known(self, policies: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Which of the policies (n, L) have results by now, those of other writers included."""
        keys = [row.tobytes() for row in self._rows(policies)]
        found: set[bytes] = set()
        for start in range(0, len(keys), _QUERY_ROWS):
            part = keys[start : start + _QUERY_ROWS]
            marks = ", ".join("?" * len(part))
            query = f"SELECT policy FROM results WHERE policy IN ({marks})"
            found.update(row[0] for row in self._fetch(query, part))
        return np.array([key in found for key in keys], dtype=np.bool_)

    def policies(self) -> Policies:
        """All policies with results, (n, L) uint8, in lexicographic order."""
        return self._results()[0]

    def frame(self) -> pd.DataFrame:
        """All results: a uint8 column per layer, a float64 column per metric, in the order of `policies()`."""
        bits, values = self._results()
        frame = pd.DataFrame(bits.copy(), columns=list(self.layers))
        for number, name in enumerate(self.metrics):
            frame[name] = values[:, number].copy()
        frame.attrs["layers"] = list(self.layers)
        return frame

    def export(self, path: str | os.PathLike[str]) -> Path:
        """Write `frame()` to a .csv or .parquet file (replaced whole, never left half-written); returns its
        path.

        In CSV a name that a spreadsheet would take for a formula has a ' before it.

        Parquet needs pyarrow (``pip install 'waveq[parquet]'``).
        """
        target = Path(path)
        if target.suffix not in (".csv", ".parquet"):
            raise ValueError(f"path must end in .csv or .parquet, got {str(target)!r}")
        if target.suffix == ".parquet":
            _need_pyarrow()
        frame = self.frame()
        with whole(target) as draft:
            if target.suffix == ".csv":
                frame.rename(columns=_as_text).to_csv(draft, index=False)
            else:
                frame.to_parquet(draft, index=False)
        return target

    def _rows(self, policies: npt.ArrayLike) -> Policies:
        rows = np.asarray(policies)
        if rows.ndim != 2 or rows.shape[1] != len(self.layers):
            raise ValueError(f"policies must have shape (n, {len(self.layers)}), got {rows.shape}")
        if rows.size and (rows.min() < 0 or rows.max() > 255 or (rows != rows.astype(np.uint8)).any()):
            raise ValueError("policies must hold bit widths that fit uint8")
        return np.ascontiguousarray(rows, dtype=np.uint8)

    def _results(self) -> tuple[Policies, Floats]:
        """All policies (n, L) and their metrics (n, M), each row compared with its checksum: SQLite has none."""
        columns = ", ".join(_quoted(name) for name in self.metrics)
        rows = self._fetch(f"SELECT policy, recorded_at, checksum, {columns} FROM results ORDER BY policy")
        for policy, recorded_at, checksum, *values in rows:
            right = _checksum(policy, recorded_at, values)
            if right is None or checksum != right:
                shown = list(policy) if isinstance(policy, bytes) else policy
                raise ValueError(
                    f"{self.path}: damaged: what it holds of policy {shown} is not what was written; take a copy of "
                    "before, or delete the file, and its policies are evaluated again"
                )
        joined = b"".join(row[0] for row in rows)
        bits = np.frombuffer(joined, dtype=np.uint8).reshape(len(rows), len(self.layers))
        return bits, np.array([row[3:] for row in rows], dtype=np.float64).reshape(len(rows), len(self.metrics))

    def _fetch(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._named():
            return self._connection.execute(query, values).fetchall()

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Whatever is wrong with the file is told with its name."""
        try:
            yield
        except _DAMAGE as error:
            if isinstance(error, sqlite3.ProgrammingError):
                raise  # of the caller: the store is closed
            raise ValueError(f"{self.path} is damaged, or not a campaign store: {error}") from None

    def _create_or_check(self) -> None:
        with self._named(), self._transaction():
            self._connection.execute("CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT)")
            rows = self._connection.execute("SELECT key, value FROM meta").fetchall()
            if not rows:
                self._create()
                return
        stored = dict(rows)
        if stored.get("format") != _FORMAT:
            raise ValueError(f"{self.path} has format {stored.get('format')!r}, this version reads {_FORMAT!r}")
        try:
            identity = json.loads(stored.get("identity", ""))
        except (TypeError, ValueError):
            raise ValueError(f"{self.path}: damaged: it does not say what its results depend on") from None
        differences = _differences(identity, self._identity)
        if differences:
            listed = "\n".join(f"  {line}" for line in differences)
            raise CampaignChangedError(
                f"{self.path} holds {len(self)} results of another campaign; what differs:\n{listed}\n"
                "Results of the two must not mix: give this campaign a file of its own or delete the old."
            )

    def _create(self) -> None:
        columns = ", ".join(f"{_quoted(name)} REAL NOT NULL" for name in self.metrics)
        self._connection.execute(
            "CREATE TABLE results (policy BLOB PRIMARY KEY, recorded_at REAL NOT NULL, checksum INTEGER NOT NULL, "
            f"{columns}) WITHOUT ROWID"
        )
        entries = [("format", _FORMAT), ("identity", json.dumps(self._identity, sort_keys=True))]
        self._connection.executemany("INSERT INTO meta VALUES (?, ?)", entries)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        # IMMEDIATE takes the write lock at once and waits for it; a later upgrade could fail without waiting.
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def _compare(self, rows: Policies, numbers: Floats) -> None:
        columns = ", ".join(_quoted(name) for name in self.metrics)
        query = f"SELECT {columns} FROM results WHERE policy = ?"
        for row, new in zip(rows, numbers, strict=True):
            old = self._fetch(query, (row.tobytes(),))[0]
            if list(old) != new.tolist():
                policy = dict(zip(self.layers, row.tolist(), strict=True))
                warnings.warn(
                    f"policy {policy} was stored as {list(old)} and came out as {new.tolist()} now; "
                    "the first stays. The evaluation is not reproducible, or the fingerprint leaves something out.",
                    stacklevel=3,
                )
                return


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            # Switching to WAL needs the file alone and does not honour the timeout, hence the loop.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")  # a commit survives a power cut too
            return connection
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                connection.close()
                raise ValueError(f"{path} cannot be opened as a campaign store: {error}") from None
            time.sleep(0.02)
        except _DAMAGE as error:
            connection.close()
            raise ValueError(f"{path} is not a campaign store: {error}") from None


def _checksum(policy: Any, recorded_at: Any, values: Sequence[Any]) -> int | None:
    """Of one row; None where its values have not even the types of one."""
    try:
        plain = [value + 0.0 for value in (recorded_at, *values)]  # SQLite makes 0.0 of -0.0
        return zlib.crc32(policy + struct.pack(f"<{len(plain)}d", *plain))
    except (TypeError, struct.error):
        return None


def _names(argument: str, names: Sequence[str]) -> tuple[str, ...]:
    if isinstance(names, str) or not all(isinstance(name, str) and name for name in names) or not len(names):
        raise ValueError(f"{argument} must be a sequence of names, got {names!r}")
    if len(set(names)) != len(names):
        raise ValueError(f"{argument} lists a name twice: {list(names)}")
    return tuple(names)


def _identity(layers: Sequence[str], metrics: Sequence[str], fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(fingerprint, Mapping):
        raise TypeError(f"fingerprint must be a mapping of JSON values, got {type(fingerprint).__name__}")
    try:
        plain = json.loads(json.dumps(dict(fingerprint), sort_keys=True))
    except TypeError as error:
        raise ValueError(f"fingerprint must hold plain JSON values: {error}") from None
    return {"layers": list(layers), "metrics": list(metrics), "fingerprint": plain}


def _differences(stored: Any, now: Any, name: str = "") -> list[str]:
    """One line for each entry of two nested JSON values that differs."""
    if isinstance(stored, dict) and isinstance(now, dict):
        lines = []
        for key in sorted(stored.keys() | now.keys()):
            inner = f"{name}.{key}" if name else key
            if key not in now:
                hint = nearest(key, now) if now else ""
                lines.append(f"{inner}: stored {stored[key]!r}, not given now{hint if 'mean' in hint else ''}")
            elif key not in stored:
                lines.append(f"{inner}: not stored, given now as {now[key]!r}")
            else:
                lines += _differences(stored[key], now[key], inner)
        return lines
    return [] if stored == now else [f"{name}: stored {stored!r}, now {now!r}"]


def _as_text(name: str) -> str:
    return f"'{name}" if _FORMULA.match(name) else name


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _need_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError:
        raise ModuleNotFoundError("writing Parquet needs pyarrow: pip install 'waveq[parquet]'") from None

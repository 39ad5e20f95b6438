"""Results of one campaign in one SQLite file: append-only, safe against kill -9, open to two writers at once.

A campaign is one question asked about many policies: this model, these data, this quantizer, this protocol,
this seed. The fingerprint records the question; a store answers only the question that it was made for.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from pareto._check import Floats
from pareto._database import checksum, named, open_to_read, open_to_write, quoted, refuse_damage
from pareto._files import whole
from pareto._identity import CampaignChangedError, differences, identity_of, names_of
from pareto._policies import MAX_BITS, Policies, policy_rows
from pareto._samples import insert_samples, make_samples, read_samples

__all__ = ["Store"]

_FORMAT = "pareto campaign 3"
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_LOG_SECONDS = 1.0  # for so long what is added may lie in the log beside the file
_QUERY_ROWS = 500  # SQLite allows at least 999 placeholders in one statement


class Store:
    """Metrics of evaluated policies, kept in a file.

    Every `add` is one transaction in write-ahead-log mode: after a kill at any moment the file holds whole
    transactions only, and a copy of it alone has all that is older than a second. The file must lie on a local disk
    (the log is shared memory). Use as a context manager.

    Args:
        path: the SQLite file; made, with its folder, when absent.
        layers: layer names, the columns of every policy array.
        fingerprint: what the results depend on, as plain JSON values: model weights (`array_digest`), data,
            quantizer, protocol, seed, ...
        metrics: the names of what is measured for each policy.
        versions: of the libraries that measure, by name. They are recorded; where results of other ones are in the
            file already, a warning says so.

    Attributes:
        fingerprint: what the results depend on.
        versions: of the libraries that measured, oldest first.

    Raises:
        CampaignChangedError: the file was made for other layers, metrics or another fingerprint.
        ValueError: the file is no such store, or damaged; a fingerprint that JSON cannot hold.

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
        versions: Mapping[str, str] | None = None,
    ) -> None:
        layers, metrics = names_of("layers", layers), names_of("metrics", metrics)
        clash = sorted(set(layers) & set(metrics))
        if clash:
            raise ValueError(f"metrics and layers both name {clash[0]!r}")
        identity = identity_of(layers, metrics, fingerprint)
        self.path = Path(path)
        self._after, self._reads_only, self._checkpointed = contextlib.ExitStack(), False, -np.inf
        self._connection = open_to_write(self.path)
        with self._closed_on_error():
            with named(self.path), self._transaction():
                if not self._fetch("SELECT 1 FROM sqlite_master"):
                    self._create(identity)
            self._check_file()
            with named(self.path), self._transaction():
                make_samples(self._connection)
            lines = differences(self._stored_identity(), identity)
            if lines:
                listed = "\n".join(f"  {line}" for line in lines)
                raise CampaignChangedError(
                    f"{self.path} holds {len(self)} results of another campaign; what differs:\n{listed}\n"
                    "Results of the two must not mix: give this campaign a file of its own or delete the old."
                )
            self._take(identity)
            if versions is not None:
                self._note_versions(dict(versions))

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """Open a file to read, whatever campaign it holds: its layers, metrics and fingerprint are those in it.

        Nothing is added, and a read-only medium will do. Another process may go on adding to it.

        Raises:
            FileNotFoundError: no such file.
            ValueError: no such store, or a damaged one.

        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> with Store(folder.name + "/run.sqlite", layers=["fc"], fingerprint={"seed": 0}) as store:
        ...     _ = store.add([[2]], [81.5])
        >>> with Store.read(folder.name + "/run.sqlite") as store:
        ...     store.layers, store.fingerprint, len(store)
        (('fc',), {'seed': 0}, 1)
        >>> folder.cleanup()
        """
        store = cls.__new__(cls)
        store.path = Path(path)
        store._reads_only = True
        store._connection, store._after = open_to_read(store.path)
        with store._closed_on_error():
            store._check_file()
            store._take(store._stored_identity())
        return store

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
        self._checkpoint(-np.inf)
        self._connection.close()
        self._after.close()

    def add(
        self, policies: npt.ArrayLike, values: npt.ArrayLike, *, correct: npt.NDArray[np.bool_] | None = None
    ) -> int:
        """Record policies (n, L) with their metrics (n,) or (n, M), all or nothing; returns how many were new.

        With them, where given, which of S test samples each policy gets right: (n, S) booleans, kept as bits.

        A policy that is already there keeps its first values; a warning says so where the new ones differ,
        because then the evaluation is not reproducible. A policy that had failed has not any more. Raises ValueError
        for shapes that do not fit and for NaN.
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
        if correct is not None and (correct.dtype != np.bool_ or correct.ndim != 2 or len(correct) != len(rows)):
            raise ValueError(f"correct must be ({len(rows)}, samples) booleans, got {correct.dtype} {correct.shape}")
        marks = ", ".join("?" * (3 + len(self.metrics)))
        entries = []
        for row, measured in zip(rows, numbers.tolist(), strict=True):
            policy, now = row.tobytes(), time.time()
            entries.append((policy, now, checksum(policy, now, measured), *measured))
        with named(self.path), self._transaction():
            before = self._connection.total_changes
            self._connection.executemany(f"INSERT OR IGNORE INTO results VALUES ({marks})", entries)
            new = self._connection.total_changes - before
            if correct is not None:
                insert_samples(self._connection, entries, correct)
            self._connection.executemany("DELETE FROM failures WHERE policy = ?", [(entry[0],) for entry in entries])
        self._checkpoint()
        if new < len(rows):
            self._compare(rows, numbers)
        return new

    def add_failures(self, policies: npt.ArrayLike, reasons: Sequence[str]) -> None:
        """Record policies (n, L) that could not be measured, each with its reason; the last reason stays.

        Raises ValueError where there is not one reason a policy.
        """
        rows = self._rows(policies)
        if len(reasons) != len(rows):
            raise ValueError(f"reasons must be {len(rows)} texts, one a policy, got {len(reasons)}")
        entries = [(row.tobytes(), time.time(), str(reason)) for row, reason in zip(rows, reasons, strict=True)]
        with named(self.path), self._transaction():
            self._connection.executemany("INSERT OR REPLACE INTO failures VALUES (?, ?, ?)", entries)
        self._checkpoint()

    def known(self, policies: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Which of the policies (n, L) have results by now, those of other writers included."""
        return self._among("results", policies)

    def failed(self, policies: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Which of the policies (n, L) are recorded as failed."""
        return self._among("failures", policies)

    def forget_failures(self) -> None:
        """No policy is recorded as failed any more."""
        with named(self.path), self._transaction():
            self._connection.execute("DELETE FROM failures")

    def failures(self) -> pd.DataFrame:
        """What could not be measured: a uint8 column per layer, and the reason, in the order of `policies()`."""
        rows = self._fetch("SELECT policy, reason FROM failures ORDER BY policy")
        frame = pd.DataFrame(self._bits([row[0] for row in rows]).copy(), columns=list(self.layers))
        return frame.assign(reason=pd.Series([str(row[1]) for row in rows], dtype=object))

    def policies(self) -> Policies:
        """All policies with results, (n, L) uint8, in lexicographic order."""
        return self._results()[0]

    def correct(self, policies: npt.ArrayLike) -> npt.NDArray[np.bool_] | None:
        """Which samples each of the policies (n, L) gets right, (n, S); None where that was not kept of all of them."""
        keys = [row.tobytes() for row in self._rows(policies)]
        with named(self.path):
            return read_samples(self._connection, self.path, keys)

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
        return policy_rows(policies, self.layers)

    def _among(self, table: str, policies: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        keys = [row.tobytes() for row in self._rows(policies)]
        found: set[bytes] = set()
        for start in range(0, len(keys), _QUERY_ROWS):
            part = keys[start : start + _QUERY_ROWS]
            marks = ", ".join("?" * len(part))
            found.update(row[0] for row in self._fetch(f"SELECT policy FROM {table} WHERE policy IN ({marks})", part))
        return np.array([key in found for key in keys], dtype=np.bool_)

    def _results(self) -> tuple[Policies, Floats]:
        """All policies (n, L) and their metrics (n, M), each row compared with its checksum: SQLite has none."""
        columns = ", ".join(quoted(name) for name in self.metrics)
        rows = self._fetch(f"SELECT policy, recorded_at, checksum, {columns} FROM results ORDER BY policy")
        for policy, recorded_at, written, *values in rows:
            right = checksum(policy, recorded_at, values)
            if right is None or written != right:
                shown = list(policy) if isinstance(policy, bytes) else policy
                raise refuse_damage(self.path, f"what it holds of policy {shown} is not what was written")
        measured = np.array([row[3:] for row in rows], dtype=np.float64).reshape(len(rows), len(self.metrics))
        return self._bits([row[0] for row in rows]), measured

    def _bits(self, keys: Sequence[Any]) -> Policies:
        """Stored policies as an array; another writer may have put anything there."""
        layers = len(self.layers)
        wrong: list[Any] = [key for key in keys if not isinstance(key, bytes) or len(key) != layers]
        if not wrong:
            bits = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), layers)
            wrong = bits[((bits < 1) | (bits > MAX_BITS)).any(axis=1)].tolist()
        if wrong:
            raise refuse_damage(self.path, f"{wrong[0]} is no policy of {layers} layers")
        return bits

    def _fetch(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with named(self.path):
            return self._connection.execute(query, values).fetchall()

    @contextlib.contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _check_file(self) -> None:
        """Every page is one of SQLite's, and it is a store of this version."""
        found = self._fetch("PRAGMA quick_check(1)")
        if found != [("ok",)]:
            raise refuse_damage(self.path, f"SQLite finds {str(found[0][0]).splitlines()[-1]!r} in it")
        if not self._fetch("SELECT 1 FROM sqlite_master WHERE name = 'meta'"):
            raise ValueError(f"{self.path} is not a campaign store: it has no table 'meta'")
        stored = self._meta().get("format")
        if stored != _FORMAT:
            raise ValueError(f"{self.path} has format {stored!r}, this version reads {_FORMAT!r}")

    def _meta(self) -> dict[Any, Any]:
        return dict(self._fetch("SELECT key, value FROM meta"))

    def _stored_identity(self) -> Any:
        try:
            return json.loads(self._meta().get("identity", ""))
        except (TypeError, ValueError):
            raise refuse_damage(self.path, "it does not say what its results depend on") from None

    def _take(self, identity: Any) -> None:
        """Layers, metrics and fingerprint as attributes."""
        try:
            self.layers = names_of("layers", identity["layers"])
            self.metrics = names_of("metrics", identity["metrics"])
            self.fingerprint: dict[str, Any] = dict(identity["fingerprint"])
        except (KeyError, TypeError, ValueError):
            raise refuse_damage(self.path, "it does not say what its results depend on") from None

    def _create(self, identity: Mapping[str, Any]) -> None:
        columns = ", ".join(f"{quoted(name)} REAL NOT NULL" for name in identity["metrics"])
        self._connection.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT)")
        self._connection.execute(
            "CREATE TABLE results (policy BLOB PRIMARY KEY, recorded_at REAL NOT NULL, checksum INTEGER NOT NULL, "
            f"{columns}) WITHOUT ROWID"
        )
        self._connection.execute(
            "CREATE TABLE failures (policy BLOB PRIMARY KEY, recorded_at REAL NOT NULL, reason TEXT NOT NULL) "
            "WITHOUT ROWID"
        )
        entries = [("format", _FORMAT), ("identity", json.dumps(identity, sort_keys=True)), ("versions", "[]")]
        self._connection.executemany("INSERT INTO meta VALUES (?, ?)", entries)

    @property
    def versions(self) -> list[dict[str, str]]:
        """Of the libraries that measured, oldest first; more than one where they changed in between."""
        try:
            return [dict(entry) for entry in json.loads(self._meta()["versions"])]
        except (KeyError, TypeError, ValueError):
            raise refuse_damage(self.path, "it does not say which versions measured") from None

    def _note_versions(self, now: dict[str, str]) -> None:
        before = self.versions
        if now in before:
            return
        if before and len(self):
            changed = [line.replace("stored", "before") for line in differences(before[-1], now)]
            warnings.warn(
                f"{self.path} has {len(self)} results of other versions ({'; '.join(changed)}); what is measured now "
                "may differ from them in the last digits",
                stacklevel=3,
            )
        kept = [*(before if len(self) else []), now]
        with named(self.path), self._transaction():
            self._connection.execute("UPDATE meta SET value = ? WHERE key = 'versions'", (json.dumps(kept),))

    def _checkpoint(self, after_seconds: float = _LOG_SECONDS) -> None:
        """Move the log into the file, where that was not done for so long: a copy of the file alone then has it all."""
        if self._reads_only or time.monotonic() - self._checkpointed < after_seconds:
            return
        with contextlib.suppress(sqlite3.Error):  # the log stays, and is read as well
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            self._checkpointed = time.monotonic()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        if self._reads_only:
            raise ValueError(f"{self.path} was opened to be read; Store(path, layers=..., fingerprint=...) adds to it")
        # IMMEDIATE takes the write lock at once and waits for it; a later upgrade could fail without waiting.
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def _compare(self, rows: Policies, numbers: Floats) -> None:
        columns = ", ".join(quoted(name) for name in self.metrics)
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


def _as_text(name: str) -> str:
    return f"'{name}" if _FORMULA.match(name) else name


def _need_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "writing Parquet needs pyarrow: pip install 'waveq[parquet]'", name="pyarrow"
        ) from None

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pareto import CampaignChangedError, DesignSpace, Store, array_digest, run_campaign
from tests.pareto.evaluators import Slow, value

SPACE = DesignSpace({"conv": (2, 3, 4, 5, 8), "fc1": (2, 3, 4, 5, 8), "fc2": (2, 3, 4, 5, 8)})
PRINT = {"model": "5be1", "data": "digits", "quantizer": "dorefa", "protocol": {"epochs": 3, "lr": 0.1}, "seed": 1}


def open_store(path, **changes):
    return Store(path, **{"layers": SPACE.names, "fingerprint": PRINT} | changes)


def test_what_goes_in_comes_out_exactly(tmp_path):
    rows = SPACE.policies()[[7, 3, 100]]
    values = np.array([[0.1 + 0.2, 1e-300], [np.inf, -0.0], [91.23456789012345, 3.0]])
    with open_store(tmp_path / "deep" / "run.sqlite", metrics=("accuracy", "loss")) as store:
        assert store.add(rows, values) == 3
    with open_store(tmp_path / "deep" / "run.sqlite", metrics=("accuracy", "loss")) as store:
        frame = store.frame()
        assert len(store) == 3
        np.testing.assert_array_equal(store.policies(), rows[[1, 0, 2]])
        np.testing.assert_array_equal(frame[["accuracy", "loss"]].to_numpy(), values[[1, 0, 2]])
        np.testing.assert_array_equal(store.known(SPACE.policies()).nonzero()[0], [3, 7, 100])


def test_the_first_result_stays_and_a_different_one_is_told(tmp_path):
    with open_store(tmp_path / "run.sqlite") as store:
        assert store.add([[2, 3, 4]], [80.0]) == 1
        assert store.add([[2, 3, 4], [2, 3, 5]], [80.0, 81.0]) == 1
        with pytest.warns(UserWarning, match=r"'fc2': 4\} was stored as \[80.0\] and came out as \[79.0\] now"):
            assert store.add([[2, 3, 4]], [79.0]) == 0
        assert store.frame()["accuracy"].tolist() == [80.0, 81.0]


def test_a_changed_campaign_is_refused_with_what_differs(tmp_path):
    with open_store(tmp_path / "run.sqlite") as store:
        store.add([[2, 3, 4]], [80.0])
    other = PRINT | {"quantizer": "wrpn", "protocol": {"epochs": 5, "lr": 0.1}}
    del other["seed"]
    with pytest.raises(CampaignChangedError) as caught:
        open_store(tmp_path / "run.sqlite", fingerprint=other)
    message = str(caught.value)
    assert "holds 1 results of another campaign" in message
    assert "fingerprint.quantizer: stored 'dorefa', now 'wrpn'" in message
    assert "fingerprint.protocol.epochs: stored 3, now 5" in message
    assert "fingerprint.seed: stored 1, not given now" in message
    assert "protocol.lr" not in message
    with pytest.raises(CampaignChangedError, match="layers: stored"):
        open_store(tmp_path / "run.sqlite", layers=("conv", "fc1", "fc3"))
    with pytest.raises(CampaignChangedError, match="metrics: stored"):
        open_store(tmp_path / "run.sqlite", metrics=("loss",))
    with open_store(tmp_path / "run.sqlite") as store:  # the right one still opens
        assert len(store) == 1


def test_a_name_that_both_have_is_no_hint():
    from pareto._identity import differences

    assert differences({"epochs": 0}, {"epochs": 1, "epochs_lr": 0.1}) == [
        "epochs: stored 0, now 1",
        "epochs_lr: not stored, given now as 0.1",
    ]
    assert differences({"tune_epochs": 1, "tune_lr": 0.1}, {"tune_epochs": 1}) == ["tune_lr: stored 0.1, not given now"]
    (line,) = (found for found in differences({"sed": 1}, {"seed": 1}) if "stored 1" in found)
    assert "did you mean 'seed'?" in line


def test_nothing_of_a_refused_batch_is_kept(tmp_path):
    with open_store(tmp_path / "run.sqlite") as store:
        with pytest.raises(ValueError, match=r"accuracy is NaN for policy \{'conv': 2, 'fc1': 3, 'fc2': 5\}"):
            store.add([[2, 3, 4], [2, 3, 5]], [80.0, np.nan])
        with pytest.raises(ValueError, match=r"values must have shape \(1, 1\)"):
            store.add([[2, 3, 4]], [80.0, 81.0])
        with pytest.raises(ValueError, match=r"policies must have shape \(n, 3\), got \(1, 2\)"):
            store.add([[2, 3]], [80.0])
        with pytest.raises(ValueError, match=r"row 0 gives layer 'fc2' 300 bits; bit widths are whole numbers"):
            store.add([[2, 3, 300]], [80.0])
        assert len(store) == 0


def test_other_files_are_not_taken_for_stores(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("accuracy was fine\n" * 100)
    with pytest.raises(ValueError, match=r"notes.txt is not a campaign store"):
        open_store(text)
    assert text.read_text().startswith("accuracy was fine")
    database = tmp_path / "other.sqlite"
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE meta (key TEXT, value TEXT)")
    connection.execute("INSERT INTO meta VALUES ('format', 'somebody else 7')")
    connection.commit()
    connection.close()
    with pytest.raises(ValueError, match="has format 'somebody else 7'"):
        open_store(database)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"layers": "conv"}, ValueError, "layers must be a sequence of names"),
        ({"metrics": ("a", "a")}, ValueError, "metrics lists a name twice"),
        ({"metrics": ("conv",)}, ValueError, "metrics and layers both name 'conv'"),
        ({"fingerprint": {"data": {1, 2}}}, ValueError, "plain JSON values"),
        ({"fingerprint": "abc"}, TypeError, "fingerprint must be a mapping"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, changes, error, words):
    with pytest.raises(error, match=words):
        open_store(tmp_path / "run.sqlite", **changes)


def test_export_to_csv_and_parquet(tmp_path):
    with open_store(tmp_path / "run.sqlite") as store:
        rows = SPACE.policies()[:10]
        store.add(rows, value(rows) / 3)
        frame = store.frame()
        from_csv = pd.read_csv(store.export(tmp_path / "out" / "all.csv"))
        np.testing.assert_array_equal(from_csv.to_numpy(), frame.to_numpy())
        with pytest.raises(ValueError, match=r"must end in .csv or .parquet"):
            store.export(tmp_path / "all.xlsx")
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
        from_parquet = pd.read_parquet(store.export(tmp_path / "all.parquet"))
        pd.testing.assert_frame_equal(from_parquet, frame)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["all.csv"]


def test_a_result_that_was_changed_in_the_file_is_refused(tmp_path):
    path = tmp_path / "run.sqlite"
    with open_store(path) as store:
        store.add(SPACE.policies()[:4], [1.0, 2.0, 3.0, 4.0])
    for changes in ("accuracy = 2.5", "recorded_at = 1.0", "policy = 'abc'", "policy = NULL"):
        copy = tmp_path / "copy.sqlite"
        copy.write_bytes(path.read_bytes())
        with contextlib.closing(sqlite3.connect(copy)) as connection, contextlib.suppress(sqlite3.IntegrityError):
            connection.execute(f"UPDATE results SET {changes} WHERE accuracy = 2.0")
            connection.commit()
            with open_store(copy) as store, pytest.raises(ValueError, match=r"copy\.sqlite: damaged: what it holds of"):
                store.frame()


def test_a_damaged_page_is_told_with_the_file(tmp_path):
    path = tmp_path / "run.sqlite"
    with open_store(path) as store:
        store.add(SPACE.policies(), value(SPACE.policies()))
    whole = path.read_bytes()
    path.write_bytes(whole[:-4096] + bytes(4096))
    with pytest.raises(ValueError, match=r"run\.sqlite: damaged: SQLite finds .*; take a copy of before, or delete"):
        open_store(path)
    with pytest.raises(ValueError, match=r"run\.sqlite: damaged: SQLite finds"):
        Store.read(path)


def test_a_copy_of_the_file_alone_has_all_of_it(tmp_path):
    path, copy = tmp_path / "run.sqlite", tmp_path / "copy.sqlite"
    with open_store(path) as store:
        store.add(SPACE.policies(), value(SPACE.policies()))
        shutil.copy(path, copy)  # while the store is open: nothing was closed or ended
        with Store.read(copy) as copied:
            assert len(copied) == len(SPACE)
    with Store.read(path) as again:
        assert len(again) == len(SPACE)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["copy.sqlite", "run.sqlite"]


def test_a_campaign_is_read_without_its_fingerprint(tmp_path):
    path = tmp_path / "run.sqlite"
    with pytest.raises(FileNotFoundError, match=r"run\.sqlite: no such file"):
        Store.read(path)
    with open_store(path) as store, Store.read(path) as reader:
        assert len(reader) == 0
        store.add([[2, 3, 4]], [80.0])
        assert reader.frame().to_dict("list") == {"conv": [2], "fc1": [3], "fc2": [4], "accuracy": [80.0]}
        assert reader.fingerprint == PRINT
        with pytest.raises(ValueError, match="was opened to be read"):
            reader.add([[2, 3, 5]], [81.0])


def test_a_campaign_on_a_read_only_medium_is_read_with_its_log(tmp_path, monkeypatch):
    with open_store(tmp_path / "run.sqlite") as store:
        store.add([[2, 3, 4]], [80.0])
        store.add([[2, 3, 5]], [81.0])  # within a second of the first: in the log
        medium = tmp_path / "medium"
        medium.mkdir()
        for ending in ("", "-wal"):
            shutil.copy(tmp_path / f"run.sqlite{ending}", medium / f"run.sqlite{ending}")
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != medium and real(path, mode))
    with Store.read(medium / "run.sqlite") as reader:
        assert reader.frame()["accuracy"].tolist() == [80.0, 81.0]
    assert len(list(medium.iterdir())) == 2


def test_versions_are_recorded_and_a_change_is_told(tmp_path):
    path = tmp_path / "run.sqlite"
    with open_store(path, versions={"torch": "2.6"}) as store:
        assert store.versions == [{"torch": "2.6"}]
    with open_store(path, versions={"torch": "2.7"}) as store:  # nothing was measured with the other
        assert store.versions == [{"torch": "2.7"}]
        store.add([[2, 3, 4]], [80.0])
    with pytest.warns(UserWarning, match=r"1 results of other versions \(torch: before '2\.7', now '2\.8'\)"):
        open_store(path, versions={"torch": "2.8"}).close()
    with Store.read(path) as reader:
        assert reader.versions == [{"torch": "2.7"}, {"torch": "2.8"}]


def test_rows_of_a_foreign_hand_are_refused(tmp_path):
    path = tmp_path / "run.sqlite"
    with open_store(path) as store:
        store.add_failures([[2, 3, 4]], ["diverged"])
        store._connection.execute("UPDATE failures SET policy = ?", (bytes([2, 0, 99]),))
        with pytest.raises(ValueError, match=r"run\.sqlite: damaged: \[2, 0, 99\] is no policy of 3 layers; take"):
            store.failures()


def test_a_name_is_no_formula_in_csv(tmp_path):
    with open_store(tmp_path / "run.sqlite", layers=["=1+1", "-b", "c"]) as store:
        assert store.export(tmp_path / "all.csv").read_text().startswith("'=1+1,'-b,c,")


def test_digest_sees_names_shapes_dtypes_and_values():
    base = {"a": np.arange(6.0).reshape(2, 3), "b": np.zeros(2)}
    same = {"b": np.zeros(2), "a": np.asfortranarray(base["a"])}
    assert array_digest(base) == array_digest(same)
    changed = [
        base | {"b": np.array([0.0, 1e-300])},
        base | {"a": np.arange(6.0)},
        base | {"b": np.zeros(2, dtype=np.float32)},
        {"a": base["a"], "c": base["b"]},
    ]
    assert len({array_digest(arrays) for arrays in (base, *changed)}) == 5


def _write_all(path, seconds):
    with open_store(path) as store:
        run_campaign(SPACE, Slow(seconds), store, engine="serial", unit_rows=3, progress=False)


@pytest.mark.slow
def test_two_writers_at_once(tmp_path):
    path = tmp_path / "run.sqlite"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_all, args=(path, 0.01)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    with open_store(path) as store:
        frame = store.frame()
    np.testing.assert_array_equal(frame[list(SPACE.names)].to_numpy(), SPACE.policies())
    np.testing.assert_array_equal(frame["accuracy"], value(SPACE.policies()))


CHILD = """
import sys
from tests.pareto.test_store import _write_all
_write_all(sys.argv[1], 0.1)
"""


@pytest.mark.slow
def test_kill_9_at_any_moment_loses_at_most_the_unit_in_flight(tmp_path):
    path = tmp_path / "run.sqlite"
    root = Path(__file__).resolve().parents[2]
    counts = [0]
    for rows_before_kill in (1, 10, 30):
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], cwd=root)
        deadline = time.monotonic() + 60
        while _stored(path) < rows_before_kill and time.monotonic() < deadline:
            time.sleep(0.005)
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        connection = sqlite3.connect(path)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()
        counts.append(_stored(path))
    assert counts == sorted(counts)
    assert 30 <= counts[-1] < len(SPACE)
    seen = []

    def count(policies):
        seen.append(len(policies))
        return value(policies)

    with open_store(path) as store:
        frame = run_campaign(SPACE, count, store, engine="serial", progress=False)
    assert sum(seen) == len(SPACE) - counts[-1]
    np.testing.assert_array_equal(frame["accuracy"], value(SPACE.policies()))


def _stored(path):
    if not path.exists():
        return 0
    connection = sqlite3.connect(path, timeout=10)
    try:
        return connection.execute("SELECT count(*) FROM results").fetchone()[0]
    except sqlite3.OperationalError:  # the table is not there yet
        return 0
    finally:
        connection.close()

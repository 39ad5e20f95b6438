"""Sweeps: what a grid asks for, and that nothing is lost or done twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pareto import Store
from waveq.codesign import sweep as sweeping
from waveq.codesign.sweep import run_sweep, sweep_status, sweep_table
from waveq.codesign.sweep_grid import SweepGrid, read_sweep
from waveq.train.lock import alone_in

ROOT = Path(__file__).resolve().parents[3]
TINY = {
    "model": "digitsnet",
    "dataset": "digits",
    "epochs": 1,
    "batch_size": 64,
    "validation": 0.3,
    "reestimate_bn": 0,
    "threads": 1,
}


def grid(machine: str | None = None, base: dict[str, Any] = TINY, **axes: list[Any]) -> SweepGrid:
    return SweepGrid(
        base=base, axes={name.replace("__", "."): values for name, values in axes.items()}, hardware=machine
    )


def test_every_combination_is_a_point() -> None:
    points = grid(seed=[0, 1], target__mean_bits=[3, 4.5], preset=["paper"]).points()
    assert [(p.config.seed, p.config.target) for p in points] == [
        (0, {"mean_bits": 3}),
        (0, {"mean_bits": 4.5}),
        (1, {"mean_bits": 3}),
        (1, {"mean_bits": 4.5}),
    ]
    assert {p.config.quantizer for p in points} == {"dorefa"}  # the preset's own, as in one run
    assert len({p.digest for p in points}) == len({p.run_name for p in points}) == 4


def test_the_same_run_is_known_whoever_asks_for_it() -> None:
    one, other = grid(seed=[0, 3], bits=[4]).points()[1], grid(base={**TINY, "seed": 3, "bits": 4}).points()[0]
    assert one.digest == other.digest
    assert len(grid(seed=[1, 1], bits=[4]).points()) == 1


def test_a_machine_that_only_prices_needs_no_run_of_its_own() -> None:
    preset = grid(tiles=[4, 8], bits=[4]).points()
    assert len({p.digest for p in preset}) == 2
    assert len({p.run_digest for p in preset}) == 1
    learned = grid(tiles=[4, 8]).points()
    assert len({p.run_digest for p in learned}) == 2
    assert {p.objective for p in learned} == {"energy_pj"}
    assert grid(seed=[0]).points()[0].objective is None
    assert grid("loom", target__cycles=[0.4]).points()[0].objective == "cycles"
    assert grid("loom", target__bitops=[0.4]).points()[0].objective is None
    assert [p.machine.name for p in grid(hardware=["stripes", "loom"]).points()] == ["Stripes", "Loom"]


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"sede": [1]}, "no setting and no parameter is called 'sede'; did you mean 'seed'"),
        ({"tile": [1]}, "called 'tile'; did you mean 'tiles'"),
        ({"threads": [1, 2]}, "threads changes nothing that comes out of a run"),
        ({"seed": []}, r"seed must be a list of values, not \[\]"),
        ({"seed": "01"}, "seed must be a list of values"),
        ({"seed": [0], "epochs": [2, 0]}, "seed 0, epochs 0: bits 'learn' needs epochs"),
        ({"seed": [0], "tiles": [0]}, "seed 0, tiles 0: .*tiles"),
        ({"hardware": ["strips"]}, "hardware strips: no hardware 'strips'; did you mean 'stripes'"),
    ],
)
def test_what_is_no_grid_is_refused_before_anything_is_trained(axes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grid(**axes).points()


def test_a_file_says_the_same_as_words(tmp_path: Path) -> None:
    path = tmp_path / "sweep.toml"
    path.write_text('recipe = "digits"\n[set]\nepochs = 3\n[grid]\nseed = [0, 1]\n[grid.target]\nmean_bits = [3, 4]\n')
    assert read_sweep(path) == {
        "recipe": "digits",
        "hardware": None,
        "set": {"epochs": 3},
        "grid": {"seed": [0, 1], "target.mean_bits": [3, 4]},
    }
    path.write_text("[grids]\nseed = [0]\n")
    with pytest.raises(ValueError, match=r"sweep.toml: unknown name 'grids'; did you mean 'grid'"):
        read_sweep(path)


@pytest.mark.slow
def test_a_sweep_keeps_results_and_failures_and_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run_sweep(grid(bits=[1, 4], tiles=[8, 16]), tmp_path, progress=False)  # LSQ has no single bit
    assert found.done.sum() == 2
    assert ["1" in why for why in found.reasons.values()] == [True, True]
    left = tmp_path / "runs" / found.points[next(iter(found.reasons))].run_name / "config.json"
    left.parent.mkdir(exist_ok=True)
    left.touch()
    assert sweep_status(tmp_path).begun == 0  # a run that failed is not under way
    table = sweep_table(tmp_path)
    assert table[["bits", "tiles"]].values.tolist() == [[4, 8], [4, 16]]
    assert table["accuracy"].nunique() == table["run"].nunique() == 1  # one run, priced twice
    assert table["area_mm2"].nunique() == 2

    monkeypatch.setattr(sweeping.Trials, "_train", lambda *_: pytest.fail("trained again"))
    assert run_sweep(grid(bits=[1, 4], tiles=[8, 16]), tmp_path, progress=False).to_dict() == found.to_dict()
    monkeypatch.undo()
    more = run_sweep(grid(bits=[4], tiles=[16], seed=[0, 1]), tmp_path, progress=False)
    assert (len(more.points), more.done.sum(), len(more.reasons)) == (5, 3, 2)
    assert sweep_status(tmp_path).to_dict() == more.to_dict()
    assert sweep_table(tmp_path)["seed"].isna().sum() == 2  # asked for by the first grid, which did not vary it


@pytest.mark.slow
def test_a_run_that_somebody_else_is_in_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "_POLL_SECONDS", 0.01)
    point = grid(bits=[4]).points()[0]
    free, waited = threading.Event(), []
    real = time.sleep

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        free.set()
        real(seconds)

    monkeypatch.setattr(sweeping.time, "sleep", sleep)

    def hold() -> None:
        with alone_in(tmp_path / "runs" / point.run_name):
            held.set()
            free.wait(60)

    held = threading.Event()
    other = threading.Thread(target=hold)
    other.start()
    held.wait(60)
    assert run_sweep(grid(bits=[4]), tmp_path, progress=False).done.all()
    other.join()
    assert waited


@pytest.mark.slow
def test_kill_minus_nine_loses_nothing_and_nothing_is_done_twice(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "waveq", "sweep", "--engine", "processes", "--workers", "1", "--quiet"]
    words += ["--grid", "bits=2,4", "--run", str(tmp_path / "cut")]
    for name, value in {**TINY, "epochs": 8, "pretrain_epochs": 1, "checkpoint_seconds": 0}.items():
        words += ["--set", f"{name}={value}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(words, cwd=ROOT, env=environment, start_new_session=True)
    assert soon(lambda: bool(list(tmp_path.glob("cut/runs/*/wave/last.ckpt"))))
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert soon(lambda: not in_use(tmp_path / "cut"))
    ended = {path: path.stat().st_mtime_ns for path in tmp_path.glob("cut/runs/*/*/result.json")}
    assert ended  # the float stage at least
    whole = grid(base={**TINY, "epochs": 8, "pretrain_epochs": 1}, bits=[2, 4])
    run_sweep(whole, tmp_path / "cut", progress=False)
    run_sweep(whole, tmp_path / "whole", progress=False)
    assert {path: path.stat().st_mtime_ns for path in ended} == ended
    rows = [store_rows(tmp_path / name) for name in ("cut", "whole")]
    np.testing.assert_array_equal(*rows)


def store_rows(folder: Path) -> Any:
    with Store.read(folder / "sweep.sqlite") as store:
        return store.frame().to_numpy()


def in_use(folder: Path) -> bool:
    for run in folder.glob("runs/*"):
        try:
            with alone_in(run):
                pass
        except ValueError:
            return True
    return False


def soon(holds: Any) -> bool:
    end = time.monotonic() + 120
    while not holds() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(holds())

"""Bits and machine together: what is measured, priced, compared and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from stripes_sim import Stripes
from stripes_sim.energy import area_mm2
from waveq.cli.app import main
from waveq.codesign.machine_policies import measure_policies
from waveq.codesign.machines import DESIGNS, design_machines, machines_of
from waveq.codesign.sweep import run_sweep
from waveq.codesign.sweep_grid import SweepGrid
from waveq.train.trained_run import TrainedRun

GRID = {"tiles": [1, 4], "weight_buffer_bytes": [4096, 65536]}


def test_the_given_machine_is_on_the_grid_once() -> None:
    assert [m.tiles for m in machines_of({"tiles": [4, 16]}, Stripes()).values()] == [16, 4]
    with pytest.raises(ValueError, match="no hardware parameter is called 'tile'; did you mean 'tiles'"):
        machines_of({"tile": [4]}, Stripes())
    with pytest.raises(ValueError, match=r"grid: .*tiles"):
        machines_of({"tiles": [0]}, Stripes())


@pytest.fixture
def table(designed: Any) -> pd.DataFrame:
    """All policies of 2 and 4 bits, measured by the enumeration."""
    frame: pd.DataFrame = designed.placement.frame
    return frame[[*designed.run.policy, "accuracy"]]


def test_every_policy_is_priced_on_every_machine_as_it_is_alone(designed: Any, table: pd.DataFrame) -> None:
    found = design_machines(designed.run, table, GRID)
    machines = machines_of(GRID, Stripes())
    assert len(found.frame) == len(table) * len(machines) == len(table) * 5
    row = found.frame.sample(1, random_state=0).iloc[0]
    machine = machines[tuple(row[name] for name in GRID)]
    policy = {name: int(row[name]) for name in found.layers}
    alone = machine.run(designed.run.layers, {**designed.run.weight_bits(), **policy}, designed.run.activation_bits())
    assert alone.score["energy_pj"] == pytest.approx(row["energy_pj"], rel=1e-12)
    assert alone.score["cycles"] == row["cycles"]
    assert row["area_mm2"] == area_mm2(machine)["total"]


def test_designs_keep_the_envelope_and_both_is_the_best(designed: Any, table: pd.DataFrame) -> None:
    found = design_machines(designed.run, table, GRID)
    energy = {name: found.designs[name]["energy_pj"] for name in DESIGNS}
    assert energy["both"] <= min(energy["machine"], energy["bits"]) <= energy["neither"]
    for row in found.designs.values():
        assert row["accuracy"] >= found.envelope["accuracy"]
        assert row["cycles"] <= found.envelope["cycles"]
        assert row["area_mm2"] <= found.envelope["area_mm2"]
    # by hand: the least energy of all rows within the envelope
    frame, floor = found.frame, found.envelope
    within = frame[
        (frame.accuracy >= floor["accuracy"])
        & (frame.cycles <= floor["cycles"])
        & (frame.area_mm2 <= floor["area_mm2"])
    ]
    assert within["energy_pj"].min() == energy["both"]
    assert found.savings()["bits"] == 1 - energy["both"] / energy["bits"]
    with pytest.raises(ValueError, match="no accuracy of 3 bits in every layer is among the"):
        design_machines(designed.run, table, GRID, uniform=3)


@pytest.mark.slow
def test_allocated_policies_are_those_of_the_losses_that_were_measured(run_copy: Path) -> None:
    run = TrainedRun(run_copy)
    found = measure_policies(run, GRID, choices=(2, 4), points=3, progress=False)
    assert set(found["origin"]) <= {"run", "uniform", "allocated", "measured before"}
    assert (found["origin"] == "allocated").any()
    again = measure_policies(run, GRID, choices=(2, 4), points=3, progress=False)
    pd.testing.assert_frame_equal(again, found)


@pytest.mark.slow
def test_bits_are_learned_at_the_prices_of_each_machine(run_copy: Path) -> None:
    run = TrainedRun(run_copy)
    found = measure_policies(run, {"tiles": [1]}, how="learn", choices=(2, 4), budgets=[0.4], progress=False)
    runs = sorted((run_copy / "codesign" / "runs").iterdir())
    learned = {tuple(TrainedRun(path).policy.values()) for path in runs}
    config = TrainedRun(runs[0]).config
    assert config.init == (run_copy / "float" / "weights.pt").absolute()  # no float network is trained twice
    assert config.target == {"energy_pj": 0.4}
    assert config.layer_costs is not None
    rows = found[found["origin"] == "learned"][list(run.policy)]
    assert {tuple(row) for row in rows.to_numpy().tolist()} == learned
    base = {"model": "digitsnet", "dataset": "digits", "epochs": 1}
    other = run_sweep(SweepGrid(base=base, axes={"bits": [1]}), run_copy / "codesign", progress=False)
    assert len(other.reasons) == 1  # LSQ has no single bit; that is no failure of this grid
    again = measure_policies(run, {"tiles": [1]}, how="learn", choices=(2, 4), budgets=[0.4], progress=False)
    pd.testing.assert_frame_equal(again, found)


@pytest.mark.slow
def test_the_verb_writes_tables_picture_and_page(
    run_copy: Path, table: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    source = run_copy / "elsewhere.csv"
    table.to_csv(source, index=False)
    words = ["codesign", str(run_copy), "--grid", "tiles=1,4", "--table", str(source)]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    folder = run_copy / "codesign"
    written = {"machines.csv", "frontier.csv", "codesign.json", "codesign.png", "codesign.html"}
    assert written == {path.name for path in folder.iterdir()}
    assert json.loads((folder / "codesign.json").read_text())["savings"] == found["savings"]
    assert len(pd.read_csv(folder / "machines.csv")) == found["rows"] == 3 * len(table)
    page = (folder / "codesign.html").read_text()
    assert "designing both takes" in page
    assert "uniform bits, the best machine" in page
    assert main([*words, "--how", "learn"]) == 2
    assert "--how is for measuring, and --table has the accuracies" in capsys.readouterr().err

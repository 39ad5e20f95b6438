"""After a run that learned bits of inputs: spaces, prices and sensitivity by both operands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stripes_sim import Loom
from tests.waveq.conftest import tiny_config
from waveq.codesign.page import page_data
from waveq.codesign.placement import place_run
from waveq.codesign.report import write_report
from waveq.codesign.score import price_policies
from waveq.codesign.space import enumerate_run, run_sensitivity
from waveq.train.run import train
from waveq.train.trained_run import TrainedRun

INPUTS = ["conv2 (inputs)", "fc1 (inputs)", "fc2 (inputs)"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    folder = tmp_path_factory.mktemp("both") / "run"
    config = tiny_config(folder, activation_bits="learn", target={"bitops": 0.4}, epochs=4)
    train(config, say=lambda _line: None)
    return TrainedRun(folder)


@pytest.mark.slow
def test_spaces_of_both_operands(run: TrainedRun) -> None:
    frame = enumerate_run(run, Loom(), choices=(3,), input_choices=(2, 8), progress=False)
    assert list(frame.columns[:7]) == ["conv1", "conv2", "fc1", "fc2", *INPUTS]
    assert len(frame) in (8, 9)  # and the run's own
    place = place_run(run, frame)
    result = Loom().run(run.layers, run.weight_bits(), run.activation_bits())
    assert place.own["energy_pj"] == pytest.approx(result.energy_pj)
    narrow, wide = (frame[(frame[INPUTS] == bits).all(axis=1)].iloc[0] for bits in (2, 8))
    assert narrow["accuracy"] < wide["accuracy"]
    assert narrow["energy_pj"] < wide["energy_pj"]
    again = enumerate_run(run, Loom(), choices=(3,), input_choices=(2, 8), progress=False)
    assert again.equals(frame)
    assert "bits of inputs" in write_report(run.path).read_text()
    data = page_data(run)
    assert data["fields"] == [["bits", name] for name in frame.columns[:4]] + [
        ["activation_bits", name.removesuffix(" (inputs)")] for name in INPUTS
    ]
    assert data["policy"]["bits"] == [*run.policy.values(), *(run.policy.activation_bits.values())]


@pytest.mark.slow
def test_prices_of_inputs_that_no_column_names_are_the_runs(run: TrainedRun) -> None:
    names = ["conv1", "conv2", "fc1", "fc2"]
    row = np.array([[run.policy[name] for name in names]], dtype=np.uint8)
    inputs = np.array([[run.policy.activation_bits["fc1"]]], dtype=np.uint8)
    alone = price_policies(run, Loom(), names, row)
    both = price_policies(run, Loom(), [*names, "fc1 (inputs)"], np.hstack([row, inputs]))
    pd.testing.assert_frame_equal(both, alone, rtol=1e-12)  # the parts are added in another order


@pytest.mark.slow
def test_sensitivity_of_inputs(run: TrainedRun) -> None:
    table = run_sensitivity(run, steps=(-1, 1))
    assert set(INPUTS) <= set(table["layer"])
    assert table["changed_bits"].between(2, 8).all()
    own = table[table["layer"] == "fc1 (inputs)"]["bits"].unique()
    assert own.tolist() == [run.policy.activation_bits["fc1"]]


@pytest.mark.slow
def test_inputs_in_floating_point_cannot_be_varied(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run", pretrain_epochs=0, epochs=1, bits=4)
    train(config, say=lambda _line: None)
    with pytest.raises(ValueError, match="inputs are in floating point, so that their bits cannot be varied"):
        enumerate_run(TrainedRun(tmp_path / "run"), Loom(), choices=(3,), input_choices=(2, 8), progress=False)

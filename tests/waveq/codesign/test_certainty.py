"""How sure a run's frontier is: the same figures in store, table, report, page and on the command line."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pareto import Store
from stripes_sim import Stripes
from waveq.cli.app import main
from waveq.codesign.certainty import band_of, certainty_of, certainty_sentences, store_beside
from waveq.codesign.frames import read_frame
from waveq.codesign.page import page_data
from waveq.codesign.placement import DESCRIBED, STORE, place_run
from waveq.codesign.report import how_enumerated, placement_sentence, write_report
from waveq.codesign.space import enumerate_run, read_table
from waveq.train.trained_run import TrainedRun


def test_the_store_has_the_images_of_every_accuracy(designed: Any) -> None:
    frame, names = designed.placement.frame, list(designed.run.policy)
    with Store.read(designed.run.path / STORE) as store:
        correct = store.correct(frame[names].to_numpy())
    assert correct is not None
    np.testing.assert_array_equal(100.0 * correct.mean(axis=1), frame["accuracy"])


def test_table_report_and_page_say_the_same(designed: Any) -> None:
    told = designed.placement.certainty.told
    run = TrainedRun(designed.run.path)
    front = read_frame(run.path / "frontier.csv", numbers=("membership", "alike", "accuracy_low", "accuracy_high"))
    assert json.loads((run.path / "frontier.json").read_text())["certainty"] == told
    assert (front["accuracy_low"] <= front["accuracy_high"]).all()
    assert front["alike"].iloc[-1] == told["frontier_groups"]
    text, data = (run.path / "report.md").read_text(), page_data(run)
    for sentence in certainty_sentences(told):
        assert sentence in text
        assert sentence in data["prose"]["frontier"]
    assert data["cloud"]["columns"]["membership"][data["cloud"]["marks"][0]["row"]] == told["membership"]
    assert len(data["cloud"]["band"][0]) == len(front)
    assert data["cloud"]["band"][0][0] == pytest.approx(front["energy_pj"][0] / 1e6)


def test_the_gap_has_the_error_of_the_images_that_differ() -> None:
    placed = {"efficient": False, "accuracy_gap": 0.2304, "energy_gap_pj": 1e6, "own": {"energy_pj": 4e6}}
    known = placed | {"certainty": {"accuracy_gap_error": 0.3129}}
    assert "0.23 points more accuracy, standard error 0.31; at" in placement_sentence(known)
    assert "0.23 points more accuracy; at" in placement_sentence(placed)  # as older versions left it


@pytest.mark.parametrize(
    ("better", "cheaper", "words"),
    [
        (0.0, 1e6, "not on the frontier: another one is as accurate and needs 1 µJ less (25.0 %)."),
        (0.5, 0.0, "not on the frontier: at its energy another one has 0.50 points more accuracy."),
        (0.002, 0.0, "not on the frontier: at its energy another one has 0.002 points more accuracy."),
    ],
)
def test_what_is_equal_is_not_called_better(better: float, cheaper: float, words: str) -> None:
    placed = {"efficient": False, "accuracy_gap": better, "energy_gap_pj": cheaper, "own": {"energy_pj": 4e6}}
    assert placement_sentence(placed).endswith(words)


def test_a_policy_among_its_rivals(tmp_path: Path) -> None:
    right = np.arange(200)[None, :] < np.array([[150], [152], [190]])
    frame = pd.DataFrame({"fc": [2, 3, 4], "accuracy": 100.0 * right.mean(axis=1), "energy_pj": [1.0, 2.0, 2.0]})
    with Store(tmp_path / "a.sqlite", layers=["fc"], fingerprint={}) as store:
        store.add(frame[["fc"]].to_numpy(), frame["accuracy"], correct=right)
    sure = certainty_of(tmp_path / "a.sqlite", frame, frame.iloc[[0, 2]], ["fc"], "energy_pj", 1)
    error = 100 * (0.19 * 0.81 / 200) ** 0.5  # 38 of 200 images, all one way
    assert sure.told["accuracy_gap_error"] == pytest.approx(error)
    assert (sure.told["no_dearer_alike"], sure.told["membership"], sure.told["frontier_groups"]) == (1, 0.0, 2)
    assert sure.front is not None
    assert sure.front["alike"].tolist() == [1, 2]
    assert "1 other policy of at most its energy" in certainty_sentences(sure.told)[1]
    elsewhere = frame.assign(accuracy=frame["accuracy"] + 1)
    assert (
        "other accuracies"
        in certainty_of(tmp_path / "a.sqlite", elsewhere, frame, ["fc"], "energy_pj", 1).told["unknown"]
    )
    assert "is gone" in certainty_of(tmp_path / "b.sqlite", frame, frame, ["fc"], "energy_pj", 1).told["unknown"]


def test_a_store_of_before_is_told_and_has_no_band(run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sqlite3.connect(run_copy / STORE) as connection:
        connection.execute("DROP TABLE samples")
    connection.close()
    assert main(["frontier", str(run_copy)]) == 0
    words = "cannot be told: enumeration.sqlite has accuracies alone, not which images each policy gets right"
    assert words in capsys.readouterr().out
    assert band_of(read_frame(run_copy / "frontier.csv"), "energy_pj") is None
    assert words in write_report(run_copy).read_text()
    assert page_data(TrainedRun(run_copy))["cloud"]["band"] is None


def test_the_store_is_found_wherever_it_was_put(run_copy: Path, tmp_path: Path) -> None:
    run = TrainedRun(run_copy)
    frame = enumerate_run(run, Stripes(), choices=(2, 4), store=tmp_path / "s.sqlite", replace=True, progress=False)
    assert store_beside(run_copy, DESCRIBED, STORE).resolve() == (tmp_path / "s.sqlite").resolve()
    placed = place_run(run, frame)
    assert placed.certainty is not None
    assert placed.certainty.membership is not None


def test_the_verb_tells_it_of_a_campaign(designed: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["frontier", str(designed.run.path / STORE), "--out", str(tmp_path), "--html"]) == 0
    assert "Other images would move it: of 1,000 draws" in capsys.readouterr().out
    front = read_table(tmp_path / "frontier.csv", numbers=("membership", "mean_bits"))
    assert front["membership"].between(0, 1).all()
    assert '"band":[[' in (tmp_path / "frontier.html").read_text()


def test_policies_that_failed_are_counted() -> None:
    placed: dict[str, Any] = {"policies": 16, "frontier": 3, "own": {"accuracy": 90.0}}
    how: dict[str, Any] = {
        "how": "rounded",
        "hardware": "Stripes",
        "quantizer": "lsq",
        "granularity": "layer",
        "scale": "max",
    }
    how |= {"data": {"images": 100}, "protocol": {"part": "validation"}}
    assert how_enumerated(placed, how).startswith("16 policies, every one evaluated: rounded")
    assert how_enumerated(placed, how | {"failed": 2}).startswith(
        "16 policies, and 2 that failed and are left out: rounded"
    )


def test_energies_of_layers_add_up_to_that_of_every_policy(designed: Any) -> None:
    data, frame = page_data(TrainedRun(designed.run.path)), designed.placement.frame
    names = data["layers"]
    for row in frame.to_dict("records"):
        layers = data["layer_energy"]
        energy = [e["uj"] if e["weights"] is None else e["uj"][str(row[names[e["weights"]]])] for e in layers]
        assert sum(energy) == pytest.approx(row["energy_pj"] / 1e6, rel=1e-3)


def test_a_score_of_another_policy_is_not_shown(run_copy: Path) -> None:
    assert "```text" in write_report(run_copy).read_text()
    policy = run_copy / "policy.json"
    policy.write_text(policy.read_text() + " \n")  # the same, but nobody can know without reading both
    with pytest.raises(ValueError, match=r"was made with another policy\.json"):
        write_report(run_copy)
    for name in ("policies.csv", "search.csv"):
        (run_copy / name).unlink(missing_ok=True)
    assert "Not shown: policy.json is not the one of the run's score" in write_report(run_copy).read_text()
    assert "energy" not in page_data(TrainedRun(run_copy))["bars"]
    assert main(["score", str(run_copy), "--breakdown"]) == 0
    assert "```text" in write_report(run_copy).read_text()
    other = ["--model", "digitsnet", "--in-channels", "1", "--input-size", "8", "--run", str(run_copy)]
    assert main(["score", "8", *other]) == 0
    assert "Not shown: score.txt is not the one of the run's score" in write_report(run_copy).read_text()
    assert "energy" not in page_data(TrainedRun(run_copy))["bars"]

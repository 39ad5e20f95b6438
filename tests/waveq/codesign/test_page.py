"""report.html: what it holds of a run, with and without the later steps, and that it draws all of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.browser import browser
from waveq.cli.app import main
from waveq.codesign.page import page_data, write_page
from waveq.policy import Policy
from waveq.train.trained_run import TrainedRun


def drawn(page: Path, width: int = 1200) -> dict[str, Any]:
    """What a browser makes of the page; it must neither complain nor ask for anything."""
    with browser() as window:
        window.size(width, phone=width < 500)
        window.open(page)
        found = {
            "pictures": window.run(
                "[...document.querySelectorAll('canvas')].map(each => each.getAttribute('aria-label'))"
            ),
            "text": window.run("document.body.innerText"),
            "width": window.run("document.documentElement.scrollWidth"),
            "file": window.run("policyFile(chosen)"),
        }
        assert window.complaints == []
        assert window.requests == [page.resolve().as_uri()]
    return found


@pytest.mark.slow
def test_every_part_of_a_run_is_drawn(designed: Any, tmp_path: Path) -> None:
    found = drawn(designed.page)
    for word in (
        "all policies",
        "bits of each layer of",
        "over the steps",
        "stage by stage",
        "by layer and part",
        "fewer",
    ):
        assert any(word in label for label in found["pictures"]), word
    for word in ("digitsnet on digits", "this policy, trained", "every one evaluated", "learned policy", "seed 0"):
        assert word in found["text"]
    (tmp_path / "policy.json").write_text(found["file"], encoding="utf-8")
    policy = Policy.load(tmp_path / "policy.json")
    assert policy == designed.run.policy
    assert (policy.quantizer, policy.weight_counts) == (
        designed.run.policy.quantizer,
        designed.run.policy.weight_counts,
    )


@pytest.mark.slow
def test_what_was_not_run_is_named_with_its_command(run_copy: Path) -> None:
    for name in ("score.csv", "policies.csv", "sensitivity.csv"):
        (run_copy / name).unlink()
    found = drawn(write_page(run_copy), width=390)
    for command in ("waveq score", "waveq enumerate", "waveq search", "waveq sensitivity"):
        assert f"{command} {run_copy}" in found["text"]
    assert not any("all policies" in label for label in found["pictures"])
    assert json.loads(found["file"])["bits"] == dict(Policy.load(run_copy / "policy.json"))
    assert found["width"] == 390


@pytest.mark.slow
def test_what_a_search_found_stands_in_for_an_enumeration(run_copy: Path) -> None:
    (run_copy / "policies.csv").rename(run_copy / "search.csv")
    data = page_data(TrainedRun(run_copy))
    assert len(data["cloud"]["columns"]["accuracy"]) == len(pd.read_csv(run_copy / "search.csv"))
    assert "measured by the search" in data["prose"]["frontier"][0]


@pytest.mark.slow
def test_numbers_are_those_of_the_files(designed: Any) -> None:
    data = page_data(designed.run)
    frame, front = designed.placement.frame, designed.placement.front
    assert data["cloud"]["columns"]["Energy (µJ)"] == pytest.approx(frame["energy_pj"] / 1e6, rel=1e-6)
    assert data["cloud"]["front"] == list(front.index)
    energy = sum(sum(part["values"]) for part in data["bars"]["energy"]["series"])
    assert energy == pytest.approx(designed.score.energy_pj / 1e6, rel=1e-3)
    less = next(one for one in data["bars"]["sensitivity"]["series"] if one["name"].startswith("-1 bit,"))
    table = designed.sensitivity
    measured = [value for value in less["values"] if value is not None]  # layers at the fewest bits have no fewer
    assert measured == pytest.approx(table[table["step"] == -1]["change"].tolist(), rel=1e-3)
    assert data["fields"] == [["bits", name] for name in designed.run.policy]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("score.csv", ("dram_pj", "dram"), "the column 'dram_pj' is missing"),
        ("sensitivity.csv", (",-1,", ",less,"), "step is 'less' in line 2"),
    ],
)
def test_damaged_tables_are_named(name: str, change: tuple[str, str], expected: str, run_copy: Path) -> None:
    path = run_copy / name
    path.write_text(re.sub(*change, path.read_text(encoding="utf-8"), count=1), encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(f"{path}: damaged: {expected}")):
        write_page(run_copy)


@pytest.mark.slow
def test_the_verb_writes_both(run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run_copy / "report.html").unlink()
    assert main(["report", str(run_copy), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"report": str(run_copy / "report.md"), "page": str(run_copy / "report.html")}
    assert (run_copy / "report.html").stat().st_size < 200_000

"""docs/architecture.md names rooms and files that are there, and leaves no room out."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_every_path_that_the_page_names_is_there() -> None:
    named = set(re.findall(r"`((?:waveq|stripes_sim|pareto|benchmarks|tests|docs)/[\w./]*)`", PAGE))
    assert len(named) > 30
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_every_room_of_waveq_is_on_the_page_and_says_what_it_is_for() -> None:
    rooms = [folder for folder in (ROOT / "waveq").iterdir() if (folder / "__init__.py").exists()]
    assert len(rooms) == 11
    for room in rooms:
        assert f"| `waveq/{room.name}/` | " in PAGE
        assert (room / "__init__.py").read_text(encoding="utf-8").startswith('"""')


def test_a_betas_step_is_at_most_six_files() -> None:
    walk = PAGE.split("**How a beta moves in one step.**")[1]
    assert len(re.findall(r"^\d\. ", walk, flags=re.MULTILINE)) <= 6

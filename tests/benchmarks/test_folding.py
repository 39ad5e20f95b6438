"""What folding costs, on a few images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.paper import folding


def part() -> folding.Part:
    return torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 10


@pytest.mark.slow
def test_with_a_scale_for_each_channel_folding_changes_nothing() -> None:
    options: dict[str, Any] = {"quantizer": "wrpn", "bits": 3, "granularity": "channel"}
    kept, anew = (
        folding.quantised(folding.small_network(0), how, part(), options, steps=4, seed=0).eval()
        for how in ("norms kept", "folded, rounded anew")
    )
    assert isinstance(anew[1], torch.nn.Identity)
    torch.testing.assert_close(anew(part()[0]), kept(part()[0]), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_every_way_has_a_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(folding, "images", lambda: (part(), part()))
    few = ["--seeds", "0", "--bits", "3", "--float-steps", "2", "--steps", "2"]
    assert folding.main([*few, "--json", str(tmp_path / "out.json")]) == 0
    table = capsys.readouterr().out
    assert all(how in table for how in folding.HOW)
    assert (tmp_path / "out.json").exists()

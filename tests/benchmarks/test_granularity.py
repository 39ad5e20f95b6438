"""Layer against channel on a few images: folding is exact, and the table has a row for each way."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.paper import granularity


def test_folded_batch_norm_computes_the_same() -> None:
    network, x = granularity.depthwise_network(0), torch.randn(8, 1, 14, 14)
    for _ in range(3):
        network.train()(x)  # moves the running statistics
    torch.testing.assert_close(granularity.folded(network)(x), network.eval()(x), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_every_way_has_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    part = torch.randn(40, 1, 14, 14), torch.arange(40) % 10
    monkeypatch.setattr(granularity, "images", lambda *_: (part, part))
    few = ["--seeds", "0", "--quantizers", "wrpn", "--float-steps", "2", "--steps", "1"]
    assert granularity.main([*few, "--json", str(tmp_path / "out.json")]) == 0
    table = capsys.readouterr().out
    for how in ("rounded", "trained", "folded, rounded", "folded, trained"):
        assert how in table
    assert (tmp_path / "out.json").exists()

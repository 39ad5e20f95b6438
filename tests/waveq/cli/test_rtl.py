"""`waveq rtl`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from waveq.cli.app import main
from waveq.codesign.rtl import layer_inputs


@pytest.mark.slow
def test_a_layer_of_a_run(run_copy: Path, designed: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rtl", str(run_copy), "--layer", "fc2", "--image", "3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["folder"] == str(run_copy / "rtl-fc2")
    scored = designed.score.frame.set_index("name").loc["fc2"]
    assert told["cycles"] == scored["compute_cycles"]
    held = (run_copy / "rtl-fc2" / "layer.vh").read_text()
    assert f"localparam PLANES = {designed.run.policy['fc2']};" in held


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("iverilog") is None, reason="needs Icarus Verilog (iverilog)")
def test_the_simulated_layer_passes(run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rtl", str(run_copy), "--layer", "conv1", "--simulate", "--out", str(run_copy / "here")]) == 0
    text = capsys.readouterr().out
    assert "1,024 of 1,024 outputs equal NumPy's" in text
    assert (run_copy / "here" / "testbench.v").exists()


@pytest.mark.slow
def test_bad_input(run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        ([], "--layer says which: conv1, conv2, fc1, fc2"),
        (["--layer", "conv"], "gives no bits to layer 'conv'; did you mean 'conv"),
        (["--layer", "conv1", "--image", "100000"], "image must be from 0 to "),
        (["--layer", "conv1", "--hardware", "loom"], "has serial weights"),
    ):
        assert main(["rtl", str(run_copy), *words]) == 2
        assert message in capsys.readouterr().err
    assert main(["rtl", str(run_copy / "nowhere"), "--layer", "conv1"]) == 2


def test_inputs_of_a_layer_that_is_no_module_or_called_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.fc(self.fc(x))
            return out

    with pytest.raises(ValueError, match="layer 'fc' is called 2 times"):
        layer_inputs(Twice(), "fc", torch.ones(1, 2), 8)
    with pytest.raises(ValueError, match=r"'attn\.in_proj_weight' is a weight inside another module"):
        layer_inputs(Twice(), "attn.in_proj_weight", torch.ones(1, 2), 8)


def test_inputs_in_floating_point_fill_the_range() -> None:
    net = nn.Sequential(nn.Linear(3, 2))
    assert layer_inputs(net, "0", torch.tensor([[0.0, 0.5, 1.0]]), 4).tolist() == [[0, 8, 15]]
    assert layer_inputs(net, "0", torch.tensor([[-1.0, 0.5, 0.0]]), 4).tolist() == [[-7, 4, 0]]
    assert not np.any(layer_inputs(net, "0", torch.zeros(1, 3), 4))


def test_quantised_inputs_are_the_codes_of_their_grid() -> None:
    import waveq

    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    wq = waveq.attach(net, bits=4, activation_bits=3, skip=("0",))
    net(torch.rand(16, 8))
    wq.finalize()
    codes = layer_inputs(net, "2", torch.rand(1, 8), 3)
    assert codes.min() >= 0
    assert codes.max() <= 7

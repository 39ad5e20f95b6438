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

import waveq
from stripes_sim import LayerShape
from waveq.cli.app import main
from waveq.codesign.rtl import first_rows, layer_inputs
from waveq.exporting.input_grids import input_grid
from waveq.method.fixed_input import FIXED_INPUT


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
        (["--layer", "fc1", "--output-rows", "2"], "layer 'fc1' is no convolution"),
        (["--layer", "conv1", "--output-rows", "0"], "--output-rows must be at least 1"),
    ):
        assert main(["rtl", str(run_copy), *words]) == 2
        assert message in capsys.readouterr().err
    assert main(["rtl", str(run_copy / "nowhere"), "--layer", "conv1"]) == 2


@pytest.mark.slow
def test_the_first_rows_of_an_output(run_copy: Path, designed: Any, capsys: pytest.CaptureFixture[str]) -> None:
    # two rows of eight windows are one set of columns, the whole output has four
    whole = designed.score.frame.set_index("name").loc["conv1", "compute_cycles"]
    assert main(["rtl", str(run_copy), "--layer", "conv1", "--output-rows", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cycles"] == whole / 4


def test_first_rows_are_the_rows_of_the_whole_output() -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        kernel, size, stride, dilation = (
            int(rng.integers(low, high)) for low, high in ((1, 4), (7, 12), (1, 4), (1, 3))
        )
        before, after = rng.integers(0, kernel, 2).tolist()
        conv = LayerShape(
            name="c",
            kind="conv",
            in_channels=1,
            out_channels=1,
            kernel_size=(kernel, 1),
            input_size=(size, 2),
            stride=(stride, 1),
            padding=(before, after, 0, 1),
            dilation=(dilation, 1),
        )
        rows = int(rng.integers(1, conv.output_size[0] + 1))
        cut = first_rows(conv, rows)
        assert cut.output_size == (rows, 3)
        column = torch.from_numpy(rng.normal(size=size))

        def output(shape: LayerShape, column: torch.Tensor = column, dilation: int = dilation) -> torch.Tensor:
            padded = nn.functional.pad(
                column[: shape.input_size[0]],
                (shape.padding_before[0], shape.padded_size[0] - shape.input_size[0] - shape.padding_before[0]),
            )
            weight = torch.arange(1.0, shape.kernel_size[0] + 1).double()
            return nn.functional.conv1d(
                padded[None, None], weight[None, None], stride=shape.stride[0], dilation=dilation
            )

        assert torch.equal(output(cut)[0, 0], output(conv)[0, 0, :rows])


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


@pytest.mark.parametrize("quantizer", ["dorefa", "wrpn", "midrise", "lsq"])
def test_sums_of_integers_times_both_scales_are_the_layers_output(quantizer: str) -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 3, bias=False))
    wq = waveq.attach(net, quantizer=quantizer, bits=4, activation_bits=3, skip=("0",))
    net(torch.rand(16, 2, 8, 8))
    wq.finalize()
    image = torch.rand(1, 2, 8, 8)
    codes = torch.from_numpy(layer_inputs(net, "2", image, 3)).double()
    assert codes.min() >= 0
    assert codes.max() <= 7
    held = waveq.integers(net, wq.policy())["2"]
    sums = nn.functional.conv2d(codes, held.codes.double())
    # what the tile leaves to be added outside on a grid without a zero
    sums = sums + held.offset * nn.functional.conv2d(codes, torch.ones_like(held.codes, dtype=torch.float64))
    scale = input_grid("2", getattr(net[2], FIXED_INPUT)).scale
    with torch.no_grad():
        assert torch.allclose((sums * held.scale * scale).float(), net(image), atol=1e-5)

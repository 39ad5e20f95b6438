"""What the layers of a run multiply on its images: codes of its weights, multiples of its input scales."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from stripes_sim import Laconic, load_hardware
from tests.waveq.conftest import tiny_config
from waveq.cli.app import main
from waveq.codesign.values import run_values
from waveq.exporting.input_grids import input_grid
from waveq.exporting.integers import integers
from waveq.train.run import train
from waveq.train.trained_run import TrainedRun


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    folder = tmp_path_factory.mktemp("values") / "run"
    train(tiny_config(folder, bits=3, activation_bits=4, epochs=1), say=lambda _line: None)
    return TrainedRun(folder)


@pytest.mark.slow
def test_values_are_the_integers_of_the_network(run: TrainedRun) -> None:
    found = run_values(run, "validation", 5)
    assert found.samples == 5
    network = run.final_network()
    codes = integers(network, run.policy)
    assert all((found.weights[name] == each.codes.numpy()).all() for name, each in codes.items())
    # inputs on their grid of 4 bits
    grid = input_grid("conv2", network.conv2.waveq_restore_inputs)
    seen = {}
    network.conv2.register_forward_pre_hook(lambda module, x: seen.update(conv2=module.waveq_restore_inputs(x[0])))
    x, _ = next(iter(run.images("validation")))
    network(x[:5])
    assert np.allclose(found.activations["conv2"] * grid.scale, seen["conv2"].detach().numpy(), atol=1e-6)
    assert np.abs(found.activations["conv1"]).max() == 2**15 - 1 or found.activations["conv1"].max() == 2**16 - 1
    wide = run_values(run, "test", 2, activation_bits=8)
    assert wide.activations["conv2"].max() == 255
    with pytest.raises(ValueError, match="activations must be one of"):
        run_values(run, "tests", 2)
    with pytest.raises(ValueError, match="images must be at least 1, not 0"):
        run_values(run, "test", 0)


@pytest.mark.slow
def test_a_run_is_priced_on_its_images(run: TrainedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["score", str(run.path), "--activations", "validation", "--images", "3", "--run", str(tmp_path), "--json"]
    for name in ("dynamic_stripes", "pragmatic", "loom", "laconic"):
        assert main([*words, "--hardware", name]) == 0
        found = json.loads(capsys.readouterr().out)
        values = run_values(run, "validation", 3)
        weights = {"weights": values.weights} if isinstance(load_hardware(name), Laconic) else {}
        expected = load_hardware(name).run(
            run.layers, run.weight_bits(), run.activation_bits(), activations=values.activations, **weights
        )
        assert found["totals"]["compute_cycles"] == expected.compute_cycles
        assert found["values"] == {"of": "validation", "samples": 3}

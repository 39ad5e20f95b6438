"""Grids that are compared as the defaults: their levels, and the table on runs that can be worked out."""

from __future__ import annotations

import math
import subprocess
import sys

import pandas as pd
import pytest
import torch

from benchmarks.lab.grids import LearnedPowerOfTwo, TanhWithZero
from benchmarks.paper.default_grid import GRIDS, jobs_of, main, summary
from waveq.quantizers import quantizer_names


def test_grids_are_known_by_name_and_jobs_share_their_steps(tiny):
    assert set(GRIDS.values()) <= set(quantizer_names())
    listed = list(jobs_of(tiny, [0, 1], [2, 3]))
    assert len(listed) == 2 * 4 * 3
    assert {label["bits"] for label, _ in listed} == {"2", "3", "learned"}
    assert all((job.allocation is None) == ("bits" in job.attach) for _, job in listed)


@pytest.mark.slow
def test_processes_of_the_pool_know_the_grids():
    """They are new ones, and import what a training needs and nothing else."""
    asked = "import benchmarks.lab.training, waveq.quantizers as q; print(*q.quantizer_names())"
    known = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout.split()
    assert set(GRIDS.values()) <= set(known)


def test_the_grid_with_zero_has_one_level_less():
    weight = torch.linspace(-1, 1, 101)
    levels = TanhWithZero(weight, scale="max")(weight, torch.tensor(2.0)).unique()
    assert len(levels) == 7
    assert 0.0 in levels


@pytest.mark.parametrize("bits", [2, 3, 5])
def test_the_step_in_use_is_a_power_of_two_and_its_gradient_is_that_of_lsq(bits):
    weight = torch.randn(200, generator=torch.Generator().manual_seed(0))
    quantizer = LearnedPowerOfTwo(weight, total_bits=bits)
    rounded = quantizer(weight, torch.tensor(bits - 1.0))
    step = rounded.detach().unique().diff().min().item()
    assert math.log2(step) == pytest.approx(round(math.log2(step)), abs=1e-6)
    assert abs(math.log2(step / quantizer.step.item())) <= 0.5 + 1e-6
    rounded.sum().backward()
    assert quantizer.step.grad is not None
    assert quantizer.step.grad.item() != 0.0


def test_differences_are_taken_seed_by_seed():
    found = {"dorefa": (80.0, 70.0), "lsq": (81.0, 73.0)}
    rows = pd.DataFrame(
        [
            {"network": "n", "dataset": "d", "grid": grid, "seed": seed, "bits": "2", "test": test, "mean_bits": 2.0}
            for grid, tests in found.items()
            for seed, test in enumerate(tests)
        ]
    )
    table = summary(rows).set_index("grid")
    assert table.loc["dorefa", "2"] == "75.00 (5.00)"
    assert table.loc["lsq", "2"] == "77.00 (4.00), 2.00 (1.00)"


def test_a_network_that_starts_from_a_file_wants_one(options):
    with pytest.raises(ValueError, match="simplenet5 starts from a file of float weights"):
        main([*options, "--networks", "simplenet5"])

"""The picture experiments end to end on the digits: what they train, count and write."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

import waveq
from benchmarks.lab.data import images_of
from benchmarks.lab.training import accuracy, float_network
from benchmarks.lab.watch import all_on_grid, on_grid, share_near
from benchmarks.paper import figure5, figure6, figure7, figure8, table6


def written(folder: Path, name: str) -> tuple[dict, pd.DataFrame]:
    """What an experiment left behind: its JSON and its CSV; the picture must be one."""
    assert (folder / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    return json.loads((folder / f"{name}.json").read_text()), pd.read_csv(folder / f"{name}.csv")


def one_layer(values: list[float], **attach) -> tuple[nn.Sequential, waveq.WaveQ]:
    net = nn.Sequential(nn.Linear(len(values), 1, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([values]))
    return net, waveq.attach(net, **attach)


def test_positions_count_steps_of_the_grid():
    # clip(w) times 2^2 - 1 steps: levels are whole numbers
    net, handle = one_layer([1.0, 1 / 3, 0.5, -0.72, 2.0], quantizer="wrpn", scale="none", bits=3)
    found = on_grid(net[0])
    assert found.u.tolist() == pytest.approx([1.0, 1 / 3, 0.5, -0.72, 1.0])
    assert found.position.tolist() == pytest.approx([3.0, 1.0, 1.5, -2.16, 3.0])
    assert torch.equal(all_on_grid(net, handle), found.position)
    assert share_near(found.position) == pytest.approx(60.0)


def test_positions_on_the_mid_rise_grid_are_whole_where_the_quantised_weight_stays():
    net, _ = one_layer([0.9, -0.31, 0.07, 0.52], quantizer="dorefa", scale="max", bits=3)
    with torch.no_grad():
        quantised = net[0].weight / 0.9  # levels on [-1, 1], a step 2/7
    position = on_grid(net[0]).position.round()
    assert ((position - 0.5) * 2 / 7).tolist() == pytest.approx(quantised[0].tolist(), abs=1e-6)


def test_evenly_spread_weights_are_near_a_level_in_a_fifth_of_all_cases():
    assert share_near(torch.linspace(0.0, 100.0, 100_001)) == pytest.approx(20.0, abs=0.1)


@pytest.mark.slow
def test_figure6_shows_weights_gather_with_the_wave_alone(options, tmp_path):
    assert figure6.main(["--network", "digitsnet", "--seeds", "0", "--strength", "3", *options]) == 0
    data, rows = written(tmp_path, "figure6")
    assert data["arguments"]["strength"] == 3.0
    assert list(rows[(rows.grid == "mid-rise (DoReFa)") & rows.wave].epoch) == pytest.approx([0, 0.67, 1.33, 2])
    ends = rows[rows.epoch == 2].set_index(["grid", "wave"])["near_all"]
    for grid in figure6.GRIDS:
        assert ends[grid, True] > ends[grid, False] + 20.0
    counts = pd.read_csv(tmp_path / "figure6_histograms.csv")
    assert (counts.filter(like="bin").sum(axis=1) == 8 * 16 * 9).all()  # every weight of conv2 once


@pytest.mark.slow
def test_figure7_counts_what_its_paths_show(options, tmp_path):
    assert figure7.main(["--network", "digitsnet", "--seeds", "0", "--weights", "5", *options]) == 0
    _, rows = written(tmp_path, "figure7")
    assert list(rows.training) == ["no wave", "constant wave", "rising wave"]
    paths = pd.read_csv(tmp_path / "figure7_paths.csv")
    starts = paths[paths.step == 0].filter(like="weight").to_numpy()
    assert (starts == starts[0]).all()  # the same weights, from the same start
    by_name = rows.set_index("training")
    assert by_name.near["constant wave"] > by_name.near["no wave"]
    assert (rows.moved > 0).all()
    assert (rows.crossings > 0).all()


def test_figure7_counts_crossings_of_known_paths():
    net, handle = one_layer([1.0, 0.4, 0.1, -0.2], quantizer="wrpn", scale="none", bits=3, total_steps=4)
    watch = figure7.Paths("0", 2)
    # steps of 1/3: 0.4 -> level 1, 0.6 -> level 2; 0.1 -> level 0; one of four weights crosses, thrice in four steps
    for step, second in enumerate((0.4, 0.6, 0.4, 0.6, 0.6)):
        with torch.no_grad():
            net[0].parametrizations.weight.original[0, 1] = second
        watch(step, net, handle)
    seen = watch.seen()
    assert seen["crossings"] == pytest.approx(100.0 * 0.25 * 3 / 4)
    assert seen["crossings_late"] == 0.0
    assert seen["moved"] == 25.0
    assert seen["near"] == pytest.approx(25.0)  # 1.0 alone: 1.8, 0.3 and -0.6 steps are no levels
    assert seen["steps"] == [0, 1, 2, 3, 4]


@pytest.mark.slow
def test_figure8_draws_curves_that_end_where_the_job_ends(options, tmp_path):
    assert figure8.main(["--networks", "digitsnet", "--seeds", "0", "1", *options]) == 0
    data, rows = written(tmp_path, "figure8")
    assert len(rows) == len(figure8.CASES) * 2 * 2 * 21
    last = rows[(rows.start == "from scratch") & (rows.seed == 1)].groupby("wave").step.max()
    assert (last == 4 * 512 // 32).all()
    first = rows[rows.step == 0].groupby(["base", "start", "seed"]).validation.nunique()
    assert (first == 1).all()  # both methods start from one network
    start_loss = rows[(rows.step == 0) & (rows.base == "DoReFa, scaled")].groupby("start").loss.mean()
    assert start_loss["from the float network"] < start_loss["from scratch"]
    assert len(data["rows"]["lines"]) == len(rows)


@pytest.mark.slow
def test_figure5_takes_one_bit_from_each_layer_and_compares_with_the_control(options, tmp_path):
    asked = ["--networks", "digitsnet", "--seeds", "0", "1", "--mean-bits", "3.5"]
    assert figure5.main([*asked, *options]) == 0
    _, rows = written(tmp_path, "figure5")
    assert list(rows.layer) == 2 * ["conv1", "conv2", "fc1", "fc2"]
    assert rows.groupby("seed").bits.mean().max() <= 3.5
    assert rows.retrained.notna().all()
    table = figure5.tabulate(rows)
    means = rows.groupby("seed").rounded.mean()
    assert table.loc[("digitsnet", figure5.AVERAGE), "one bit less, rounded"].startswith(f"{means.mean():.2f}")


@pytest.mark.slow
def test_figure5_changes_are_those_of_the_evaluator(tiny, where):
    policy = {"conv1": 4, "conv2": 3, "fc1": 2, "fc2": 4}
    changes = figure5.rounded(tiny, 0, policy, where)
    test = images_of(tiny, "cpu").test
    scores = []
    for bits in (policy, {**policy, "fc1": 1}):
        network = float_network(tiny, 0, where)
        waveq.attach(network, bits=bits, lambda_w=0.0, **figure5.BASE).finalize()
        scores.append(accuracy(network, test))
    assert changes["fc1"] == pytest.approx(scores[1] - scores[0], abs=1e-9)


@pytest.mark.slow
def test_table6_trains_from_scratch_and_takes_differences_by_seed(options, tmp_path):
    asked = ["--networks", "digitsnet", "--bits", "3", "--seeds", "0", "1"]
    assert table6.main([*asked, *options]) == 0
    data = json.loads((tmp_path / "table6.json").read_text())
    rows = pd.read_csv(tmp_path / "table6.csv")
    assert len(rows) == 2 * (1 + 2 * len(table6.BASES))
    scaled = rows[rows.base == "DoReFa, scaled"].pivot_table(index="seed", columns="wave", values="test")
    line = dict(zip(data["table"]["columns"], data["table"]["lines"][1], strict=True))
    assert line["base"] == "DoReFa, scaled"
    assert line["difference"].startswith(f"{(scaled[True] - scaled[False]).mean():.2f}")


def test_table6_quick_takes_the_networks_and_images_it_says():
    args = argparse.Namespace(budget="quick", dataset="fashion-mnist", bits=None)
    row, bits = table6.plan_of("resnet20", args)
    assert (row.images, bits) == (3000, (3,))
    full = argparse.Namespace(budget="full", dataset="fashion-mnist", bits=None)
    assert table6.plan_of("resnet20", full)[1] == (3, 4, 5)
    job = table6.from_scratch(row, 0, table6.BASES["LSQ"], 3, wave=True)
    assert job.scratch
    assert job.attach == {"quantizer": "lsq", "bits": 3, "schedule": "exponential", "lambda_w": 0.3}

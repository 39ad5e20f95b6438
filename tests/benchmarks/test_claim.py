"""The claim's harness end to end on the digits, and its parts on cases that can be worked out."""

from __future__ import annotations

import copy
import json
import signal
import subprocess
import sys
import time
from argparse import Namespace

import pandas as pd
import pytest
import torch
from torch import nn

from benchmarks.lab.choices import choices_of
from benchmarks.lab.equal_cost import above_ladder, spread_and_noise, verdict
from benchmarks.lab.losses import measured, rounded
from benchmarks.lab.relaxed import WAYS, learned_bits
from benchmarks.lab.search import learning
from benchmarks.paper import table2_simplenet5
from benchmarks.paper.claim import METHODS, main, setting_of
from stripes_sim import LayerShape, Stripes, cost_table

LAYERS = [LayerShape(name=str(i), kind="linear", in_channels=8, out_channels=8) for i in (0, 2, 4)]


@pytest.fixture
def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)]
    return nn.Sequential(*layers)


@pytest.fixture
def images() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(256, 8, generator=generator)
    return x, x.argmax(1)


@pytest.mark.parametrize("objective", ["macs", "bitops", "cycles"])
def test_what_is_found_keeps_the_limit_and_uses_it_up(network, images, objective):
    choices = choices_of(LAYERS, objective)
    table = measured(copy.deepcopy(network), images, seed=0)
    found = [choices.random(0.9, seed=3)]
    found += [look(table["weights"], table["inputs"], 0.9) for look in (choices.greedy, choices.ilp)]
    for way in WAYS:
        batches = [images] * 20
        own = copy.deepcopy(network)
        found.append(learned_bits(own, choices, 0.9, way, stream=batches, steps=20, lr=0.01))
    for weights, inputs in found:
        assert set(weights) == {"0", "2", "4"}
        assert set(inputs) == ({"2", "4"} if objective == "bitops" else set())
        assert 0.75 < choices.share((weights, inputs)) <= 0.9 + 1e-9


def test_ilp_gives_the_bits_to_the_layer_that_loses_most():
    choices = choices_of(LAYERS, "macs")
    flat = dict.fromkeys(range(2, 9), 0.0)
    losses = {"0": flat, "2": {b: 2.0 ** (-2 * b) for b in range(2, 9)}, "4": flat}
    weights, inputs = choices.ilp(losses, losses, 1.0)
    assert (weights["2"], inputs) == (5, {})
    assert weights["0"] == weights["4"] == 2


def test_real_bits_become_whole_ones_where_most_is_missing():
    choices = choices_of(LAYERS, "macs")
    weights, _ = choices.whole({"0": 2.9, "2": 3.2, "4": 2.1}, {}, limit=8 / 9)
    assert weights == {"0": 3, "2": 3, "4": 2}
    with pytest.raises(ValueError, match=r"2 bits everywhere already cost 0\.6667"):
        choices.whole({"0": 2.0, "2": 2.0, "4": 2.0}, {}, limit=0.5)


def test_levels_of_the_measured_losses():
    values = torch.linspace(-1, 1, 101)
    assert len(rounded(values, 3, signed=True).unique()) == 7
    assert len(rounded(values.abs(), 3, signed=False).unique()) == 8
    assert torch.equal(rounded(torch.zeros(5), 2, signed=True), torch.zeros(5))


def test_the_ladder_leaves_out_steps_that_a_cheaper_one_beats():
    steps = {"2/2": (1.0, 80.0), "3/2": (2.0, 70.0), "3/3": (3.0, 84.0)}
    ladder = pd.DataFrame(
        [{"seed": s, "policy": p, "cost": c, "test": t} for s in (0, 1) for p, (c, t) in steps.items()]
    )
    rows = pd.DataFrame({"seed": [0, 1, 7], "cost": [2.0, 2.0, 2.0], "test": [83.0, 81.0, 99.0]})
    assert above_ladder(rows, ladder).fillna(-1).tolist() == [1.0, -1.0, -1.0]


def test_spread_and_noise_of_known_runs():
    seeds, policies = range(3), {"a": 80.0, "b": 82.0}
    runs = [{"policy": p, "seed": s, "test": level + s} for p, level in policies.items() for s in seeds]
    spread, noise = spread_and_noise(pd.DataFrame(runs))
    assert (round(spread, 6), round(noise, 6)) == (round(2**0.5, 6), 0.0)
    assert "can be told apart" in verdict({"spread": spread, "noise": noise})
    assert "too few" in verdict(dict(zip(("spread", "noise"), spread_and_noise(pd.DataFrame(runs[:3])), strict=True)))


@pytest.mark.slow
def test_every_method_from_end_to_end(options, tmp_path):
    words = ["--networks", "digitsnet", "--datasets", "digits", "--limits", "0.9", "--draws", "2", "--seeds", "0", "1"]
    assert main([*options, *words]) == 0
    rows = pd.read_csv(tmp_path / "claim.csv")
    assert set(rows.method) == {"uniform", *METHODS}
    limited = rows[rows.method != "uniform"]
    assert (limited.cost <= 0.9 * (1 + 1e-6)).all()
    assert len(rows) == 2 * (4 + len(METHODS) - 1 + 2)
    assert "digits, digitsnet, macs, 0.9" in json.loads((tmp_path / "claim.json").read_text())["verdicts"]


def test_no_time_is_told(options):
    with pytest.raises(ValueError, match="--minutes: no training was finished in time"):
        main([*options, "--networks", "digitsnet", "--datasets", "digits", "--minutes", "0", "--seeds", "5"])


WORDS = ["--networks", "digitsnet", "--datasets", "digits", "--seeds", "0"]
WORDS += ["--methods", "hawq", "random", "--limits", "0.9"]


@pytest.mark.slow
def test_what_a_killed_run_has_finished_is_read_by_the_next_one(tmp_path):
    folder = tmp_path / "lab"
    words = ["--budget", "tiny", "--processes", "0", "--folder", str(folder), "--out", str(tmp_path), *WORDS]
    killed = subprocess.Popen([sys.executable, "-m", "benchmarks", "claim", *words], stderr=subprocess.DEVNULL)
    for _ in range(600):
        if len(finished := list(folder.glob("cpu/*[0-9a-f].json"))) >= 3 or killed.poll() is not None:
            break
        time.sleep(0.1)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL  # it was still at it
    made = {path: path.stat().st_mtime_ns for path in finished}
    assert main(words) == 0
    assert all(path.stat().st_mtime_ns == when for path, when in made.items())
    assert len(pd.read_csv(tmp_path / "claim.csv")) == 4 + 1 + 5  # ladder, hawq, draws


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--draws", "0"], "argument --draws: a whole number of at least 1 is expected, not '0'"),
        (["--share", "1"], "argument --share: a number from 0 on and below 1 is expected, not '1'"),
        (["--scale-rate", "-1"], "argument --scale-rate: a number from 0 on is expected, not '-1'"),
        (["--minutes", "nan"], "argument --minutes: a number from 0 on is expected, not 'nan'"),
        (["--processes", "-3"], "argument --processes: a whole number of at least 0 is expected, not '-3'"),
        (["--device", "gpu"], "argument --device: 'gpu' is no device of torch's"),
        (["--name", "a/b"], "argument --name: a file's name without folders is expected, not 'a/b'"),
        (["--methods", "rewoud"], "argument --methods: invalid choice: 'rewoud'"),
    ],
)
def test_options_that_are_none_are_named_before_anything_is_done(words, why, options, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*options, *WORDS, *words])
    assert stop.value.code == 2
    assert why in capsys.readouterr().err


@pytest.mark.slow
def test_budgets_and_shares_that_no_training_can_keep(options):
    with pytest.raises(ValueError, match=r"budget 0\.1 cannot be met: the fewest bits in every layer cost"):
        main([*options, *WORDS, "--methods", "random", "--limits", "0.1"])
    with pytest.raises(ValueError, match=r"--share 0 of 32 steps: 0 to search with, 32 left"):
        main([*options, *WORDS, "--methods", "steps", "--share", "0"])


def test_table_2_gives_the_wave_beside_each_base_seed_by_seed():
    args = Namespace(seeds=[0, 1], bits=[2, 3], bases=["DoReFa", "LSQ"], epochs=[1, 8], epochs_others=8)
    labels = [label for label, _ in table2_simplenet5.jobs_of(setting_of("depthwise", "quick", "cifar10"), args)]
    assert len(labels) == 2 * (1 + 2 * 2 * (1 + 2) + 2 * 2)  # seeds; float, DoReFa by rates and epochs, LSQ
    gained = {"DoReFa": 2.0, "LSQ": 0.0, "float": 0.0}
    rows = [{**label, "test": 70.0 + label["seed"] + gained[label["base"]] * label.get("wave", 0)} for label in labels]
    table = table2_simplenet5.summary(pd.DataFrame(rows)).set_index(["base", "epochs", "rate"])
    assert table.loc[("DoReFa", 8, "0.001"), "2 bits, wave"] == "72.50 (0.50), 2.00 (0.00)"
    assert table.loc[("LSQ", 8, "0.01"), "3 bits"] == "70.50 (0.50)"
    assert table.loc[("float", 8, "0.01"), "32 bits"] == "70.50 (0.50)"


def test_energy_of_a_machine_is_a_cost_of_weights_alone():
    choices = choices_of(LAYERS, "energy_pj")
    table = cost_table(LAYERS, Stripes(), bits=(2, 3, 4)).by_layer("energy_pj")
    assert choices.cost_of("2", 3, 0) == pytest.approx(table["2"][3])
    assert choices.cost_of("2", 2.5, 0) == pytest.approx((table["2"][2] + table["2"][3]) / 2)
    assert choices.share(choices.uniform(3, 0)) == pytest.approx(1.0)
    assert learning(choices, 1.0)["target"] == {"energy_pj": pytest.approx(1.0 / choices.share(choices.uniform(8, 0)))}


def test_gradients_of_a_cost_reach_real_bits():
    bits = torch.tensor(2.5, requires_grad=True)
    choices = choices_of(LAYERS, "macs")
    choices.cost_of("2", bits, 0).backward()
    assert bits.grad is not None
    assert bits.grad.item() == 64.0  # multiplications

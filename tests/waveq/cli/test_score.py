"""`waveq score`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from stripes_sim import Stripes, read_workload, trace, write_workload
from waveq.cli.app import main
from waveq.policy import Policy
from waveq.zoo import build

LENET = ["--model", "lenet"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def scored(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    assert main(["score", *words, "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_totals_are_those_of_the_library(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layers = trace(build("lenet"), (1, 28, 28))
    expected = Stripes().run(layers, 4)
    found = scored(capsys, "4", *LENET)
    assert found["totals"] == expected.score
    assert [saving["baseline"].split(" with ")[1] for saving in found["savings"]] == [  # type: ignore[attr-defined]
        "all weights at 16 bits, activations at 16 bits",
        "all weights at 8 bits, activations at 16 bits",
    ]


def test_table_names_layers_totals_and_both_baselines(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "4", *LENET]) == 0
    text = capsys.readouterr().out
    for word in ("conv1", "fc2", "total", "all weights at 16 bits", "all weights at 8 bits"):
        assert word in text


@pytest.mark.slow
def test_files_of_a_run_folder_and_the_picture(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "4", *LENET, "--breakdown", "--run", "out"]) == 0
    assert sorted(path.name for path in (here / "out").iterdir()) == [
        "breakdown.png",
        "score.csv",
        "score.json",
        "score.txt",
    ]
    assert (here / "out" / "breakdown.png").read_bytes()[:4] == b"\x89PNG"
    assert (here / "out" / "score.txt").read_text() == capsys.readouterr().out


def test_policy_file_with_skipped_layers_prices_them_at_16_bits(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Policy({"conv2": 3, "fc1": 2}, skipped=("conv1", "fc2"), activation_bits={"fc1": 4}).save("p.json")
    found = scored(capsys, "p.json", *LENET)
    rows = found["layers"]
    assert [row["weight_bits"] for row in rows] == [16, 3, 2, 16]  # type: ignore[attr-defined]
    assert [row["activation_bits"] for row in rows] == [16, 16, 4, 16]  # type: ignore[attr-defined]


MINE = """
import torch
from torch import nn


def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2))


class Called(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.out = nn.Embedding(9, 4), nn.Linear(4, 2)

    def forward(self, ids, scale):
        return self.out(self.words(ids)) * scale


def called():
    return Called(), {"ids": torch.zeros(1, 5, dtype=torch.int64), "scale": 2.0}
"""


SENSED = """
import torch
from torch import nn


def net():
    return nn.Conv2d(1, 2, 3)


def pair():
    return net(), torch.ones(2, 1, 4, 4)
"""


def test_a_model_of_ones_own_by_module_and_function(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "their_models.py").write_text(MINE)
    monkeypatch.syspath_prepend(str(here))
    found = scored(capsys, "4", "--model", "their_models:net", "--input-shape", "3x8x8")
    assert [(row["name"], row["macs"]) for row in found["layers"]] == [("0", 4 * 27 * 36), ("2", 288)]  # type: ignore[attr-defined]
    assert found["run"] == "runs/score-net-4"
    # a pair gives what the model is called with
    found = scored(capsys, "4", "--model", "their_models:called")
    assert [row["name"] for row in found["layers"]] == ["words", "out"]  # type: ignore[attr-defined]
    (here / "inputs.json").write_text('{"0": 5, "2": 7}')
    words = ["4", "--model", "their_models:net", "--input-shape", "3x8x8", "--activation-bits", "inputs.json"]
    assert [row["activation_bits"] for row in scored(capsys, *words)["layers"]] == [5, 7]  # type: ignore[attr-defined]


def test_a_language_model_is_priced_by_its_configuration(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    (here / "small.json").write_text(json.dumps({**config, "vocab_size": 50, "num_key_value_heads": 2}))
    words = ["score", "4", "--llm", "small.json", "--context", "64", "--group-size", "16"]
    assert main([*words, "--phase", "decode"]) == 0
    assert "tokens per second, most cycles wait for: DRAM" in capsys.readouterr().out
    one = scored(capsys, *words[1:])
    assert one["run"] == "runs/score-small-4"
    assert one["tokens_per_s"] == pytest.approx(1 / one["seconds"])  # type: ignore[operator]
    many = scored(capsys, *words[1:], "--batch", "4")
    assert many["tokens_per_s"] == pytest.approx(4 / many["seconds"])  # type: ignore[operator]
    assert many["tokens_per_s"] > one["tokens_per_s"]  # type: ignore[operator]
    wide, narrow = (scored(capsys, *words[1:], "--cache-bits", bits)["totals"]["dram_pj"] for bits in ("16", "4"))  # type: ignore[index]
    assert narrow < wide
    prefill = scored(capsys, *words[1:], "--phase", "prefill")
    assert prefill["tokens_per_s"] == pytest.approx(64 / prefill["seconds"])  # type: ignore[operator]


def test_a_workload_file_needs_no_network(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layers = trace(build("lenet"), (1, 28, 28))
    write_workload("net.csv", layers)
    assert read_workload("net.csv") == layers
    assert scored(capsys, "4", "--workload", "net.csv")["totals"] == scored(capsys, "4", *LENET)["totals"]


@pytest.mark.slow
def test_run_folder_knows_its_network(run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = scored(capsys, str(run_copy))
    policy = Policy.load(run_copy / "policy.json")
    assert {row["name"]: row["weight_bits"] for row in found["layers"]} == dict(policy)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_values_of_a_model_of_ones_own(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "sensed_models.py").write_text(SENSED)
    monkeypatch.syspath_prepend(str(here))
    np.save(here / "images.npy", np.ones((3, 1, 4, 4), dtype=np.float32))
    words = ["4", "--model", "sensed_models:net", "--input-shape", "1x4x4", "--hardware", "pragmatic"]
    found = scored(capsys, *words, "--activation-bits", "4", "--activations", "images.npy", "--images", "2")
    assert found["values"] == {"of": "images.npy", "samples": 2}
    # 15 in every place: four ones for each of four windows in one set and nine taps
    assert found["totals"]["compute_cycles"] == 4 * 9  # type: ignore[index]
    pair = ["4", "--model", "sensed_models:pair", "--hardware", "pragmatic", "--activation-bits", "4"]
    # the workload of a pair is that of all its samples
    assert scored(capsys, *pair, "--activations", "inputs")["totals"]["compute_cycles"] == 2 * 4 * 9  # type: ignore[index]
    for wrong, expected in [
        ([*words], "computes with the values of its layers"),
        ([*words, "--activations", "inputs"], "sensed_models:net gives a model without them; name a .npy file"),
        ([*words, "--activations", "none.npy"], "--activations none.npy: must be a .npy file of inputs"),
        (
            ["4", *LENET, "--activations", "validation", "--hardware", "loom"],
            "--activations needs a network with trained weights",
        ),
        ([*words, "--activations", "images.npy", "--images", "0"], "--images must be at least 1, but it is 0"),
    ]:
        assert main(["score", *wrong]) == 2
        assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["4"], "--model NAME, or --workload FILE"),
        (["17", *LENET], "17"),
        (["0", *LENET], "0"),
        (["nowhere.json", *LENET], "neither a run folder, a policy file nor a number"),
        (["runs/dem0"], "runs/dem0: neither a run folder, a policy file nor a number of bits; did you mean runs/demo?"),
        (["misspelt.json", *LENET], "did you mean 'conv1'?"),
        (["missing.json", *LENET], "fc2"),
        (["4", "--model", "lenett"], "did you mean 'lenet'?"),
        (["4", *LENET, "--input-size", "8"], "input_size: lenet does not fit"),
        (["4", *LENET, "--hardware", "bad.toml"], "clock_hz"),
        (["4", "--workload", "blank.csv"], "blank.csv"),
        (["4", *LENET, "--input-size", "0"], "--input-size must be at least 1, but it is 0"),
        (["4", *LENET, "--in-channels", "0"], "--in-channels must be at least 1, but it is 0"),
        (["4", *LENET, "--num-classes", "0"], "--num-classes must be at least 1, but it is 0"),
        (["4", *LENET, "--default-bits", "99"], "--default-bits must be from 1 to 16, but it is 99"),
        (["4", *LENET, "--activation-bits", "0"], "--activation-bits must be from 1 to 16, but it is 0"),
        (["4", *LENET, "--activation-bits", "none.json"], "must be a number or a JSON file of bits by layer"),
        (["4", *LENET, "--input-shape", "3x8"], "--input-shape says nothing of lenet: leave it out"),
        (["4", "--workload", "blank.csv", "--num-classes", "3"], "--num-classes says nothing of blank.csv"),
        (["4", "--model", "mine:net", "--input-size", "8"], "--input-size says nothing of mine:net: leave it out"),
        (["4", "--model", "mine:net", "--input-shape", "3*8"], "--input-shape must be sizes such as 3x224x224"),
        (["4", "--model", "no_such_module:net"], "no module 'no_such_module' in the current folder"),
        (["4", "--model", "json:dunps"], "module 'json' has no 'dunps'; did you mean 'dumps'?"),
        (["4", "--llm", "llama-7"], "did you mean 'llama-7b'?"),
        (["4", "--llm", "llama-7b", "--phase", "both"], "phase must be one of ('prefill', 'decode')"),
        (["4", "--llm", "llama-7b", "--input-size", "8"], "--input-size says nothing of llama-7b"),
        (["4", "--llm", "none.json"], "none.json"),
        (["4", *LENET, "--context", "8"], "--context is for --llm: leave it out"),
        (["4", *LENET, "--llm", "llama-7b"], "say which network the policy is for"),
        (["4", *LENET, "--batch", "0"], "--batch must be at least 1, but it is 0"),
    ],
)
def test_bad_input(here: Path, words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "runs" / "demo").mkdir(parents=True)
    (here / "runs" / "demo" / "config.json").write_text("{}")
    (here / "misspelt.json").write_text('{"conv_1": 3, "conv2": 3, "fc1": 3, "fc2": 3}')
    (here / "missing.json").write_text('{"conv1": 3, "conv2": 3, "fc1": 3}')
    (here / "bad.toml").write_text('base = "stripes"\nclock_hz = -1.0\n')
    (here / "blank.csv").write_text("\n")
    assert main(["score", *words]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_roofline_and_files_for_other_simulators(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["score", "4", *LENET, "--run", "out", "--roofline", "--ceilings", "2,8"]
    assert main([*words, "--export", "scalesim", "--export", "zigzag"]) == 0
    assert "roofline.png" in capsys.readouterr().err
    assert (here / "out" / "roofline.png").read_bytes()[:4] == b"\x89PNG"
    assert (here / "out" / "scalesim" / "topology.csv").exists()
    assert (here / "out" / "zigzag" / "workload.yaml").exists()


def test_bad_ceilings_and_formats(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["--ceilings", "2"], "--ceilings says nothing without --roofline"),
        (["--roofline", "--ceilings", "17"], "--ceilings must lie in 1..16"),
        (["--export", "zigzg"], "did you mean 'zigzag'?"),
    ):
        assert main(["score", "4", *LENET, *words]) == 2
        assert message in capsys.readouterr().err
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("policy.json", '"fc1"', '"fc_1"', "the second has no bits for 'fc_1'; did you mean 'fc1'?"),
        ("result.json", '"fc1"', '"fc_1"', "the second has no bits for 'fc1'; did you mean 'fc_1'?"),
        ("result.json", '"fc1": ', '"fc1": 1', "'fc1' has "),
    ],
)
def test_a_policy_that_is_not_that_of_the_result_is_refused(
    run_copy: Path, capsys: pytest.CaptureFixture[str], file: str, old: str, new: str, told: str
) -> None:
    text = (run_copy / file).read_text()
    assert old in text
    (run_copy / file).write_text(text.replace(old, new))
    assert main(["score", str(run_copy)]) == 2
    refused = " ".join(capsys.readouterr().err.split())
    assert told in refused
    assert "do not belong together" in refused

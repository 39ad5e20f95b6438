"""`waveq train`: what its words become, and a short real run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import waveq.train.run
from waveq.cli.app import main
from waveq.train.config import TrainConfig

SHORT = ["--pretrain-epochs", "1", "--epochs", "1", "--batch-size", "128", "--threads", "1"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, designed: Any) -> list[TrainConfig]:
    """Instead of training, note the config that training would have been given."""
    configs: list[TrainConfig] = []

    def note(config: TrainConfig, *, say: Any) -> Any:
        configs.append(config)
        return designed.training

    monkeypatch.setattr(waveq.train.run, "train", note)
    return configs


@pytest.mark.slow
def test_words_become_fields(asked: list[TrainConfig], tmp_path: Path) -> None:
    words = ["train", "--recipe", "digits", "--bits", "3", "--quantizer", "wrpn", "--skip", "conv1", "--skip", "fc*"]
    words += [
        "--lambda-w",
        "0.5",
        "--seed",
        "7",
        "--set",
        "momentum=0.5",
        "--set",
        "log-every=3",
        "--run",
        str(tmp_path),
    ]
    assert main(words) == 0
    (config,) = asked
    assert (config.bits, config.quantizer, config.skip, config.lambda_w) == (3, "wrpn", ("conv1", "fc*"), 0.5)
    assert (config.seed, config.momentum, config.log_every, config.run_dir) == (7, 0.5, 3, tmp_path)
    assert config.dataset == "digits"
    assert config.progress


@pytest.mark.slow
def test_the_shipped_recipe_is_found_by_network_and_data(asked: list[TrainConfig]) -> None:
    from waveq.train.config import load_recipe

    assert main(["train", "--dataset", "fashion-mnist", "--model", "simplenet5", "--quiet"]) == 0
    assert main(["train", "--dataset", "digits", "--quiet"]) == 0
    assert main(["train", "--quiet"]) == 0
    fashion = load_recipe("fashion-mnist", progress=False)
    assert asked == [fashion, load_recipe("digits", progress=False), fashion]


def test_target_and_hardware(asked: list[TrainConfig]) -> None:
    from waveq.codesign.pipeline import weigh_by_cost

    words = ["train", "--recipe", "digits", "--target", "energy_pj=0.4", "--hardware", "stripes", "--quiet"]
    assert main(words) == 0
    (config,) = asked
    assert config.target == {"energy_pj": 0.4}
    assert config.layer_costs is not None
    assert set(config.layer_costs) == {"conv1", "conv2", "fc1", "fc2"}
    from stripes_sim import Stripes

    again = weigh_by_cost(config, Stripes(), "energy_pj")
    assert again.layer_costs == config.layer_costs


def test_both_operands(asked: list[TrainConfig]) -> None:
    words = ["train", "--recipe", "digits", "--activation-bits", "learn", "--quiet"]
    assert main([*words, "--target", "bitops=0.4", "--bits", "4"]) == 0
    assert main([*words, "--target", "energy_pj=0.4", "--hardware", "stripes"]) == 0
    assert main([*words, "--activation-bits", "4"]) == 0
    both, priced, preset = asked
    assert (both.activation_bits, both.bits, both.target, both.layer_costs) == ("learn", 4, {"bitops": 0.4}, None)
    assert priced.layer_costs is not None
    assert set(priced.layer_costs["fc1"][2]) == {*range(1, 9), 16}  # type: ignore[index]
    assert preset.activation_bits == 4


@pytest.mark.slow
def test_the_targets_cost_is_the_one_that_layers_are_weighed_by(asked: list[TrainConfig]) -> None:
    words = ["train", "--recipe", "digits", "--hardware", "stripes", "--quiet"]
    for more in (["--target", "cycles=0.5"], ["--objective", "cycles"], ["--target", "mean_bits=3"], []):
        assert main([*words, *more]) == 0
    cycles, also_cycles, energy, also_energy = (config.layer_costs for config in asked)
    assert cycles == also_cycles != energy == also_energy


def test_no_recipe_for_the_pair_says_so(asked: list[TrainConfig], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--dataset", "digits", "--model", "lenet"]) == 0
    assert "no shipped recipe fits" in capsys.readouterr().err
    assert (asked[0].model, asked[0].dataset) == ("lenet", "digits")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--recipe", "digit"], "did you mean 'digits'?"),
        (["--set", "momentm=0.9"], "did you mean 'momentum'?"),
        (["--set", "momentum"], "NAME=VALUE"),
        (["--target", "4 bits"], "NAME=NUMBER"),
        (["--recipe", "digits", "--target", "energy_pj=0.4"], "say on which accelerator, --hardware stripes"),
        (
            ["--recipe", "digits", "--target", "bitops=0.4", "--hardware", "stripes"],
            "--hardware contradicts the target",
        ),
        (["--recipe", "digits", "--bits", "4", "--target", "bitops=0.4"], "target is a budget for learned bits"),
        (["--activation-bits", "many"], "activation_bits"),
        (["--recipe", "digits", "--hardware", "strips"], "did you mean 'stripes'?"),
        (["--recipe", "digits", "--hardware", "stripes", "--objective", "energy"], "energy_pj"),
        (["--bits", "many"], "bits"),
        (["--recipe", "digits", "--lr", "-1"], "--lr: lr is -1.0: input should be greater than 0"),
        (["--recipe", "digits", "--set", "momentum=2"], "--set: momentum is 2: "),
        (
            ["--recipe", "digits", "--model", "my:net", "--set", "width=2"],
            "--model, --set: width says nothing of my:net",
        ),
        (
            ["--recipe", "digits", "--bits", "4", "--no-rewind", "--set", "search_share=0.3"],
            "--bits, --no-rewind, --set: search_share",
        ),
        (["--model", "simplenet5"], "several recipes fit"),
        (["--model", "lenet"], "give both --model and --dataset"),
    ],
)
def test_bad_input(words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *words]) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.slow
def test_a_real_run_resumes_as_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--recipe", "digits", *SHORT, "--run", str(tmp_path / "run"), "--json"]
    assert main(words) == 0
    first = json.loads(capsys.readouterr().out)
    assert set(first["bits"]) == {"conv1", "conv2", "fc1", "fc2"}
    assert main([*words[:-1], "--quiet"]) == 0
    text = capsys.readouterr().out
    assert f"{100 * first['test_accuracy']:.2f}" in text
    assert "next: waveq score" in text
    assert main([*words, "--lr", "0.5"]) == 2
    assert "lr 0.02 (now 0.5)" in capsys.readouterr().err


def test_a_policy_file_brings_its_quantizer(tmp_path: Path) -> None:
    from waveq.policy import Policy
    from waveq.train.config import parse_config

    path = tmp_path / "policy.json"
    Policy({"conv1": 3}, quantizer="wrpn").save(path)
    assert parse_config({"bits": str(path)}).quantizer == "wrpn"
    assert parse_config({"bits": str(path), "quantizer": "lsq"}).quantizer == "lsq"  # refused by attach
    path.write_text('{"conv1": 3}')
    assert parse_config({"bits": path}).quantizer == "lsq"
    assert parse_config({"bits": path, "preset": "released"}).quantizer == "dorefa"
    assert parse_config({"bits": tmp_path / "none.json"}).quantizer == "lsq"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"policy\.json: damaged: not valid JSON"):
        parse_config({"bits": path})


@pytest.mark.slow
def test_warnings_are_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--recipe", "digits", *SHORT, "--set", "beta_lr=0.0001", "--run", str(tmp_path / "run")]
    assert main([*words, "--json"]) == 0
    warnings = json.loads(capsys.readouterr().out)["warnings"]
    assert warnings, "bits that hardly moved are doubtful"
    assert main([*words[:-1], str(tmp_path / "again")]) == 0
    told = capsys.readouterr()
    assert [told.out.count(warning) for warning in warnings] == [1] * len(warnings)
    assert not any(warning in told.err for warning in warnings)


def test_ctrl_c_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[BaseException] = [KeyboardInterrupt(), waveq.train.TrainingInterrupted("No checkpoint was written.")]

    def stop(_config: TrainConfig, *, say: Any) -> Any:
        raise told.pop(0)

    monkeypatch.setattr(waveq.train.run, "train", stop)
    for expected in (
        f"Everything is in {tmp_path / 'run'}, and the same command goes on",
        "No checkpoint was written.",
    ):
        assert main(["train", "--recipe", "digits", "--run", str(tmp_path / "run")]) == 130
        assert f"stopped. {expected}" in capsys.readouterr().err


@pytest.mark.slow
def test_inputs_learn_in_a_real_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--recipe", "digits", *SHORT, "--activation-bits", "learn", "--target", "bitops=0.5", "--quiet"]
    words += ["--epochs", "2", "--finetune-epochs", "1", "--run", str(tmp_path / "run")]
    assert main(words) == 0
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()[:2]] == ["inputs", "float"]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    policy = json.loads((tmp_path / "run" / "policy.json").read_text())
    assert result["input_bits"] == policy["activation_bits"]
    assert set(result["input_bits"]) == {"conv2", "fc1", "fc2"}
    assert "input_beta/conv2" in (tmp_path / "run" / "search" / "metrics.csv").read_text()
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["input_bits"] == result["input_bits"]
    assert main(["score", str(tmp_path / "run")]) == 0

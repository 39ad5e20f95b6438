"""Wrong command lines: one sentence each, code 2, and a hint that leads to what was meant."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from waveq.cli.app import main
from waveq.cli.parsing import changed_protocol

LINES = [
    ("train --target meanbits=3", "did you mean 'mean_bits'?"),
    ("train --target mean_bits", "must be NAME=NUMBER"),
    ("train --target mean_bits=nan", "must be NAME=NUMBER"),
    ("train --target mean_bits=99", "--target mean_bits must be total bits, from 1 to 9, but it is 99"),
    ("train --target bitops=30", "--target bitops must be a share of the cost at 8 bits"),
    ("train --target energy=0.4 --hardware stripes", "did you mean 'energy_pj'?"),
    ("train --target energy_pj=0.4", "say on which accelerator"),
    ("train --quantizer lqs", "did you mean 'lsq'?"),
    ("train --preset papr", "did you mean 'paper'?"),
    ("train --activation-quantizer rang", "did you mean 'range'?"),
    ("train --activation-bits lern", "did you mean 'learn'?"),
    ("train --schedule three_phase", "did you mean 'three-phase'?"),
    ("train --scale maxx", "did you mean 'max'?"),
    ("train --granularity chanel", "did you mean 'channel'?"),
    ("train --set momentun=0.5", "did you mean 'momentum'?"),
    ("train --dataset fashion-mnits", "did you mean 'fashion-mnist'?"),
    ("train --recipe digit", "did you mean 'digits'?"),
    ("train --workload net.csv", "accuracy needs a network that computes"),
    ("enumerate --llm llama-7b", "accuracy needs a network that computes"),
    ("enumerate", "a run folder, or --model"),
    ("sensitivity --data digits", "--data is for --model"),
    ("score 44 --model lenet", "policy 44: bits are from 1 to 16"),
    ("score 0 --workload net.csv", "policy 0: bits are from 1 to 16"),
    ("score 4.5 --model lenet", "neither a run folder, a policy file nor a number of bits"),
    ("score 4", "--model NAME, or --workload FILE, or --llm NAME"),
    ("score 4 --workload nothing.csv", "nothing.csv: cannot be read"),
    ("score 4 --workload net.csv --model lenet", "--model NAME, or --workload FILE, or --llm NAME"),
    ("score 4 --workload net.csv --input-size 8", "--input-size says nothing of net.csv"),
    ("score 4 --workload net.csv --context 9", "--context is for --llm"),
    ("score 4 --workload net.csv --export zigzg", "did you mean 'zigzag'?"),
    ("score 4 --llm llama-8b", "did you mean 'llama-3-8b'?"),
    ("explore 4 --workload net.csv --grid tile=1,2", "did you mean 'tiles'?"),
    ("explore 4 --workload net.csv --sense area=min", "did you mean 'area_mm2'?"),
    ("explore 4 --workload net.csv --phase decode", "--phase is for --llm"),
    ("hardware dadianao", "did you mean 'dadiannao'?"),
    ("frontier pol.json", "mark a policy with --policy pol.json"),
    ("frontier nothing.csv", "nothing.csv is not there"),
    ("data --check digit", "did you mean 'digits'?"),
    ("scor 4", "Did you mean 'score'?"),
    ("SCORE 4", "did you mean 'score'?"),
    ("score 4 --workload net.csv --batch=1.5", "--batch must be a whole number, not '1.5'"),
    ("frontier net.csv --budget 3 --budget x", "--budget must be a number, not 'x'"),
    ("score 4 --workload net.csv --run net.csv", "net.csv: a file, where a folder is wanted"),
    ("score 4 --model my_lab.net --input-shape 1x8x8", "did you mean my_lab:net?"),
    ("score 4 --model lennet --input-shape 1x8x8", "did you mean 'lenet'?"),
    ("score 4 --workload net.csv --activations inputs", "--activations says nothing on stripes"),
    ("explore 4 --workload net.csv --grid tiles=1 --grid tiles=2", "--grid names tiles twice"),
    ("frontier .", ". is no run folder"),
    ("search run --floor 200", "--floor must be a percentage from 0 to 100, but it is 200"),
    ("codesign run --grid tiles=1 --budget 0.3", "--budget is for bits that are learned"),
    ("codesign run --grid tiles=1 --how learn --budget 3", "more than 0 and at most 1, not 3"),
    ("export run --to npz --path x.onnx", "--path x.onnx ends like another target's file"),
    ("train --recipe old", "did you mean old/config.json?"),
    ("sweep", "say what is swept"),
    ("sweep --recipe digits --grid target.mean_bit=3", "did you mean 'mean_bits'?"),
    ("sweep --recipe digits --grid target.energy_pj=0.3", "say on which machine, hardware stripes"),
    ("sweep --recipe digits --grid quantizer=lqs", "did you mean 'lsq'?"),
    ("sweep --recipe digits --grid seed=0 --run old", "old is the folder of one run"),
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.csv").write_text("name,kind,in_channels,out_channels\nfc,linear,8,4\n")
    (tmp_path / "pol.json").write_text('{"bits": {"fc": 3}}')
    (tmp_path / "my_lab.py").touch()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.json").write_text("{}")
    return tmp_path


@pytest.mark.slow
def test_the_help_of_scoring_puts_the_network_together(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("score", "explore"):
        assert main([verb, "--help"]) == 0
        network = capsys.readouterr().out.partition("The network, where the policy is no run folder:")[2]
        assert all(
            option in network.partition("Options:")[0] for option in ("--model", "--data", "--workload", "--llm")
        )


@pytest.mark.parametrize(("line", "expected"), LINES, ids=[line for line, _ in LINES])
def test_a_wrong_line(line: str, expected: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.strip().splitlines()) == 1
    assert expected in captured.err
    assert not (here / "runs").exists()  # nothing was begun


def test_a_rate_without_training_says_nothing() -> None:
    with pytest.raises(ValueError, match="--finetune-lr says nothing without fine-tuning"):
        changed_protocol(None, None, None, 0.1)
    assert changed_protocol(None, "test", 2, 0.1).finetune_lr == 0.1


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("waveq 0.")


def test_the_help_of_training_stands_in_groups_and_lists_choices(capsys: pytest.CaptureFixture[str]) -> None:
    from waveq.quantizers import activation_quantizer_names, quantizer_names
    from waveq.train.recipe_files import recipe_names
    from waveq.zoo.datasets.sources import SOURCES
    from waveq.zoo.networks.models import network_names

    assert main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    titles = ["What is trained:", "Bits:", "Method:", "Steps:", "Options:"]
    places = [text.index(f"\n{title}\n") for title in titles]
    assert places == sorted(places)
    words = set(re.split(r"[\s,.;]+", text))
    benchmarks = {"dorefa-with-zero", "lsq-power-of-two", "depthwise"}  # theirs, where other tests have imported them
    own = {*quantizer_names(), *activation_quantizer_names(), *network_names()} - benchmarks
    assert {*own, "recommended", "three-phase", "bf16"} <= words
    assert {*recipe_names(), *SOURCES, "compute_cycles"} <= words


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["sweep", "enumerate", "search", "codesign", "sensitivity"])
def test_the_help_of_what_measures_stands_in_groups(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "-h"]) == 0
    text = capsys.readouterr().out
    title = "How the work is done:" if verb == "sweep" else "How accuracy is measured:"
    assert f"\n{title}\n" in text

"""`waveq train` searches for bits and rewinds: what the second part begins from, and exact resume."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import waveq
import waveq.train.run
from waveq.train.config import TrainConfig, parse_config
from waveq.train.materials import make_dataset, make_network
from waveq.train.run import TrainingInterrupted, train
from waveq.train.run_folder import RunFolder, load_weights, plain_weights
from waveq.train.stage import Stage


def digits(run_dir: Path, **changes: Any) -> TrainConfig:
    fields = {"model": "digitsnet", "dataset": "digits", "epochs": 2, "batch_size": 256, "lr": 0.05, "threads": 1}
    return parse_config(
        {**fields, "run_dir": run_dir, "progress": False, "log_every": 1, "search_share": 0.4, **changes}
    )


def silent(_line: str) -> None:
    pass


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def run_until(config: TrainConfig, monkeypatch: pytest.MonkeyPatch, *, asked: int) -> None:
    """Train until the run has been asked that often, after its steps, whether it was told to stop."""
    count = 0

    @contextmanager
    def told() -> Iterator[Callable[[], bool]]:
        def stop() -> bool:
            nonlocal count
            count += 1
            return count == asked

        yield stop

    with monkeypatch.context() as patched:
        patched.setattr(waveq.train.run, "signals_noted", told)
        with pytest.raises(TrainingInterrupted):
            train(config, say=silent)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "steps", "stops"),
    [
        pytest.param({"target": {"mean_bits": 3.0}}, 10, range(1, 11), id="sgd, at every step"),
        pytest.param(
            {"quantizer": "lsq", "activation_bits": 4, "optimizer": "adam", "accumulate": 2, "finetune_epochs": 1},
            9,
            (1, 2, 4, 7),
            id="scales, inputs, adam in pieces",
        ),
        pytest.param(
            {"model": "resnet20", "width": 0.25, "epochs": 1, "precision": "bf16", "search_share": 0.6},
            5,
            (2, 4),
            id="bf16",
        ),
        pytest.param({"precision": "64", "epochs": 1}, 5, (2, 3), id="64"),
        pytest.param({"distill": True, "pretrain_epochs": 1, "epochs": 1}, 10, (5, 6, 8), id="taught"),
        pytest.param({"forward": "float", "epochs": 1}, 5, (1, 2, 4), id="float road"),
    ],
)
def test_stopped_in_either_part_or_between_and_resumed_is_never_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], steps: int, stops: Iterable[int]
) -> None:
    whole = digits(tmp_path / "whole", **changes)
    result = train(whole, say=silent)
    assert sum(result.steps.values()) == steps
    for step in stops:
        config = digits(tmp_path / f"stopped-{step}", **changes)
        run_until(config, monkeypatch, asked=step)
        again = train(config, say=silent)
        assert again.to_dict() | {"run_dir": ""} == result.to_dict() | {"run_dir": ""}, f"stopped after step {step}"
        for name in ("weights.pt", "search/state.pt", "wave/state.pt"):
            assert same(load_weights(config.folder / name), load_weights(whole.folder / name)), (name, step)
        for name in ("search/metrics.csv", "wave/metrics.csv", "policy.json"):
            assert (config.folder / name).read_text() == (whole.folder / name).read_text(), (name, step)


@pytest.fixture(scope="module")
def rewound(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainConfig, Any]:
    config = digits(tmp_path_factory.mktemp("run") / "run", pretrain_epochs=1, target={"mean_bits": 3.0})
    return config, train(config, say=silent)


@pytest.mark.slow
def test_the_second_part_is_a_run_with_preset_bits_from_the_float_weights(
    tmp_path: Path, rewound: tuple[TrainConfig, Any]
) -> None:
    """As if nobody had searched: a run of those bits from the same float weights, but for its length."""
    config, result = rewound
    assert result.steps == {"float": 5, "search": 4, "wave": 6}
    assert waveq.Policy.load(config.folder / "policy.json").provenance["search"]["steps"] == 4
    dataset = make_dataset(config)
    network = make_network(config, dataset)
    network.load_state_dict(load_weights(config.folder / "float" / "weights.pt"))
    wq = waveq.attach(network, bits=waveq.Policy.load(config.folder / "policy.json"), total_steps=6)
    stage = Stage(
        name="wave",
        folder=RunFolder(tmp_path).stage("wave"),
        config=config,
        dataset=dataset,
        loader=waveq.train.run.make_loader(config, dataset, "wave"),
        total_steps=6,
        rate=config.lr,
        stop=lambda: False,
    )
    stage.run(network, wq)
    assert same(plain_weights(network.state_dict()), load_weights(config.folder / "wave" / "weights.pt"))


@pytest.mark.slow
def test_both_parts_are_told(rewound: tuple[TrainConfig, Any]) -> None:
    from waveq.cli.train import result_text
    from waveq.codesign.report import write_report

    config, result = rewound
    sentence = "are learned in 4 of 10 steps (40 %); the other 6 train the float weights with them"
    assert f"bits {sentence}" in result_text(result)
    assert "at the end of the search" in result_text(result)
    report = write_report(config.folder).read_text()
    assert f"Bits {sentence}. At the end of the search" in report
    betas = waveq.Policy.load(config.folder / "policy.json").provenance["search"]["betas"]
    assert all(f"| {name} | {result.bits[name]} | {beta:.2f} |" in report for name, beta in betas.items())
    with (config.folder / "search" / "metrics.csv").open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2", "3", "4", "4"]


@pytest.mark.slow
def test_a_search_has_no_teacher(tmp_path: Path, rewound: tuple[TrainConfig, Any]) -> None:
    """Its bits are those without one; the training that follows is another one."""
    config, _ = rewound
    taught = digits(tmp_path / "run", init=config.folder, target={"mean_bits": 3.0}, distill=True)
    train(taught, say=silent)
    states = [load_weights(each.folder / "search" / "state.pt") for each in (config, taught)]
    assert same(*states)
    assert not same(*(load_weights(each.folder / "weights.pt") for each in (config, taught)))


@pytest.mark.slow
def test_without_rewinding_bits_and_weights_are_learned_in_one_run(tmp_path: Path) -> None:
    result = train(digits(tmp_path / "run", rewind=False, search_share=None), say=silent)
    assert result.steps == {"wave": 10}
    assert result.search_validation_accuracy is None
    assert "search" not in waveq.Policy.load(tmp_path / "run" / "policy.json").provenance


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({}, (20, 80)),
        ({"search_share": 0.33}, (33, 67)),
        ({"search_share": 0.001}, (1, 99)),
        ({"search_share": 0.999}, (99, 1)),
        ({"rewind": False}, (0, 100)),
        ({"bits": 3}, (0, 100)),
        ({"preset": "paper"}, (0, 100)),
        ({"preset": "released", "rewind": True}, (20, 80)),
    ],
)
def test_how_a_run_is_parted(fields: dict[str, Any], parts: tuple[int, int]) -> None:
    config = parse_config(fields)
    assert config.parts(100) == parts
    assert config.searches == (parts[0] > 0)


def test_a_search_has_a_schedule_that_ends_with_it() -> None:
    assert parse_config({}).method("learn", 10).schedule == "search"
    assert parse_config({"schedule": "constant"}).method("learn", 10).schedule == "constant"
    assert parse_config({"rewind": False}).method("learn", 10).schedule is None
    assert parse_config({"bits": 4}).method(4, 10).schedule is None


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"bits": 3, "rewind": True}, "rewind is for learned bits"),
        ({"bits": 3, "search_share": 0.1}, "search_share is the length of a search"),
        ({"rewind": False, "search_share": 0.1}, "search_share is the length of a search"),
        ({"preset": "paper", "search_share": 0.1}, "search_share is the length of a search"),
        ({"search_share": 1.0}, "search_share is 1.0: input should be less than 1"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_config(fields)


def test_one_step_cannot_be_parted() -> None:
    with pytest.raises(ValueError, match="epochs: 1 step cannot be parted into search and training"):
        parse_config({}).parts(1)

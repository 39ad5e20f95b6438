"""The protocol by which all policies of a run are measured."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from stripes_sim import Stripes
from tests.waveq.conftest import tiny_config
from waveq.cli.app import main
from waveq.codesign.protocol import Protocol, evaluation, scale_of
from waveq.codesign.space import enumerate_run, run_protocol, run_sensitivity
from waveq.policy import Policy
from waveq.threads import torch_threads
from waveq.train.config import TrainConfig
from waveq.train.run import train
from waveq.train.trained_run import TrainedRun

TUNED = Protocol(finetune_epochs=1, finetune_lr=0.02)
ROWS = np.array([[2, 2, 2, 2], [4, 3, 2, 4], [8, 8, 8, 8]], dtype=np.uint8)


def accuracies(run: TrainedRun, protocol: Protocol) -> npt.NDArray[np.float64]:
    """In percent, of ROWS."""
    found: npt.NDArray[np.float64] = 100.0 * evaluation(run, protocol).correct(ROWS).mean(axis=1)
    return found


def test_plain_data_and_back() -> None:
    for protocol in (Protocol(), Protocol(part="test"), TUNED):
        assert Protocol.from_dict(json.loads(json.dumps(protocol.to_dict()))) == protocol
    assert "finetune_lr" not in Protocol().to_dict()
    assert str(TUNED) == "one float network fine-tuned with the policy's bits for 1 epoch"


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="did you mean 'validation'"):
        Protocol(part="validaton")
    with pytest.raises(ValueError, match="0 or more, not -1"):
        Protocol(finetune_epochs=-1)


@pytest.mark.parametrize(
    ("quantizer", "scale", "expected"),
    [("dorefa", None, "max"), ("dorefa", "none", "none"), ("wrpn", "learned", "max"), ("lsq", None, "learned")],
)
def test_the_scale_is_one_that_the_method_has(quantizer: str, scale: str | None, expected: str) -> None:
    run = SimpleNamespace(config=TrainConfig(quantizer=quantizer, scale=scale, bits=3))  # type: ignore[arg-type]
    assert scale_of(run) == expected  # type: ignore[arg-type]


@pytest.mark.slow
def test_bits_that_the_method_does_not_have_get_no_row(tmp_path: Path) -> None:
    """LSQ has no 1 bit, to which a layer of 2 bits would go."""
    train(tiny_config(tmp_path / "run", bits=2, pretrain_epochs=1, epochs=1), say=lambda _line: None)
    table = run_sensitivity(TrainedRun(tmp_path / "run"), protocol=Protocol())
    assert table["changed_bits"].tolist() == [3, 3, 3, 3]


@pytest.mark.slow
def test_fine_tuning_is_training_one_by_one(designed: Any) -> None:
    """The slow twin: each policy by itself."""
    from waveq.evaluate.finetune import PolicyFinetuner

    run = designed.run
    tuner = PolicyFinetuner(
        run.float_network(),
        run.dataset.train.tensors(),
        run.dataset.validation.tensors(),
        epochs=1,
        batch_size=TUNED.batch_size,
        lr=TUNED.finetune_lr,
        seed=run.config.seed,
        together=1,
    )
    one_image = 100 / len(run.dataset.validation)
    # another order of summation may turn an image that lies on the border
    np.testing.assert_allclose(accuracies(run, TUNED), 100 * tuner.accuracy(ROWS), atol=2.01 * one_image)


@pytest.mark.slow
def test_workers_can_be_sent_an_evaluation(designed: Any) -> None:
    for protocol in (Protocol(), TUNED):
        evaluate = evaluation(designed.run, protocol)
        again = pickle.loads(pickle.dumps(evaluate))
        right = evaluate.correct(ROWS)
        assert right.shape == (3, len(designed.run.dataset.validation))
        np.testing.assert_array_equal(again.correct(ROWS), right)


@pytest.mark.slow
def test_fine_tuned_space_and_the_protocol_that_sensitivity_takes_from_it(
    run_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["enumerate", str(run_copy), "--bits", "2,4", "--finetune-epochs", "1"]) == 2
    assert "fingerprint.protocol.finetune_epochs: stored 0, now 1" in capsys.readouterr().err
    store = str(run_copy / "tuned.sqlite")
    assert main(["enumerate", str(run_copy), "--bits", "2,4", "--finetune-epochs", "1", "--store", store]) == 0
    assert run_protocol(TrainedRun(run_copy)) == Protocol(finetune_epochs=1)
    assert main(["frontier", str(run_copy)]) == 0
    assert main(["sensitivity", str(run_copy), "--steps=-1", "--json"]) == 0
    placed = json.loads((run_copy / "frontier.json").read_text())["own"]["accuracy"]
    out = capsys.readouterr().out
    rows = json.loads(out[out.index('{\n  "run"', out.index("efficient")) :])["sensitivity"]
    one_image = 100 / 431
    assert rows[0]["baseline"] == pytest.approx(placed, abs=2.01 * one_image)
    assert main(["report", str(run_copy)]) == 0
    assert "fine-tuned with the policy's bits for 1 epoch" in (run_copy / "report.md").read_text()


@pytest.mark.slow
def test_quantised_inputs_are_measured_and_fine_tuned_with(run_copy: Path) -> None:
    bits = dict(Policy.load(run_copy / "policy.json"))
    inputs: dict[str, Any] = {
        "activation_bits": {"conv2": 1, "fc1": 1},
        "provenance": {"activation_quantizer": "range"},
    }
    Policy(bits, **inputs).save(run_copy / "policy.json")
    run = TrainedRun(run_copy)
    coarse, coarsely_tuned = accuracies(run, Protocol()), accuracies(run, TUNED)
    Policy(bits).save(run_copy / "policy.json")
    assert not np.array_equal(coarse, accuracies(TrainedRun(run_copy), Protocol()))
    assert not np.array_equal(coarsely_tuned, accuracies(TrainedRun(run_copy), TUNED))
    assert coarsely_tuned.mean() > coarse.mean() + 5.0, "training makes up for inputs of one bit"
    with pytest.raises(ValueError, match="activation_bits"):
        enumerate_run(run, Stripes(), choices=(2, 4), progress=False)


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with torch_threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    with torch_threads(None):
        assert torch.get_num_threads() == before

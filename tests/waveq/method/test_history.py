"""The history of a run says what the handle said at each step, and costs no look at the layers."""

from __future__ import annotations

import copy
import sys
from typing import Any

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import waveq
from tests.training import OPTIMIZERS, batches, mlp, train
from waveq.method import history as module
from waveq.method.operand_names import input_name

COLUMNS = ["step", "phase", "layer", "beta", "bits", "wave", "strength", "lambda_beta", "price"]


def begin(seed: int = 0, **options: Any) -> tuple[nn.Module, waveq.WaveQ, torch.optim.Optimizer]:
    model = mlp(seed)
    wq = waveq.attach(model, **{"total_steps": 12, **options})
    return model, wq, OPTIMIZERS["sgd"](model.parameters())


def asked(wq: waveq.WaveQ) -> dict[str, tuple[float, ...]]:
    """What the handle says now, by operand: the slow twin of a record."""
    learning = wq.phase == 2
    lambda_w, lambda_beta = wq.strengths()
    waves = wq.wave() if lambda_w else {}
    costs = wq._progress.bit_costs()
    found: dict[str, tuple[float, ...]] = {}
    for suffix, betas, bits in (("", wq.betas(), wq.bits()), (" (inputs)", wq.input_betas(), wq.input_bits())):
        for name, beta in betas.items():
            price = lambda_beta * costs[name + suffix] if learning else 0.0
            paid = lambda_beta if learning else 0.0
            wave = waves.get(name, float("nan")) if not suffix else float("nan")
            found[name + suffix] = (wq.phase, beta, bits[name], wave, lambda_w, paid, price)
    return found


def rows(frame: pd.DataFrame, step: int) -> dict[str, tuple[float, ...]]:
    found = frame[frame["step"] == step]
    columns = ["phase", "beta", "bits", "wave", "strength", "lambda_beta", "price"]
    return dict(zip(found["layer"], found[columns].itertuples(index=False, name=None), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="plain"),
        pytest.param({"target": {"mean_bits": 3.0}, "quantizer": "wrpn"}, id="budget"),
        pytest.param({"activation_bits": "learn", "target": {"bitops": 0.3}}, id="inputs"),
        pytest.param({"layer_costs": {"0": 1.0, "2": 5.0, "4": 2.0}}, id="costs"),
        pytest.param({"preset": "paper"}, id="wave moves beta"),
        pytest.param({"forward": "float"}, id="float road"),
        pytest.param({"bits": {"0": 4, "2": 2, "4": 3}, "lambda_w": 0.5}, id="preset bits"),
    ],
)
def test_it_says_what_the_handle_said(options: dict[str, Any]) -> None:
    model, wq, optimizer = begin(**options)
    said: dict[int, Any] = {}
    for x, y in batches(12):
        loss = F.cross_entropy(model(x), y) + wq.penalty()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        said[wq.steps] = asked(wq)  # before the optimizer moves what the wave was computed of
        optimizer.step()
        wq.step()
    said[12] = {name: (*each[:3], float("nan"), *each[4:]) for name, each in asked(wq).items()}  # no penalty was there
    frame = wq.history()
    assert list(frame.columns) == COLUMNS
    assert frame["step"].unique().tolist() == list(range(13))
    for step, expected in said.items():
        found = rows(frame, step)
        assert list(found) == list(expected), step
        for name, values in expected.items():
            assert found[name] == pytest.approx(values, rel=1e-5, abs=1e-7, nan_ok=True), (step, name)


def test_inputs_are_named_as_tables_of_policies_name_them() -> None:
    _model, wq, _optimizer = begin(activation_bits="learn", target={"bitops": 0.3})
    assert wq.history()["layer"].tolist() == ["0", "2", "4", input_name("2"), input_name("4")]


def test_long_runs_are_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 8)
    _model, wq, _optimizer = begin(bits=3)
    wq._history.note(0, 0.0, {})
    wq._history.go_on(10)  # as if a checkpoint of step 10 had been loaded
    for step in range(10, 53):
        wq._history.note(step, 0.0, {})
    kept = [record.step for record in wq._history._records]
    assert kept == [10, 16, 24, 32, 40, 48]
    assert not wq._history._due(49)
    assert wq._history._due(56)


def test_records_share_what_stands_still_and_hold_no_graph() -> None:
    model, wq, optimizer = begin(bits=3)
    train(model, wq, optimizer, batches(3))
    first, *others = wq._history._records
    assert all(each.betas is first.betas for each in others)
    assert all(not values.requires_grad for each in others for _, values in each.waves)


def test_recording_reads_no_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    model, wq, optimizer = begin()
    data = batches(12)
    train(model, wq, optimizer, data[:1])
    reads: list[int] = []
    read = wq._history._read

    def counted() -> Any:
        reads.append(wq.steps)
        return read()

    monkeypatch.setattr(wq._history, "_read", counted)
    train(model, wq, optimizer, data[1:])
    assert reads == [wq.settings.schedule.fall]  # where the bits are fixed; nothing else reads the model's buffers


def test_a_record_is_no_work_for_the_device() -> None:
    model, wq, optimizer = begin(target={"mean_bits": 3.0})
    data = batches(12)
    for number in range(12):
        train(model, wq, optimizer, data[number : number + 1])
        if number + 1 == wq.settings.schedule.fall:
            continue  # where the bits are fixed they are read once
        recorded = copy.copy(wq._history)
        recorded._records = []
        with Counting() as ops:
            recorded.note(wq.steps, 0.5, {})
        assert not ops.seen
        assert len(recorded._records) == 1


class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(func)
        return func(*args, **(kwargs or {}))


def test_freezing_by_hand_fixes_the_bits_from_there_on() -> None:
    model, wq, optimizer = begin()
    train(model, wq, optimizer, batches(3))
    wq.freeze()
    bits = wq.bits()
    train(model, wq, optimizer, batches(1))
    frame = wq.history()
    fixed = frame[frame["step"] >= 3]
    assert fixed["price"].eq(0.0).all()
    assert frame[frame["step"] == 2]["price"].gt(0.0).all()
    assert all(fixed[fixed["layer"] == name]["bits"].eq(count).all() for name, count in bits.items())


@pytest.mark.parametrize("leave", ["finalize", "remove"])
def test_it_can_be_read_afterwards(leave: str) -> None:
    model, wq, optimizer = begin(target={"mean_bits": 3.0})
    train(model, wq, optimizer, batches(12))
    before = wq.history()
    getattr(wq, leave)()
    pd.testing.assert_frame_equal(wq.history(), before)


def test_a_new_process_begins_anew_where_it_goes_on() -> None:
    model, wq, optimizer = begin()
    train(model, wq, optimizer, batches(6))
    saved, betas = copy.deepcopy(model.state_dict()), wq.betas()
    model, wq, optimizer = begin(seed=1)
    assert wq.history()["step"].unique().tolist() == [0]
    model.load_state_dict(saved)
    frame = wq.history()
    assert frame["step"].unique().tolist() == [6]  # the present, before any step has noticed
    assert frame["beta"].tolist() == list(betas.values())
    train(model, wq, optimizer, batches(2))
    assert wq.history()["step"].unique().tolist() == [6, 7, 8]


def test_going_back_forgets_what_came_after() -> None:
    model, wq, optimizer = begin()
    train(model, wq, optimizer, batches(5))
    saved = copy.deepcopy(model.state_dict())
    train(model, wq, optimizer, batches(3))
    model.load_state_dict(saved)
    assert wq.history()["step"].unique().tolist() == list(range(6))
    train(model, wq, optimizer, batches(1))
    assert wq.history()["step"].unique().tolist() == list(range(7))
    assert rows(wq.history(), 6)["2"][1] == wq.betas()["2"]


def test_rewind_begins_its_own() -> None:
    model, search, optimizer = begin()
    train(model, search, optimizer, batches(12))
    before = search.history()
    wq = waveq.rewind(search, model, total_steps=4)
    assert wq.history()["step"].unique().tolist() == [0]
    pd.testing.assert_frame_equal(search.history(), before)


def test_a_copy_goes_its_own_way() -> None:
    model, wq, optimizer = begin()
    train(model, wq, optimizer, batches(5))
    before = wq.history()
    twin, other = copy.deepcopy((model, wq))
    train(twin, other, OPTIMIZERS["sgd"](twin.parameters()), batches(3))
    assert other.history()["step"].max() == 8
    pd.testing.assert_frame_equal(wq.history(), before)


def test_without_penalty_there_is_no_wave() -> None:
    _model, wq, _optimizer = begin(bits=3)
    wq.step()
    assert wq.history()["wave"].isna().all()


def test_without_pandas_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    _model, wq, _optimizer = begin(bits=3)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match="pip install pandas"):
        wq.history()

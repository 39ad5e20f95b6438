"""WaveQ in transformers' Trainer, by a stand-in for it; the real one: tests/benchmarks/reach/test_trainers.py."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import waveq
from tests.training import batches, mlp
from tests.waveq.integrations.stock_trainer import Trainer, TrainerCallback, without_transformers

STEPS = 12
NEAR = 7e-9  # of a weight: the sums of two gradients are taken in another order


@pytest.fixture(name="callback")
def _callback() -> Iterator[Any]:
    with without_transformers() as module:
        yield module.WaveQCallback


def by_hand(*, scale: float = 1.0, accumulate: int = 1, clip: float = 0.0) -> tuple[nn.Module, waveq.WaveQ]:
    """The penalty in the loss, or after clipping where there is any."""
    model = mlp()
    wq = waveq.attach(model, total_steps=STEPS)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, enabled=scale != 1.0)
    data = batches(STEPS * accumulate)
    for begin in range(0, len(data), accumulate):
        for x, y in data[begin : begin + accumulate]:
            loss = F.cross_entropy(model(x), y) + (0.0 if clip else wq.penalty())
            scaler.scale(loss / accumulate).backward()
        scaler.unscale_(optimizer)
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
            wq.penalty().backward()
        scaler.step(optimizer)
        wq.step(grad_scale=scaler.get_scale())
        scaler.update()
        optimizer.zero_grad()
    return model, wq


def farthest(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("accumulate", "scale", "clip"), [(1, 1.0, 0.0), (3, 1.0, 0.0), (1, 1024.0, 0.0), (1, 1.0, 0.05)]
)
def test_the_stock_trainer_trains_as_the_loop_by_hand(
    callback: Any, accumulate: int, scale: float, clip: float
) -> None:
    model, wq = by_hand(accumulate=accumulate, scale=scale, clip=clip)
    trainer = Trainer(mlp(), batches(STEPS * accumulate), gradient_accumulation_steps=accumulate, max_grad_norm=clip)
    found = callback().add_to(trainer)
    trainer.train(scaler=torch.amp.GradScaler("cpu", init_scale=scale) if scale != 1.0 else None)
    assert found.steps == found.total_steps == STEPS
    assert found.bits() == wq.bits()
    assert farthest(trainer.model, model) <= (NEAR if accumulate == 1 else 6e-8)


def test_once_a_step_whatever_is_accumulated(callback: Any) -> None:
    counted: list[int] = []
    trainer = Trainer(mlp(), batches(6), gradient_accumulation_steps=3)
    wq = callback(bits=3, lambda_w=1.0).add_to(trainer)
    plain = wq.penalty
    wq.penalty = lambda: counted.append(1) or plain()
    trainer.train()
    assert len(counted) == wq.steps == 2


def test_attached_when_the_trainer_is_made(callback: Any) -> None:
    wave = callback(bits=3)
    trainer = Trainer(mlp(), batches(2), [wave], max_steps=2)
    assert wave.wq.bits() == {"0": 3, "2": 3, "4": 3}
    trainer.train()
    assert wave.wq.steps == 2
    learning = callback()
    Trainer(mlp(), batches(2), [learning], max_steps=2)
    assert learning.wq.total_steps == 2
    with pytest.raises(ValueError, match="total_steps"):
        Trainer(mlp(), batches(2), [callback()])


def test_rows_for_loggers_and_for_the_log(callback: Any) -> None:
    trainer = Trainer(mlp(), batches(2))
    wq = callback(bits=3, lambda_w=1.0).add_to(trainer)
    trainer.train()
    assert trainer.state.log_history[-1]["mean_bits"] == 3.0
    logger = trainer.callback_handler.callbacks[1]
    assert logger.rows[-1] == {"train_loss": 0.0}
    single = [row for row in logger.rows if "bits/0" in row]
    assert len(single) == 2
    assert {name: single[-1][name] for name in ("bits/2", "beta/2", "price/2")} == {
        "bits/2": 3,
        "beta/2": 2.0,
        "price/2": 0.0,
    }
    assert single[-1]["wave/4"] == wq.metrics()["wave/4"]


def test_what_would_not_learn_is_refused_by_name(callback: Any) -> None:
    model = mlp()
    before = Trainer(model, batches(2))
    before.optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    callback(bits=3).add_to(before)
    with pytest.raises(ValueError, match=r"built before attach\(\) and lacks what lsq learns .* of 0, 2, 4"):
        before.train()
    late = Trainer(mlp(), batches(2))
    late.callback_handler.callbacks.append(callback(bits=3))
    with pytest.raises(ValueError, match="too late to attach"):
        late.train()
    other = Trainer(mlp(), batches(2), [callback(waveq.attach(mlp(), bits=3))])
    with pytest.raises(ValueError, match="moves none of the weights"):
        other.train()
    model = mlp()
    half = Trainer(model, batches(2), [callback(waveq.attach(model, bits=3, quantizer="dorefa"))])
    half.optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
    with pytest.warns(UserWarning, match="no optimizer moves the weights of 2, 4, which are quantised"):
        half.train()
    with pytest.raises(ValueError, match="DeepSpeed"):
        Trainer(mlp(), batches(2), [callback(bits=3)], deepspeed="zero.json").train()
    gone_on = Trainer(mlp(), batches(2), [callback(bits=3)])
    gone_on.state.global_step = 5
    with pytest.raises(ValueError, match="goes on at step 5, WaveQ at step 0"):
        gone_on.train()
    with pytest.raises(TypeError, match=r"'bit' is no option of attach.*'bits'"):
        callback(bit=3)
    with pytest.raises(TypeError, match="a handle and options"):
        callback(waveq.attach(mlp(), bits=3), bits=3)


def test_added_twice_it_takes_one_step(callback: Any) -> None:
    wave = callback(bits=3)
    trainer = Trainer(mlp(), batches(2), [wave])
    wave.add_to(trainer)
    wave.add_to(trainer)
    trainer.train()
    assert wave.wq.steps == 2
    with pytest.raises(ValueError, match="two WaveQCallbacks of one handle"):
        callback(wave.wq).add_to(trainer)


def test_tied_weights_have_their_attached_names_while_a_run_lasts(callback: Any) -> None:
    class Seen(TrainerCallback):
        def on_pre_optimizer_step(self, *_: Any, model: Any, **__: Any) -> None:
            self.ties = model._tied_weights_keys

    class Tied(nn.Sequential):
        _tied_weights_keys = {"4.weight": "0.weight", "block": "other"}  # noqa: RUF012

    seen, model = Seen(), Tied(*mlp())
    trainer = Trainer(model, batches(1), [seen])
    callback(bits=3).add_to(trainer)
    trainer.train()
    inner = {"4.parametrizations.weight": "0.parametrizations.weight"}
    assert seen.ties == Tied._tied_weights_keys | inner
    assert model._tied_weights_keys is Tied._tied_weights_keys


def test_the_best_of_adapters_alone_is_refused(callback: Any) -> None:
    model = mlp()
    model.peft_config = {}
    with pytest.raises(ValueError, match="checkpoints of a peft model hold the adapters alone"):
        Trainer(model, batches(2), [callback(bits=3)], load_best_model_at_end=True).train()


def test_an_optimizer_from_before_will_do_where_no_scale_is_learned(callback: Any) -> None:
    model = mlp()
    trainer = Trainer(model, batches(2))
    trainer.optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wq = callback(bits=3, quantizer="dorefa").add_to(trainer)
    trainer.train()
    assert wq.steps == 2


def test_another_length_than_attach_was_told_is_warned_of(callback: Any) -> None:
    trainer = Trainer(mlp(), batches(2), [callback(total_steps=20)])
    with pytest.warns(UserWarning, match="run has 2 steps, attach.* total_steps=20"):
        trainer.train()


def test_data_without_a_length_need_the_steps_said(callback: Any) -> None:
    def endless() -> Iterator[tuple[Tensor, Tensor]]:
        yield from batches(2)

    trainer = Trainer(mlp(), endless())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no length"):
        callback().add_to(trainer)
    trainer.args.max_steps = 7
    assert callback().add_to(trainer).total_steps == 7


def test_without_the_package_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "waveq.integrations.transformers", raising=False)
    with pytest.raises(
        ModuleNotFoundError, match=r"needs transformers, which is not installed: pip install 'waveq\[hf\]'"
    ):
        __import__("waveq.integrations.transformers")

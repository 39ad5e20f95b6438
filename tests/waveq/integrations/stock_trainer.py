"""transformers' Trainer as far as a callback sees it, for tests without the package: its events in its order."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Logger", "Trainer", "TrainerCallback", "without_transformers"]

Batch = tuple[Tensor, Tensor]


class TrainerCallback:
    """The events that are called here; each does nothing."""

    def on_init_end(self, *_: Any, **__: Any) -> None: ...
    def on_train_begin(self, *_: Any, **__: Any) -> None: ...
    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None: ...
    def on_optimizer_step(self, *_: Any, **__: Any) -> None: ...
    def on_log(self, *_: Any, **__: Any) -> None: ...
    def on_train_end(self, *_: Any, **__: Any) -> None: ...


class Logger(TrainerCallback):
    """Keeps the rows that it is given."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        self.rows.append(dict(logs))


class Trainer:
    """Accumulates, unscales, clips, calls back, steps."""

    def __init__(
        self, model: nn.Module, batches: Sequence[Batch], callbacks: Sequence[Any] = (), **arguments: Any
    ) -> None:
        self.model, self._batches = model, batches
        usual = {"max_steps": -1, "num_train_epochs": 1, "gradient_accumulation_steps": 1, "max_grad_norm": 0.0}
        self.args = SimpleNamespace(**{**usual, "deepspeed": None, "load_best_model_at_end": False, **arguments})
        self.callback_handler = SimpleNamespace(callbacks=[Logger(), *callbacks])
        self.state = SimpleNamespace(global_step=0, log_history=[], is_world_process_zero=True, max_steps=0)
        self.optimizer: torch.optim.Optimizer | None = None
        self._call("on_init_end")

    def get_train_dataloader(self) -> Sequence[Batch]:
        return self._batches

    def _call(self, event: str, **more: Any) -> None:
        for each in list(self.callback_handler.callbacks):
            getattr(each, event)(self.args, self.state, None, model=self.model, optimizer=self.optimizer, **more)

    def train(self, *, scaler: torch.amp.GradScaler | None = None) -> None:
        parameters = list(self.model.parameters())
        self.optimizer = self.optimizer or torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
        self.optimizer.scaler = scaler  # type: ignore[attr-defined]
        every = self.args.gradient_accumulation_steps
        self.state.max_steps = -(-len(self._batches) // every)
        self._call("on_train_begin")
        for begin in range(0, len(self._batches), every):
            window = self._batches[begin : begin + every]
            for x, y in window:
                loss = F.cross_entropy(self.model(x), y) / len(window)
                torch.autograd.backward(loss if scaler is None else scaler.scale(loss))
            if scaler is not None:
                scaler.unscale_(self.optimizer)
            if self.args.max_grad_norm > 0:
                nn.utils.clip_grad_norm_(parameters, self.args.max_grad_norm)
            self._call("on_pre_optimizer_step")
            if scaler is None:
                self.optimizer.step()
            else:
                scaler.step(self.optimizer)
                scaler.update()
            self._call("on_optimizer_step")
            self.model.zero_grad()
            self.state.global_step += 1
            logs = {"loss": float(loss.detach())}
            self.state.log_history.append(dict(logs))
            self._call("on_log", logs=logs)
        self._call("on_log", logs={"train_loss": 0.0})
        self._call("on_train_end")


@contextmanager
def without_transformers() -> Iterator[Any]:
    """The callback's module, imported against these stand-ins; the real package is as it was afterwards."""
    top, middle, inner = (ModuleType(name) for name in ("transformers", "transformers.integrations", "utils"))
    top.__dict__.update(TrainerCallback=TrainerCallback, integrations=middle)
    middle.__dict__.update(integration_utils=inner, __path__=[])
    inner.__dict__.update(INTEGRATION_TO_CALLBACK={"log": Logger})
    stand_ins = {
        "transformers": top,
        "transformers.integrations": middle,
        "transformers.integrations.integration_utils": inner,
    }
    ours = "waveq.integrations.transformers"
    before = {
        name: sys.modules.pop(name)
        for name in list(sys.modules)
        if name == ours or name.split(".")[0] == "transformers"
    }
    sys.modules |= stand_ins
    try:
        __import__(ours)
        yield sys.modules[ours]
    finally:
        for name in (ours, *stand_ins):
            sys.modules.pop(name, None)
        sys.modules |= before

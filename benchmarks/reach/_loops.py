"""Ways in which people train, each on the same small network; ``Loop.run`` hands back what is to be held to its promise."""

from __future__ import annotations

import copy
import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from torch.utils.checkpoint import checkpoint

import waveq

__all__ = ["LOOPS", "Batches", "Loop", "Trained", "network"]

Batch = tuple[Tensor, Tensor]
Batches = Sequence[Batch]
_OPTIONS: dict[str, Any] = {"total_steps": 6}


@dataclass(frozen=True)
class Trained:
    """What a loop leaves.

    Attributes:
        model: that was attached.
        wq: its handle; None where the loop finished a copy.
        note: how it went, for the table.
    """

    model: nn.Module
    wq: waveq.WaveQ | None = None
    note: str = "works"


@dataclass(frozen=True)
class Loop:
    """One way to train.

    Attributes:
        name: in the table.
        run: trains a network on batches.
        package: that it needs beside torch.
    """

    name: str
    run: Callable[[nn.Module, Batches], Trained]
    package: str = "torch"


def network() -> nn.Module:
    """Convolutions, batch norm and a linear layer; (batch, 1, 8, 8) -> (batch, 4)."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 4),
    )


LOOPS: list[Loop] = []
_Run = Callable[[nn.Module, Batches], Trained]


def _loop(name: str, package: str = "torch") -> Callable[[_Run], _Run]:
    def put(run: _Run) -> _Run:
        LOOPS.append(Loop(name, run, package))
        return run

    return put


def _sgd(model: nn.Module, rate: float = 0.05, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, **options)


def _step(model: Any, wq: waveq.WaveQ, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    loss = F.cross_entropy(model(batch[0]), batch[1]) + wq.penalty()
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    optimizer.step()
    wq.step()


def _train(model: nn.Module, batches: Batches, *, call: Any = None, optimizer: Any = None, **options: Any) -> Trained:
    """The usual order, through ``call`` where the network is called as something else."""
    wq = waveq.attach(model, **{**_OPTIONS, **options})
    optimizer = optimizer or _sgd(model)
    for batch in batches:
        _step(call or model, wq, optimizer, batch)
    return Trained(model, wq)


def _refused(attempt: Callable[[], Any], *, kind: type[Exception], words: str) -> str:
    try:
        attempt()
    except kind as error:
        assert words in str(error), f"refused without the words {words!r}: {error}"
        return f"refused: {kind.__name__}, says what to do" if kind is TypeError else f"refused: {kind.__name__}"
    raise AssertionError("not refused")


# ---------------------------------------------------------------------- optimizers and the order of calls

_loop("SGD")(_train)


@_loop("Adam with weight decay")
def _adam(model: nn.Module, batches: Batches) -> Trained:
    return _train(model, batches, optimizer=torch.optim.AdamW(model.parameters(), lr=1e-3))


@_loop("optimizer built before attach, fused")
def _before(model: nn.Module, batches: Batches) -> Trained:
    return _train(model, batches, optimizer=torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True))


@_loop("zero_grad(set_to_none=False)")
def _zeros(model: nn.Module, batches: Batches) -> Trained:
    wq, optimizer = waveq.attach(model, **_OPTIONS), _sgd(model)
    for x, y in batches:
        optimizer.zero_grad(set_to_none=False)
        torch.autograd.backward(F.cross_entropy(model(x), y) + wq.penalty())
        optimizer.step()
        wq.step()
    return Trained(model, wq)


@_loop("zero_grad before wq.step")
def _early_zero(model: nn.Module, batches: Batches) -> Trained:
    wq, optimizer = waveq.attach(model, **_OPTIONS), _sgd(model)
    for x, y in batches:
        torch.autograd.backward(F.cross_entropy(model(x), y) + wq.penalty())
        optimizer.step()
        optimizer.zero_grad()
        wq.step()
    return Trained(model, wq)


@_loop("two optimizers")
def _two(model: nn.Module, batches: Batches) -> Trained:
    wq = waveq.attach(model, **_OPTIONS)
    body, head = [p for n, p in model.named_parameters() if n[0] != "6"], list(model.get_submodule("6").parameters())
    optimizers = torch.optim.SGD(body, lr=0.05), torch.optim.Adam(head, lr=1e-3)
    for x, y in batches:
        torch.autograd.backward(F.cross_entropy(model(x), y) + wq.penalty())
        for each in optimizers:
            each.step()
            each.zero_grad()
        wq.step()
    return Trained(model, wq)


@_loop("penalty and loss in two backward calls")
def _backwards(model: nn.Module, batches: Batches) -> Trained:
    wq, optimizer = waveq.attach(model, **_OPTIONS), _sgd(model)
    for x, y in batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        torch.autograd.backward(loss, retain_graph=True)
        torch.autograd.backward(wq.penalty())
        optimizer.step()
        wq.step()
    return Trained(model, wq)


@_loop("gradient accumulation, clipping, rate schedule")
def _accumulation(model: nn.Module, batches: Batches) -> Trained:
    wq, optimizer = waveq.attach(model, **_OPTIONS), _sgd(model)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=len(batches))
    for batch in batches:
        optimizer.zero_grad()
        for x, y in zip(batch[0].chunk(2), batch[1].chunk(2), strict=True):
            torch.autograd.backward((F.cross_entropy(model(x), y) + wq.penalty()) / 2)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        wq.step()
    return Trained(model, wq)


@_loop("LBFGS")
def _lbfgs(model: nn.Module, batches: Batches) -> Trained:
    wq = waveq.attach(model, **_OPTIONS)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
    for x, y in batches:

        def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y) + wq.penalty()
            torch.autograd.backward(loss)
            return loss

        optimizer.step(closure)  # type: ignore[no-untyped-call]
        wq.step()
    return Trained(model, wq)


@_loop("SAM: two passes a step, weights moved between")
def _sam(model: nn.Module, batches: Batches) -> Trained:
    wq, optimizer = waveq.attach(model, **_OPTIONS), _sgd(model)
    weights = list(model.parameters())
    for x, y in batches:
        torch.autograd.backward(F.cross_entropy(model(x), y) + wq.penalty())
        with torch.no_grad():
            norm = torch.stack([p.grad.norm() for p in weights if p.grad is not None]).norm()
            away = [0.05 * p.grad / norm for p in weights if p.grad is not None]
            torch._foreach_add_(weights, away)
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(model(x), y) + wq.penalty())
        with torch.no_grad():
            torch._foreach_sub_(weights, away)
        optimizer.step()
        optimizer.zero_grad()
        wq.step()
    return Trained(model, wq)


# ---------------------------------------------------------------------- precision and memory


@_loop("autocast bfloat16")
def _autocast(model: nn.Module, batches: Batches) -> Trained:
    wq, optimizer = waveq.attach(model, **_OPTIONS), _sgd(model)
    for x, y in batches:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(model(x), y) + wq.penalty()
        torch.autograd.backward(loss)
        optimizer.step()
        wq.step()
    return Trained(model, wq)


@_loop("GradScaler")
def _scaler(model: nn.Module, batches: Batches) -> Trained:
    wq, optimizer = waveq.attach(model, **_OPTIONS), _sgd(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for x, y in batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y) + wq.penalty()
        torch.autograd.backward(scaler.scale(loss))
        scaler.step(optimizer)
        wq.step(grad_scale=scaler.get_scale())
        scaler.update()
    return Trained(model, wq)


@_loop("float64 weights")
def _double(model: nn.Module, batches: Batches) -> Trained:
    return _train(model.double(), [(x.double(), y) for x, y in batches])


@_loop("bfloat16 weights")
def _half(model: nn.Module, batches: Batches) -> Trained:
    return _train(model.bfloat16(), [(x.bfloat16(), y) for x, y in batches])


@_loop("channels_last")
def _channels_last(model: nn.Module, batches: Batches) -> Trained:
    return _train(model.to(memory_format=torch.channels_last), batches)  # type: ignore[call-overload]


@_loop("gradient checkpointing")
def _checkpointing(model: nn.Module, batches: Batches) -> Trained:
    return _train(model, batches, call=lambda x: checkpoint(model, x, use_reentrant=False))


@_loop("gradient checkpointing, inputs quantised")
def _checkpointing_inputs(model: nn.Module, batches: Batches) -> Trained:
    return _train(model, batches, call=lambda x: checkpoint(model, x, use_reentrant=False), activation_bits=4)


# ---------------------------------------------------------------------- averages and copies


@_loop("moving average of the weights, finalize_copy")
def _average(model: nn.Module, batches: Batches) -> Trained:
    return _averaged(model, batches)


def _averaged(model: nn.Module, batches: Batches, **how: Any) -> Trained:
    wq, optimizer = waveq.attach(model, **_OPTIONS), _sgd(model)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), **how)
    for batch in batches:
        _step(model, wq, optimizer, batch)
        average.update_parameters(model)
    wq.finalize_copy(average)
    assert all(average.module.get_submodule(name).weight.unique().numel() <= 2**b for name, b in wq.bits().items())
    return Trained(model, wq)


@_loop("moving average with use_buffers=True")
def _average_buffers(model: nn.Module, batches: Batches) -> Trained:
    return _averaged(model, batches, use_buffers=True)


@_loop("SWA with update_bn")
def _swa(model: nn.Module, batches: Batches) -> Trained:
    wq, optimizer = waveq.attach(model, **_OPTIONS), _sgd(model)
    average = AveragedModel(model)
    for batch in batches:
        _step(model, wq, optimizer, batch)
        average.update_parameters(model)
    update_bn(batches, average)
    wq.finalize_copy(average)
    assert all(average.module.get_submodule(name).weight.unique().numel() <= 2**b for name, b in wq.bits().items())
    return Trained(model, wq)


@_loop("averaged weights swapped in through .data for evaluation")
def _swapped(model: nn.Module, batches: Batches) -> Trained:
    wq, optimizer = waveq.attach(model, **_OPTIONS), _sgd(model)
    average = [p.detach().clone() for p in model.parameters()]
    for batch in batches:
        _step(model, wq, optimizer, batch)
        torch._foreach_lerp_(average, [p.detach() for p in model.parameters()], 0.5)
        kept = [p.data for p in model.parameters()]
        model.eval()
        with torch.no_grad():
            plain = model(batch[0])
            for p, value in zip(model.parameters(), average, strict=True):
                p.data = value.clone()
            assert not torch.equal(model(batch[0]), plain), "the swapped weights were not seen"
            for p, value in zip(model.parameters(), kept, strict=True):
                p.data = value
            assert torch.equal(model(batch[0]), plain), "the weights that came back were not seen"
        model.train()
    return Trained(model, wq)


@_loop("deepcopy in the middle; both go on")
def _deepcopy(model: nn.Module, batches: Batches) -> Trained:
    wq, optimizer = waveq.attach(model, **_OPTIONS), _sgd(model)
    for batch in batches[:3]:
        _step(model, wq, optimizer, batch)
    copied = copy.deepcopy(model)
    with torch.no_grad():
        before = copied.eval()(batches[0][0])
    for batch in batches[3:]:
        _step(model, wq, optimizer, batch)
    with torch.no_grad():
        assert torch.equal(copied(batches[0][0]), before), "the copy moved with the original"
    return Trained(model, wq)


@_loop("pickle while attached")
def _pickle(model: nn.Module, batches: Batches) -> Trained:
    done = _train(model, batches)
    note = _refused(lambda: torch.save(model, io.BytesIO()), kind=RuntimeError, words="state_dict")
    return Trained(model, done.wq, f"{note} by torch, which names state_dict(); works after finalize()")


@_loop("resume from a checkpoint")
def _resume(model: nn.Module, batches: Batches) -> Trained:
    again = copy.deepcopy(model)
    straight = _train(model, batches)
    half = copy.deepcopy(again)
    wq, optimizer = waveq.attach(half, **_OPTIONS), _sgd(half)
    for batch in batches[:3]:
        _step(half, wq, optimizer, batch)
    kept = copy.deepcopy({"model": half.state_dict(), "optimizer": optimizer.state_dict()})
    wq, optimizer = waveq.attach(again, **_OPTIONS), _sgd(again)
    again.load_state_dict(kept["model"])
    optimizer.load_state_dict(kept["optimizer"])
    for batch in batches[3:]:
        _step(again, wq, optimizer, batch)
    assert straight.wq is not None
    assert wq.betas() == straight.wq.betas(), "the resumed run learned other betas"
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True)), "other weights"
    return Trained(again, wq, "works, the same run to the last bit")


# ---------------------------------------------------------------------- modes and frozen layers


@_loop("evaluation between steps (no_grad, inference_mode)")
def _alternating(model: nn.Module, batches: Batches) -> Trained:
    wq, optimizer = waveq.attach(model, **_OPTIONS), _sgd(model)
    for batch in batches:
        _step(model, wq, optimizer, batch)
        model.eval()
        with torch.no_grad():
            one = model(batch[0])
        with torch.inference_mode():
            assert torch.equal(model(batch[0]), one)
        model.train()
    return Trained(model, wq)


@_loop("frozen layers")
def _frozen(model: nn.Module, batches: Batches) -> Trained:
    for parameter in model.get_submodule("0").parameters():
        parameter.requires_grad_(False)
    return _train(model, batches)


@_loop("a layer frozen, then let go, in the middle")
def _thawed(model: nn.Module, batches: Batches) -> Trained:
    wq, optimizer = waveq.attach(model, **_OPTIONS), _sgd(model)
    weight = dict(model.named_parameters())["3.parametrizations.weight.original"]
    for place, batch in enumerate(batches):
        weight.requires_grad_(place >= 3)
        _step(model, wq, optimizer, batch)
    return Trained(model, wq)


@_loop("functional_call")
def _functional(model: nn.Module, batches: Batches) -> Trained:
    return _train(model, batches, call=lambda x: functional_call(model, dict(model.named_parameters()), (x,)))


@_loop("torch.func.grad over all parameters")
def _func_grad(model: nn.Module, batches: Batches) -> Trained:
    wq, optimizer = waveq.attach(model, bits=3, lambda_w=0.0), _sgd(model)
    model.eval()  # batch norm's statistics are written in place, which these transforms refuse

    def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, parameters, (x,)), y)

    for x, y in batches:
        found = torch.func.grad(loss)({n: p.detach() for n, p in model.named_parameters()}, x, y)
        for name, parameter in model.named_parameters():
            parameter.grad = found[name]
        optimizer.step()
        wq.step()
    return Trained(model, wq)


# ---------------------------------------------------------------------- compilers


@_loop("attach(torch.compile(network))")
def _compiled_before(model: nn.Module, batches: Batches) -> Trained:
    compiled: Any = torch.compile(model, backend="eager")
    compiled(batches[0][0])
    wq, optimizer = waveq.attach(compiled, **_OPTIONS), _sgd(model)
    for batch in batches:
        _step(compiled, wq, optimizer, batch)
    return Trained(model, wq, "works, the network inside is attached")


@_loop("torch.compile after attach")
def _compiled_after(model: nn.Module, batches: Batches) -> Trained:
    wq = waveq.attach(model, **_OPTIONS)
    compiled: Any = torch.compile(model, backend="eager")
    optimizer = _sgd(model)
    for batch in batches:
        _step(compiled, wq, optimizer, batch)
    return Trained(model, wq)


@_loop("torch.compile first, inputs quantised, finalised while compiled")
def _compiled_inputs(model: nn.Module, batches: Batches) -> Trained:
    compiled: Any = torch.compile(model, backend="eager")
    compiled(batches[0][0])
    wq, optimizer = waveq.attach(model, **_OPTIONS, activation_bits=3), _sgd(model)
    for batch in batches:
        _step(compiled, wq, optimizer, batch)
    twin = copy.deepcopy(model).eval()
    with torch.no_grad():
        before = twin(batches[0][0])
    wq.finalize()
    with torch.no_grad():
        assert torch.allclose(compiled.eval()(batches[0][0]), before, atol=1e-5), "the compiled network lost something"
        assert torch.allclose(model.eval()(batches[0][0]), before, atol=1e-5)
    return Trained(model)


@_loop("torch.jit.script, then attach")
def _scripted(model: nn.Module, batches: Batches) -> Trained:
    scripted = torch.jit.script(model)
    return Trained(model, None, _refused(lambda: waveq.attach(scripted, bits=3), kind=TypeError, words="finalize"))


# ---------------------------------------------------------------------- several processes


@contextmanager
def _one_rank() -> Iterator[None]:
    if dist.is_initialized():
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
        try:
            yield
        finally:
            dist.destroy_process_group()


@_loop("DistributedDataParallel, 1 process")
def _ddp(model: nn.Module, batches: Batches) -> Trained:
    with _one_rank():
        wq = waveq.attach(model, **_OPTIONS)
        parallel, optimizer = DistributedDataParallel(model), _sgd(model)
        for batch in batches:
            _step(parallel, wq, optimizer, batch)
    return Trained(model, wq)


@_loop("DistributedDataParallel, then attach")
def _ddp_first(model: nn.Module, batches: Batches) -> Trained:
    with _one_rank():
        parallel = DistributedDataParallel(model)
        note = _refused(lambda: waveq.attach(parallel, bits=3), kind=TypeError, words="wrap it afterwards")
        again = _refused(lambda: waveq.attach(model, bits=3), kind=TypeError, words="wrap it afterwards")
    assert note == again
    return Trained(model, None, note)


@_loop("FSDP2: fully_shard, then attach")
def _fsdp_first(model: nn.Module, batches: Batches) -> Trained:
    from torch.distributed.fsdp import fully_shard

    with _one_rank():
        fully_shard(model, mesh=_mesh())
        note = _refused(lambda: waveq.attach(model, bits=3), kind=TypeError, words="in DistributedDataParallel")
    return Trained(model, None, note)


def _mesh() -> Any:
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh("cpu", (1,))


@_loop("FSDP2: attach, then fully_shard")
def _fsdp(model: nn.Module, batches: Batches) -> Trained:
    from torch.distributed.fsdp import fully_shard

    with _one_rank():
        wq = waveq.attach(model, bits=3)
        fully_shard(model, mesh=_mesh())
        note = _refused(wq.penalty, kind=TypeError, words="in DistributedDataParallel")
    return Trained(model, None, note + ", at the first penalty()")


@_loop("DataParallel (looked into)")
def _data_parallel(model: nn.Module, batches: Batches) -> Trained:
    parallel = nn.DataParallel(model)
    wq, optimizer = waveq.attach(parallel, **_OPTIONS), _sgd(model)
    for batch in batches:
        _step(parallel, wq, optimizer, batch)
    return Trained(model, wq, "works, the network inside is attached")


# ---------------------------------------------------------------------- loops of other packages


@_loop("Lightning", "lightning")
def _lightning(model: nn.Module, batches: Batches) -> Trained:
    import lightning

    wq = waveq.attach(model, **_OPTIONS)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: Batch, _place: int) -> Tensor:
            return F.cross_entropy(self.model(batch[0]), batch[1]) + wq.penalty()

        def on_train_batch_end(self, *_: Any) -> None:
            wq.step()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return _sgd(self)

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, **quiet)  # type: ignore
    trainer.fit(Module(), torch.utils.data.DataLoader(list(batches), batch_size=None))  # type: ignore[arg-type]
    return Trained(model, wq)


@_loop("accelerate", "accelerate")
def _accelerate(model: nn.Module, batches: Batches) -> Trained:
    from accelerate import Accelerator

    wq = waveq.attach(model, **_OPTIONS)
    accelerator = Accelerator(cpu=True)
    prepared, optimizer = accelerator.prepare(model, _sgd(model))
    for x, y in batches:
        optimizer.zero_grad()
        accelerator.backward(F.cross_entropy(prepared(x), y) + wq.penalty())
        optimizer.step()
        wq.step()
    return Trained(accelerator.unwrap_model(prepared), wq)


@_loop("transformers' Trainer", "transformers")
def _trainer(model: nn.Module, batches: Batches) -> Trained:
    import transformers

    wq = waveq.attach(model, **_OPTIONS)

    class Wave(transformers.Trainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            out = model(inputs["x"])
            loss = F.cross_entropy(out, inputs["y"]) + wq.penalty()
            return (loss, {"logits": out}) if return_outputs else loss

    class Steps(transformers.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            wq.step()

    rows = [{"x": a, "y": b} for x, y in batches for a, b in zip(x, y, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=len(batches[0][0]),
            num_train_epochs=1,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            use_cpu=True,
            remove_unused_columns=False,
            disable_tqdm=True,
        )
        Wave(model, arguments, train_dataset=rows, callbacks=[Steps()]).train()
    assert wq.steps == len(batches)
    return Trained(model, wq)

"""Compilers, several processes, and the training loops of other packages."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import waveq
from benchmarks.reach._loop import OPTIONS, Batch, Batches, Trained, Ways, refused, sgd, step

__all__ = ["LOOPS"]

LOOPS = Ways()

# ---------------------------------------------------------------------- compilers


@LOOPS.add("attach(torch.compile(network))")
def _compiled_before(model: nn.Module, batches: Batches) -> Trained:
    compiled: Any = torch.compile(model, backend="eager")
    compiled(batches[0][0])
    wq, optimizer = waveq.attach(compiled, **OPTIONS), sgd(model)
    for batch in batches:
        step(compiled, wq, optimizer, batch)
    return Trained(model, wq, "works, the network inside is attached")


@LOOPS.add("torch.compile after attach")
def _compiled_after(model: nn.Module, batches: Batches) -> Trained:
    wq = waveq.attach(model, **OPTIONS)
    compiled: Any = torch.compile(model, backend="eager")
    optimizer = sgd(model)
    for batch in batches:
        step(compiled, wq, optimizer, batch)
    return Trained(model, wq)


@LOOPS.add("torch.compile first, inputs quantised, finalised while compiled")
def _compiled_inputs(model: nn.Module, batches: Batches) -> Trained:
    compiled: Any = torch.compile(model, backend="eager")
    compiled(batches[0][0])
    wq, optimizer = waveq.attach(model, **OPTIONS, activation_bits=3), sgd(model)
    for batch in batches:
        step(compiled, wq, optimizer, batch)
    twin = copy.deepcopy(model).eval()
    with torch.no_grad():
        before = twin(batches[0][0])
    wq.finalize()
    with torch.no_grad():
        assert torch.allclose(compiled.eval()(batches[0][0]), before, atol=1e-5), "the compiled network lost something"
        assert torch.allclose(model.eval()(batches[0][0]), before, atol=1e-5)
    return Trained(model)


@LOOPS.add("torch.jit.script, then attach")
def _scripted(model: nn.Module, _batches: Batches) -> Trained:
    scripted = torch.jit.script(model)
    return Trained(model, None, refused(lambda: waveq.attach(scripted, bits=3), kind=TypeError, words="finalize"))


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


@LOOPS.add("DistributedDataParallel, 1 process")
def _ddp(model: nn.Module, batches: Batches) -> Trained:
    with _one_rank():
        wq = waveq.attach(model, **OPTIONS)
        parallel, optimizer = DistributedDataParallel(model), sgd(model)
        for batch in batches:
            step(parallel, wq, optimizer, batch)
    return Trained(model, wq)


@LOOPS.add("DistributedDataParallel, then attach")
def _ddp_first(model: nn.Module, _batches: Batches) -> Trained:
    with _one_rank():
        parallel = DistributedDataParallel(model)
        note = refused(lambda: waveq.attach(parallel, bits=3), kind=TypeError, words="wrap it afterwards")
        again = refused(lambda: waveq.attach(model, bits=3), kind=TypeError, words="wrap it afterwards")
    assert note == again
    return Trained(model, None, note)


@LOOPS.add("FSDP2: fully_shard, then attach")
def _fsdp_first(model: nn.Module, _batches: Batches) -> Trained:
    from torch.distributed.fsdp import fully_shard

    with _one_rank():
        fully_shard(model, mesh=_mesh())
        note = refused(lambda: waveq.attach(model, bits=3), kind=TypeError, words="then fully_shard")
    return Trained(model, None, note)


def _mesh() -> Any:
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh("cpu", (1,))


@LOOPS.add("FSDP2: attach, then fully_shard")
def _fsdp(model: nn.Module, batches: Batches) -> Trained:
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
    from torch.distributed.fsdp import fully_shard

    twin = copy.deepcopy(model)
    with _one_rank():
        wq = waveq.attach(model, **OPTIONS)
        fully_shard(model, mesh=_mesh(), ignored_params=wq.scales())
        optimizer = sgd(model)
        for batch in batches:
            step(model, wq, optimizer, batch)
        refused(wq.finalize, kind=RuntimeError, words="full_state_dict=True")
        state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    again = waveq.attach(twin, **OPTIONS)
    twin.load_state_dict(state)
    return Trained(twin, again, "works; finalize() in a network that is not sharded and loads the state")


@LOOPS.add("DataParallel (looked into)")
def _data_parallel(model: nn.Module, batches: Batches) -> Trained:
    parallel = nn.DataParallel(model)
    wq, optimizer = waveq.attach(parallel, **OPTIONS), sgd(model)
    for batch in batches:
        step(parallel, wq, optimizer, batch)
    return Trained(model, wq, "works, the network inside is attached")


# ---------------------------------------------------------------------- loops of other packages


@LOOPS.add("Lightning", "lightning")
def _lightning(model: nn.Module, batches: Batches) -> Trained:
    import lightning

    wq = waveq.attach(model, **OPTIONS)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: Batch, _place: int) -> Tensor:
            return F.cross_entropy(self.model(batch[0]), batch[1]) + wq.penalty()

        def on_train_batch_end(self, *_: Any) -> None:
            wq.step()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return sgd(self)

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, **quiet)  # type: ignore
    trainer.fit(Module(), torch.utils.data.DataLoader(list(batches), batch_size=None))  # type: ignore[arg-type]
    return Trained(model, wq)


@LOOPS.add("accelerate", "accelerate")
def _accelerate(model: nn.Module, batches: Batches) -> Trained:
    from accelerate import Accelerator

    wq = waveq.attach(model, **OPTIONS)
    accelerator = Accelerator(cpu=True)
    prepared, optimizer = accelerator.prepare(model, sgd(model))
    for x, y in batches:
        optimizer.zero_grad()
        accelerator.backward(F.cross_entropy(prepared(x), y) + wq.penalty())
        optimizer.step()
        wq.step()
    return Trained(accelerator.unwrap_model(prepared), wq)


@LOOPS.add("transformers' Trainer", "transformers")
def _trainer(model: nn.Module, batches: Batches) -> Trained:
    import transformers

    wq = waveq.attach(model, **OPTIONS)

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

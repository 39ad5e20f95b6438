"""Optimizers, orders of calls, precisions and memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import waveq
from benchmarks.reach._loop import OPTIONS, Batches, Trained, Ways, sgd, step, train

__all__ = ["LOOPS"]

LOOPS = Ways()

# ---------------------------------------------------------------------- optimizers and the order of calls

LOOPS.add("SGD")(train)


@LOOPS.add("Adam with weight decay")
def _adam(model: nn.Module, batches: Batches) -> Trained:
    wq = waveq.attach(model, **OPTIONS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for batch in batches:
        step(model, wq, optimizer, batch)
    return Trained(model, wq)


@LOOPS.add("optimizer built before attach, fused")
def _before(model: nn.Module, batches: Batches) -> Trained:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    return train(model, batches, optimizer=optimizer, quantizer="dorefa")  # LSQ's steps would be in none


@LOOPS.add("zero_grad(set_to_none=False)")
def _zeros(model: nn.Module, batches: Batches) -> Trained:
    wq, optimizer = waveq.attach(model, **OPTIONS), sgd(model)
    for x, y in batches:
        optimizer.zero_grad(set_to_none=False)
        torch.autograd.backward(F.cross_entropy(model(x), y) + wq.penalty())
        optimizer.step()
        wq.step()
    return Trained(model, wq)


@LOOPS.add("zero_grad before wq.step")
def _early_zero(model: nn.Module, batches: Batches) -> Trained:
    wq, optimizer = waveq.attach(model, **OPTIONS), sgd(model)
    for x, y in batches:
        torch.autograd.backward(F.cross_entropy(model(x), y) + wq.penalty())
        optimizer.step()
        optimizer.zero_grad()
        wq.step()
    return Trained(model, wq)


@LOOPS.add("two optimizers")
def _two(model: nn.Module, batches: Batches) -> Trained:
    wq = waveq.attach(model, **OPTIONS)
    body, head = [p for n, p in model.named_parameters() if n[0] != "6"], list(model.get_submodule("6").parameters())
    optimizers = torch.optim.SGD(body, lr=0.05), torch.optim.Adam(head, lr=1e-3)
    for x, y in batches:
        torch.autograd.backward(F.cross_entropy(model(x), y) + wq.penalty())
        for each in optimizers:
            each.step()
            each.zero_grad()
        wq.step()
    return Trained(model, wq)


@LOOPS.add("penalty and loss in two backward calls")
def _backwards(model: nn.Module, batches: Batches) -> Trained:
    wq, optimizer = waveq.attach(model, **OPTIONS), sgd(model)
    for x, y in batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        torch.autograd.backward(loss, retain_graph=True)
        torch.autograd.backward(wq.penalty())
        optimizer.step()
        wq.step()
    return Trained(model, wq)


@LOOPS.add("gradient accumulation, clipping, rate schedule")
def _accumulation(model: nn.Module, batches: Batches) -> Trained:
    wq, optimizer = waveq.attach(model, **OPTIONS), sgd(model)
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


@LOOPS.add("LBFGS")
def _lbfgs(model: nn.Module, batches: Batches) -> Trained:
    wq = waveq.attach(model, **OPTIONS)
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


@LOOPS.add("SAM: two passes a step, weights moved between")
def _sam(model: nn.Module, batches: Batches) -> Trained:
    wq, optimizer = waveq.attach(model, **OPTIONS), sgd(model)
    for x, y in batches:
        torch.autograd.backward(F.cross_entropy(model(x), y) + wq.penalty())
        with torch.no_grad():
            weights, slopes = zip(*[(p, p.grad) for p in model.parameters() if p.grad is not None], strict=True)
            norm = torch.stack([slope.norm() for slope in slopes]).norm()
            away = [0.05 * slope / norm for slope in slopes]
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


@LOOPS.add("autocast bfloat16")
def _autocast(model: nn.Module, batches: Batches) -> Trained:
    wq, optimizer = waveq.attach(model, **OPTIONS), sgd(model)
    for x, y in batches:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(model(x), y) + wq.penalty()
        torch.autograd.backward(loss)
        optimizer.step()
        wq.step()
    return Trained(model, wq)


@LOOPS.add("GradScaler")
def _scaler(model: nn.Module, batches: Batches) -> Trained:
    wq, optimizer = waveq.attach(model, **OPTIONS), sgd(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for x, y in batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y) + wq.penalty()
        torch.autograd.backward(scaler.scale(loss))
        scaler.step(optimizer)
        wq.step(grad_scale=scaler.get_scale())
        scaler.update()
    return Trained(model, wq)


@LOOPS.add("float64 weights")
def _double(model: nn.Module, batches: Batches) -> Trained:
    return train(model.double(), [(x.double(), y) for x, y in batches])


@LOOPS.add("bfloat16 weights")
def _half(model: nn.Module, batches: Batches) -> Trained:
    return train(model.bfloat16(), [(x.bfloat16(), y) for x, y in batches])


@LOOPS.add("channels_last")
def _channels_last(model: nn.Module, batches: Batches) -> Trained:
    return train(model.to(memory_format=torch.channels_last), batches)  # type: ignore[call-overload]


@LOOPS.add("gradient checkpointing")
def _checkpointing(model: nn.Module, batches: Batches) -> Trained:
    return train(model, batches, call=lambda x: checkpoint(model, x, use_reentrant=False))


@LOOPS.add("gradient checkpointing, inputs quantised")
def _checkpointing_inputs(model: nn.Module, batches: Batches) -> Trained:
    return train(model, batches, call=lambda x: checkpoint(model, x, use_reentrant=False), activation_bits=4)

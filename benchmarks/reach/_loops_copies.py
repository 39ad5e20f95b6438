"""Averages, copies, checkpoints, modes and frozen layers."""

from __future__ import annotations

import copy
import io
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

import waveq
from benchmarks.reach._loop import OPTIONS, Batches, Trained, Ways, refused, sgd, step, train

__all__ = ["LOOPS"]

LOOPS = Ways()

# ---------------------------------------------------------------------- averages and copies


@LOOPS.add("moving average of the weights, finalize_copy")
def _average(model: nn.Module, batches: Batches) -> Trained:
    return _averaged(model, batches)


def _averaged(model: nn.Module, batches: Batches, **how: Any) -> Trained:
    wq, optimizer = waveq.attach(model, **OPTIONS), sgd(model)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), **how)
    for batch in batches:
        step(model, wq, optimizer, batch)
        average.update_parameters(model)
    wq.finalize_copy(average)
    assert all(average.module.get_submodule(name).weight.unique().numel() <= 2**b for name, b in wq.bits().items())
    return Trained(model, wq)


@LOOPS.add("moving average with use_buffers=True")
def _average_buffers(model: nn.Module, batches: Batches) -> Trained:
    return _averaged(model, batches, use_buffers=True)


@LOOPS.add("SWA with update_bn")
def _swa(model: nn.Module, batches: Batches) -> Trained:
    wq, optimizer = waveq.attach(model, **OPTIONS), sgd(model)
    average = AveragedModel(model)
    for batch in batches:
        step(model, wq, optimizer, batch)
        average.update_parameters(model)
    update_bn(batches, average)
    wq.finalize_copy(average)
    assert all(average.module.get_submodule(name).weight.unique().numel() <= 2**b for name, b in wq.bits().items())
    return Trained(model, wq)


@LOOPS.add("averaged weights swapped in through .data for evaluation")
def _swapped(model: nn.Module, batches: Batches) -> Trained:
    wq, optimizer = waveq.attach(model, **OPTIONS), sgd(model)
    average = [p.detach().clone() for p in model.parameters()]
    for batch in batches:
        step(model, wq, optimizer, batch)
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


@LOOPS.add("deepcopy in the middle; both go on")
def _deepcopy(model: nn.Module, batches: Batches) -> Trained:
    wq, optimizer = waveq.attach(model, **OPTIONS), sgd(model)
    for batch in batches[:3]:
        step(model, wq, optimizer, batch)
    copied = copy.deepcopy(model)
    with torch.no_grad():
        before = copied.eval()(batches[0][0])
    for batch in batches[3:]:
        step(model, wq, optimizer, batch)
    with torch.no_grad():
        assert torch.equal(copied(batches[0][0]), before), "the copy moved with the original"
    return Trained(model, wq)


@LOOPS.add("pickle while attached")
def _pickle(model: nn.Module, batches: Batches) -> Trained:
    done = train(model, batches)
    note = refused(lambda: torch.save(model, io.BytesIO()), kind=RuntimeError, words="state_dict")
    return Trained(model, done.wq, f"{note} by torch, which names state_dict(); works after finalize()")


@LOOPS.add("resume from a checkpoint")
def _resume(model: nn.Module, batches: Batches) -> Trained:
    again = copy.deepcopy(model)
    straight = train(model, batches)
    half = copy.deepcopy(again)
    wq, optimizer = waveq.attach(half, **OPTIONS), sgd(half)
    for batch in batches[:3]:
        step(half, wq, optimizer, batch)
    kept = copy.deepcopy({"model": half.state_dict(), "optimizer": optimizer.state_dict()})
    wq, optimizer = waveq.attach(again, **OPTIONS), sgd(again)
    again.load_state_dict(kept["model"])
    optimizer.load_state_dict(kept["optimizer"])
    for batch in batches[3:]:
        step(again, wq, optimizer, batch)
    assert straight.wq is not None
    assert wq.betas() == straight.wq.betas(), "the resumed run learned other betas"
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True)), "other weights"
    return Trained(again, wq, "works, the same run to the last bit")


# ---------------------------------------------------------------------- modes and frozen layers


@LOOPS.add("evaluation between steps (no_grad, inference_mode)")
def _alternating(model: nn.Module, batches: Batches) -> Trained:
    wq, optimizer = waveq.attach(model, **OPTIONS), sgd(model)
    for batch in batches:
        step(model, wq, optimizer, batch)
        model.eval()
        with torch.no_grad():
            one = model(batch[0])
        with torch.inference_mode():
            assert torch.equal(model(batch[0]), one)
        model.train()
    return Trained(model, wq)


@LOOPS.add("frozen layers")
def _frozen(model: nn.Module, batches: Batches) -> Trained:
    for parameter in model.get_submodule("0").parameters():
        parameter.requires_grad_(False)
    return train(model, batches)


@LOOPS.add("a layer frozen, then let go, in the middle")
def _thawed(model: nn.Module, batches: Batches) -> Trained:
    wq, optimizer = waveq.attach(model, **OPTIONS), sgd(model)
    weight = dict(model.named_parameters())["3.parametrizations.weight.original"]
    for place, batch in enumerate(batches):
        weight.requires_grad_(place >= 3)
        step(model, wq, optimizer, batch)
    return Trained(model, wq)


@LOOPS.add("functional_call")
def _functional(model: nn.Module, batches: Batches) -> Trained:
    return train(model, batches, call=lambda x: functional_call(model, dict(model.named_parameters()), (x,)))


@LOOPS.add("torch.func.grad over all parameters")
def _func_grad(model: nn.Module, batches: Batches) -> Trained:
    wq, optimizer = waveq.attach(model, bits=3, lambda_w=0.0), sgd(model)
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

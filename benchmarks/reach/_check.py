"""Holds a network to what ``finalize`` promises: what was measured, on no more levels than its bits allow."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import waveq
from benchmarks.reach._case import Case
from benchmarks.reach._loop import Loop, network
from waveq.method.fixed_input import FIXED_INPUT
from waveq.method.sites import weight_sites

__all__ = ["HOW", "LoopOutcome", "Outcome", "outputs", "run_case", "run_loop", "verify"]

STEPS, BITS = 5, 3
NEAR = 1e-5  # of the largest output: what another order of the same sums may make


HOW: Mapping[str, Mapping[str, Any]] = {
    "preset": {"bits": BITS},
    "learned": {"total_steps": STEPS},
    "inputs": {"bits": BITS, "activation_bits": 8},
}


@dataclass(frozen=True)
class Outcome:
    """What came out for one network and one way to choose bits.

    Attributes:
        parameters: values of all its parameters.
        share: of them that was quantised, 0 to 1.
        left: tensors of two axes and more that were not, largest first, each with the reason.
        unread: layers whose weights nobody read.
        bits: the fewest and the most total bits of its layers.
        levels: the most distinct values of a weight (of a slice, in a stack).
        moved: the largest difference of an output by ``finalize``, relative to the largest output.
        said: sentences that ``waveq`` said meanwhile.
        seconds: of all of it.
    """

    parameters: int
    share: float
    left: tuple[str, ...]
    unread: tuple[str, ...]
    bits: tuple[int, int]
    levels: int
    moved: float
    said: tuple[str, ...]
    seconds: float


def call(model: nn.Module, inputs: Mapping[str, Any] | tuple[Any, ...]) -> Any:
    """The model on keywords, or on positional arguments."""
    return model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)


def outputs(result: Any) -> list[Tensor]:
    """All floating-point tensors of what a model returns: a tensor, a list, a dictionary, transformers' outputs."""
    if hasattr(result, "to_tuple"):
        result = result.to_tuple()
    return [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def a_loss(result: Any) -> Tensor:
    """One number that all outputs have a part in."""
    parts = [each.float().square().mean() for each in outputs(result) if each.requires_grad]
    return torch.stack(parts).sum()


def train(model: nn.Module, wq: waveq.WaveQ, inputs: Any, steps: int = STEPS, rate: float = 1e-3) -> None:
    """A few steps of plain SGD."""
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    model.train()
    for _ in range(steps):
        loss = a_loss(call(model, inputs)) + wq.penalty()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # untrained networks are not all well scaled
        optimizer.step()
        wq.step()


def run_case(case: Case, how: str) -> Outcome:
    """Attach, five steps, finalize; see ``verify`` for what must hold.

    Args:
        case: the network.
        how: "preset", three bits for every layer; "learned"; "inputs", preset ones and inputs of eight bits.

    Raises:
        AssertionError: says what does not hold.
    """
    begun = time.perf_counter()
    with _listening() as said:
        torch.manual_seed(0)
        model, inputs = case.make(), case.inputs()
        fresh = copy.deepcopy(model)
        wq = waveq.attach(model, **HOW[how], **case.attach)
        train(model, wq, inputs)
        moved, levels = verify(model, wq, lambda net: outputs(call(net.eval(), inputs)), fresh)
    summary, chosen = wq.summary(), wq.bits()
    left = sorted((row for row in summary if row.layer is None and len(row.shape) > 1), key=lambda row: -row.share)
    return Outcome(
        parameters=sum(p.numel() for p in fresh.parameters()),
        share=summary.share,
        left=tuple(f"{row.name}: {row.why}" for row in left),
        unread=tuple(row.layer for row in summary if row.layer is not None and row.calls == 0),
        bits=(min(chosen.values()), max(chosen.values())),
        levels=levels,
        moved=moved,
        said=tuple(said),
        seconds=round(time.perf_counter() - begun, 2),
    )


@contextmanager
def _listening() -> Iterator[list[str]]:
    """What this package warns of in the block; others' warnings are left to them."""
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield said
    said += [str(each.message) for each in caught if each.category is UserWarning and _is_ours(str(each.message))]


def _is_ours(text: str) -> bool:
    return any(word in text for word in ("quantis", "layers with a forward of their own", "wq.", "attach("))


@dataclass(frozen=True)
class LoopOutcome:
    """What came out for one way to train.

    Attributes:
        note: how it went.
        moved: see ``Outcome``; None where a call was refused.
        levels: the same.
        said: sentences that ``waveq`` said meanwhile.
        seconds: of all of it.
    """

    note: str
    moved: float | None
    levels: int | None
    said: tuple[str, ...]
    seconds: float


def run_loop(loop: Loop) -> LoopOutcome:
    """Train a small network for six steps in this way; see ``verify`` for what must hold."""
    begun = time.perf_counter()
    torch._dynamo.reset()  # it counts what it compiled of one function, ours and all others' networks together
    with _listening() as said:
        torch.manual_seed(0)
        model = network()
        fresh = copy.deepcopy(model)
        batches = [(torch.randn(8, 1, 8, 8), torch.randint(4, (8,))) for _ in range(6)]
        done = loop.run(model, batches)
        moved = levels = None
        if done.wq is not None:
            dtype = next(done.model.parameters()).dtype
            x = batches[0][0].to(dtype)
            moved, levels = verify(done.model, done.wq, lambda net: outputs(net.eval()(x)), fresh.to(dtype))
    return LoopOutcome(done.note, moved, levels, tuple(said), round(time.perf_counter() - begun, 2))


@torch.no_grad()
def verify(
    model: nn.Module, wq: waveq.WaveQ, evaluate: Callable[[nn.Module], list[Tensor]], fresh: nn.Module
) -> tuple[float, int]:
    """Finalize, and compare with what stood before.

    Args:
        model: attached and trained.
        wq: its handle.
        evaluate: the outputs of a model, in evaluation.
        fresh: a copy of the model from before ``attach``.

    Returns:
        The largest difference of an output, relative to the largest output; the most distinct values of a weight.

    Raises:
        AssertionError: outputs, keys, parameters' order or levels are others; or a fresh network with the
            ``state_dict`` computes something else.
    """
    with wq.rounded():
        before = evaluate(model)
    wq.finalize()
    after, state = evaluate(model), model.state_dict()
    moved = _largest_difference(before, after)
    assert moved < NEAR, f"finalize() moved the outputs by {moved:.2g} of the largest"
    assert [key for key in state if FIXED_INPUT not in key] == list(fresh.state_dict()), "finalize() left other keys"
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in fresh.named_parameters()]
    levels = _count_levels(model, wq.bits())
    if any(FIXED_INPUT in key for key in state):
        waveq.restore_inputs(fresh, state)
    fresh.load_state_dict(state)
    again = _largest_difference(after, evaluate(fresh))
    assert again < NEAR, f"a fresh network with the same state_dict differs by {again:.2g}"
    return moved, levels


def _largest_difference(before: list[Tensor], after: list[Tensor]) -> float:
    assert [each.shape for each in before] == [each.shape for each in after], "outputs of other shapes"
    assert before, "no outputs"
    assert all(bool(each.isfinite().all()) for each in before), "outputs that are not finite"
    size = max([float(each.abs().max()) for each in before if each.numel()], default=0.0)
    apart = max([float((a - b).abs().max()) for a, b in zip(before, after, strict=True) if a.numel()], default=0.0)
    return apart / max(size, 1e-12)


def _count_levels(model: nn.Module, chosen: Mapping[str, int]) -> int:
    most = 0
    sites = weight_sites(model, bits=dict(chosen))
    for name, bits in chosen.items():
        site = sites[name]
        weight = getattr(site.module, site.tensor)
        for each in weight if site.stacked else (weight,):
            count = int(each.unique().numel())
            assert count <= 2**bits, f"{name} has {count} values at {bits} bits"
            most = max(most, count)
    return most

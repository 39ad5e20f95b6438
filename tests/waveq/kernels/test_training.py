"""The compiled forms where training makes it hard: each against the plain formulas in the same situation."""

from __future__ import annotations

import copy
import shutil
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import waveq
from tests.ranks import in_two_ranks
from waveq._kernels.backends import use_backend
from waveq._kernels.cpu.engine import NumbaEngine
from waveq.zoo.datasets.sources import DIGITS

FORMS = ("plain", "numba")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(288, 4),
    )


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(16, 3, 8, 8, generator=generator), torch.randint(0, 4, (16,), generator=generator)


def attached(model: nn.Module, **choices: Any) -> waveq.WaveQ:
    """Every step in phase 2, quantised, with both gradients on beta at work."""
    choices = {"schedule": lambda _step: (0.2, 0.02), "total_steps": 10**6, "activation_bits": 4, **choices}
    handle = waveq.attach(model, **choices)
    handle.step()  # phase 2 begins with a step
    for layer in handle._layers.values():
        layer.state.beta.data.fill_(3.4)
    return handle


def gradients(model: nn.Module, handle: waveq.WaveQ) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    for layer in handle._layers.values():
        if layer.state.beta.grad is not None:
            found[f"beta of {layer.name}"] = layer.state.beta.grad.clone()
    return found


def close(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float = 2e-4) -> None:
    assert ours.keys() == theirs.keys()
    assert any(name.startswith("beta") for name in ours)
    for name, value in ours.items():
        # The gradient of LSQ's step is a sum whose terms may cancel: in layer 2 it is 3e-6, a five-thousandth of
        # its terms' sizes added up, and either form's rounding error is 2e-4 of it and more.
        scale = theirs[name].abs().max().clamp_min(1e-5 if name.endswith("quantizer.step") else 1e-8)
        assert float((value - theirs[name]).abs().max() / scale) < tolerance, name


def rounded_weights(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Filled with every weight that is rounded from now on."""
    calls: list[Tensor] = []
    original = NumbaEngine.round
    monkeypatch.setattr(NumbaEngine, "round", lambda self, w, table: calls.extend(w) or original(self, w, table))
    return calls


def one_step(
    form: str, *, forward: Any = None, prepare: Any = None, parts: int = 1, **choices: Any
) -> dict[str, Tensor]:
    """Gradients of one step; ``parts`` micro-batches."""
    model = network()
    x, y = batch()
    with use_backend(form):
        handle = attached(model, **choices)
        if prepare is not None:
            model, x = prepare(model, x)
        run = forward or (lambda net, data: net(data))
        for data, target in zip(x.chunk(parts), y.chunk(parts), strict=True):
            loss = (F.cross_entropy(run(model, data).float(), target) + handle.penalty()) / parts
            loss.backward()
        return gradients(model, handle)


@pytest.mark.filterwarnings("ignore:layer .* of its first inputs lie outside:UserWarning")
@pytest.mark.parametrize(
    "choices", [{}, {"quantizer": "wrpn"}, {"quantizer": "lsq"}, {"preset": "paper"}, {"scale": "learned"}], ids=str
)
def test_one_step_has_the_gradients_of_the_plain_form(choices: dict[str, Any]) -> None:
    close(one_step("numba", **choices), one_step("plain", **choices))


def test_gradient_accumulation_adds_up() -> None:
    accumulated = one_step("numba", parts=4, activation_bits=None)
    close(accumulated, one_step("plain", parts=4, activation_bits=None))


def test_gradient_accumulation_rounds_once_a_step_once_it_has_been_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = rounded_weights(monkeypatch)
    model = network()
    handle = attached(model, activation_bits=None)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    rounded = []
    for parts in (4, 4, 4, 1, 1, 4):
        calls.clear()
        for _ in range(parts):
            ((model(batch()[0]).square().mean() + handle.penalty()) / parts).backward()
        optimizer.step()
        optimizer.zero_grad()
        handle.step()
        rounded.append(len(calls))
    assert rounded == [6, 3, 3, 3, 3, 6]  # layers, not layers times micro-batches; forgotten where it ends


def test_quantised_weights_are_freed_as_the_backward_pass_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(600, 600), nn.Linear(600, 600))  # each a group of its own
    handle = attached(model, activation_bits=None)
    there: weakref.WeakSet[Tensor] = weakref.WeakSet()
    original = NumbaEngine.round

    def run(*arguments: Any) -> Any:
        made = original(*arguments)
        there.update(made[0])
        return made

    monkeypatch.setattr(NumbaEngine, "round", run)
    left = []
    first = model[0](torch.ones(1, 600))
    first.register_hook(lambda _: left.append(len(there)))
    loss = model[1](first).square().mean() + handle.penalty()
    assert len(there) == 2
    loss.backward()
    assert left == [1]  # the last layer has given its own back before its input gets a gradient
    assert len(there) == 0


def test_a_shared_module_rounds_once_and_sums_both_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.inner(torch.tanh(self.inner(x)))
            return result

    calls = rounded_weights(monkeypatch)
    results = []
    for form in FORMS:
        torch.manual_seed(1)
        model = Twice()
        with use_backend(form):
            handle = attached(model, activation_bits=None)
            (model(torch.ones(3, 6)).square().sum() + handle.penalty()).backward()
        results.append(gradients(model, handle))
    assert len(calls) == 1
    close(results[1], results[0])


@pytest.mark.parametrize("through_data", [False, True])
def test_a_changed_weight_is_rounded_again(through_data: bool) -> None:
    """An update through ``.data`` does not count up the version; the cleared gradient and step() give it away."""
    model = network()
    handle = attached(model, activation_bits=None)
    weight = model[5].parametrizations.weight.original
    before = model[5].weight.detach().clone()
    (model(batch()[0]).sum() + handle.penalty()).backward()
    with torch.no_grad():
        if through_data:
            weight.data.mul_(-1.0)
            weight.grad = None
        else:
            weight.mul_(-1.0)
    torch.testing.assert_close(model[5].weight.detach(), -before)


def test_any_optimizer_s_step_makes_weights_new() -> None:
    class Descent(torch.optim.Optimizer):
        def __init__(self, parameters: Any) -> None:
            super().__init__(parameters, {})

        def step(self, closure: Any = None) -> None:
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        p.data.add_(p.grad, alpha=-0.5)

    model = network()
    handle = attached(model, activation_bits=None)
    optimizer = Descent(model.parameters())
    (model(batch()[0]).square().sum() + handle.penalty()).backward()
    before = model[5].weight.detach().clone()
    optimizer.step()  # gradients are not cleared, versions not counted
    assert not torch.equal(model[5].weight.detach(), before)


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing(reentrant: bool) -> None:
    def forward(net: nn.Sequential, x: Tensor) -> Tensor:
        middle = checkpoint(net[:4], x.requires_grad_(), use_reentrant=reentrant)
        result: Tensor = net[4:](middle)
        return result

    close(one_step("numba", forward=forward), one_step("plain"))


def test_channels_last() -> None:
    def prepare(model: nn.Module, x: Tensor) -> tuple[nn.Module, Tensor]:
        return model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)

    ours = one_step("numba", prepare=prepare)
    close(ours, one_step("plain"))


def test_autocast() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            result: Tensor = net(x)
        return result

    close(one_step("numba", forward=forward), one_step("plain", forward=forward), tolerance=3e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_models_in_other_precisions(dtype: torch.dtype) -> None:
    def prepare(model: nn.Module, x: Tensor) -> tuple[nn.Module, Tensor]:
        return model.to(dtype), x.to(dtype)

    tolerance = 3e-2 if dtype == torch.bfloat16 else 1e-5
    # on the fine levels of [0, 1] an input that bfloat16 moves to the next level weighs little; over a range from data
    # one such input alone is several per cent of a bias's gradient, whichever form made it
    inputs = {"activation_quantizer": "dorefa"} if dtype == torch.bfloat16 else {}
    ours, theirs = (one_step(form, prepare=prepare, **inputs) for form in ("numba", "plain"))
    close(ours, theirs, tolerance=tolerance)


def test_evaluation_without_gradients_follows_every_change() -> None:
    model = network()
    attached(model)
    model.eval()
    x, _ = batch()
    with torch.no_grad():
        fused = model(x)
        with use_backend("plain"):
            torch.testing.assert_close(fused, model(x), rtol=1e-4, atol=1e-5)
        averaged = copy.deepcopy(model[5].parametrizations.weight.original.data) * 3.0
        model[5].parametrizations.weight.original.data.copy_(averaged)  # averages are swapped in like this
        with use_backend("plain"):
            expected = model(x)
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


def test_a_scaled_loss_and_clipping() -> None:
    results = []
    for form in FORMS:
        model = network()
        with use_backend(form):
            handle = attached(model)
            x, y = batch()
            (1024.0 * (F.cross_entropy(model(x), y) + handle.penalty())).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        results.append(gradients(model, handle))
    close(results[1], results[0])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own, from many places
def test_torch_compile_of_the_model() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        compiled: Tensor = torch.compile(net, backend="aot_eager")(x)
        return compiled

    close(one_step("numba", forward=forward), one_step("plain"))
    torch._dynamo.reset()


def losses_of(forward: Any, wq: waveq.WaveQ, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        loss = F.cross_entropy(forward(torch.ones(4, 6)), torch.arange(4)) + wq.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        wq.step()
        found.append(loss.item())
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_one_compiled_graph_follows_every_phase_and_checkpoints() -> None:
    losses: list[list[float]] = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 5))
        wq = waveq.attach(model, total_steps=12)
        start = copy.deepcopy(model.state_dict())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        forward = torch.compile(model, backend="aot_eager", fullgraph=True) if compiled else model
        found = losses_of(forward, wq, optimizer, 10)
        model.load_state_dict(start)
        losses.append(found + losses_of(forward, wq, optimizer, 4))
        torch._dynamo.reset()
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile's default backend needs a C++ compiler")
def test_torch_compile_to_machine_code_trains_alike() -> None:
    def losses(compiled: bool) -> list[float]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 5))
        wq = waveq.attach(model, bits=3, lambda_w=1.0)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return losses_of(torch.compile(model) if compiled else model, wq, optimizer, 3)

    assert losses(compiled=True) == pytest.approx(losses(compiled=False), rel=1e-5)
    torch._dynamo.reset()


def _worker(rank: int, folder: Path) -> None:
    model = network()
    handle = attached(model, activation_quantizer="dorefa")  # a range is the mean of two halves' ranges
    wrapped = DistributedDataParallel(model)
    x, y = batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(3):
        loss = F.cross_entropy(wrapped(x[rank::2]), y[rank::2]) + handle.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        handle.step()
    torch.save({"state": model.state_dict(), "betas": handle.betas()}, f"{folder}/{rank}.pt")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:layer .* of its first inputs lie outside:UserWarning")
def test_two_processes_agree_with_one(tmp_path: Path) -> None:
    in_two_ranks(_worker, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for name, value in first["state"].items():
        assert torch.equal(value, second["state"][name]), name
    model = network()
    handle = attached(model, activation_quantizer="dorefa")  # a range is the mean of two halves' ranges
    x, y = batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(3):
        loss = F.cross_entropy(model(x), y) + handle.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        handle.step()
    for name, beta in handle.betas().items():
        assert abs(beta - first["betas"][name]) < 1e-4
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value.float(), first["state"][name].float(), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_digits_give_the_same_policy_with_both_forms() -> None:
    """The whole method on real data, same seeds: the same bits, betas within a tenth of a bit, loss within 0.02."""
    with np.load(DIGITS) as digits:
        x = torch.tensor(digits["images"], dtype=torch.float32).unsqueeze(1) / 16.0
        y = torch.tensor(digits["labels"], dtype=torch.int64)
    results = []
    for form in FORMS:
        torch.manual_seed(3)
        model = nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10)
        )
        with use_backend(form):
            handle = waveq.attach(model, total_steps=100 * 14, schedule="constant", lambda_beta=0.02)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
            order = torch.Generator().manual_seed(4)
            for _ in range(10):
                for part in torch.randperm(len(x), generator=order).split(128)[:14]:
                    loss = F.cross_entropy(model(x[part]), y[part]) + handle.penalty()
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    handle.step()
            with torch.no_grad():
                results.append((handle.bits(), handle.betas(), float(F.cross_entropy(model(x), y))))
    (bits, betas, loss), (our_bits, our_betas, our_loss) = results
    assert our_bits == bits
    assert all(abs(our_betas[name] - beta) < 0.1 for name, beta in betas.items())
    assert abs(our_loss - loss) < 0.02

"""Neighbouring layers behind one autograd node: gradients are those of the plain form, however the graph is used."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import waveq
from tests.training import FunctionalNet, batches, beta_of, mlp
from waveq._kernels import groups
from waveq._kernels.backends import use_backend
from waveq._kernels.rounding import GROUP, Record, groups_of
from waveq.functional import Grid
from waveq.method.parametrization import parametrization_of
from waveq.quantizers import WeightQuantizer
from waveq.quantizers.base import Given, Levels

X = batches(1)[0][0]


@given(st.lists(st.integers(1, 2 * GROUP), min_size=1, max_size=30))
def test_groups_follow_one_another_and_are_small(sizes: list[int]) -> None:
    runs = groups_of(sizes)
    assert [i for run in runs for i in range(run.start, run.stop)] == list(range(len(sizes)))
    for run, after in zip(runs, [*runs[1:], None], strict=True):
        total = sum(sizes[run])
        assert run.stop - run.start == 1 or total <= GROUP
        assert after is None or total + sizes[after.start] > GROUP, "no group is shorter than it must be"


def in_one_group(**choices: Any) -> tuple[nn.Sequential, waveq.WaveQ]:
    """Three layers that were read once, so that the next read rounds them together."""
    model = mlp()
    schedule = {} if "bits" in choices else {"schedule": lambda _step: (0.2, 0.02), "total_steps": 10**6}
    handle = waveq.attach(model, **{**schedule, **choices})
    handle.step()
    with torch.no_grad():
        for name in handle.names if "bits" not in choices else ():
            beta_of(model, name).fill_(3.4)
    model(X)
    handle.step()
    return model, handle


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many layers each node has."""
    made: list[int] = []
    original = groups.hand_out

    def hand_out(record: Record) -> Any:
        made.append(len(record.weights))
        return original(record)

    monkeypatch.setattr(groups, "hand_out", hand_out)
    return made


def gradients(model: nn.Module) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return found | {name: b.grad.clone() for name, b in model.named_buffers() if b.grad is not None}


USES: dict[str, Callable[[nn.Sequential, waveq.WaveQ], None]] = {}


def use(function: Callable[[nn.Sequential, waveq.WaveQ], None]) -> Callable[[nn.Sequential, waveq.WaveQ], None]:
    USES[function.__name__] = function
    return function


@use
def both_terms_at_once(model: nn.Sequential, handle: waveq.WaveQ) -> None:
    (model(X).square().mean() + handle.penalty()).backward()


@use
def a_layer_that_the_loss_leaves_out(model: nn.Sequential, handle: waveq.WaveQ) -> None:
    model(X)
    model[4](model[0](X)).square().mean().backward()


@use
def two_passes_and_one_loss(model: nn.Sequential, handle: waveq.WaveQ) -> None:
    (model(X).square().mean() + model(-X).abs().mean() + handle.penalty()).backward()


@use
def a_layer_read_twice_in_between(model: nn.Sequential, handle: waveq.WaveQ) -> None:
    y = model[2](model[2](model[0](X)))
    (model[4](y).square().mean() + handle.penalty()).backward()


@use
def a_graph_kept_and_used_again(model: nn.Sequential, handle: waveq.WaveQ) -> None:
    loss = model(X).square().mean() + handle.penalty()
    loss.backward(retain_graph=True)
    loss.backward()


@use
def micro_batches(model: nn.Sequential, handle: waveq.WaveQ) -> None:
    for x in X.chunk(4):
        ((model(x).square().mean() + handle.penalty()) / 4).backward()


@use
def parts_checkpointed_inside_the_graph(model: nn.Sequential, handle: waveq.WaveQ) -> None:
    middle = checkpoint(model[:2], X, use_reentrant=False)
    (checkpoint(model[2:], middle, use_reentrant=False).square().mean() + handle.penalty()).backward()


@use
def parts_checkpointed_with_graphs_of_their_own(model: nn.Sequential, handle: waveq.WaveQ) -> None:
    middle = checkpoint(model[:2], X.clone().requires_grad_(), use_reentrant=True)
    (checkpoint(model[2:], middle, use_reentrant=True).square().mean() + handle.penalty()).backward()


@use
def one_layer_frozen(model: nn.Sequential, handle: waveq.WaveQ) -> None:
    model[2].parametrizations.weight.original.requires_grad_(False)
    (model(X).square().mean() + handle.penalty()).backward()


@pytest.mark.parametrize("choices", [{}, {"quantizer": "lsq"}, {"quantizer": "wrpn"}, {"bits": 3, "quantizer": "lsq"}])
@pytest.mark.parametrize("name", USES)
def test_gradients_are_those_of_the_plain_form(name: str, choices: dict[str, Any]) -> None:
    found = []
    for form in ("plain", "auto"):
        model, handle = in_one_group(**choices)
        with use_backend(form):
            USES[name](model, handle)
        found.append(gradients(model))
    expected, ours = found
    assert ours.keys() == expected.keys()
    for key in expected:
        torch.testing.assert_close(ours[key], expected[key], rtol=1e-4, atol=1e-6, msg=lambda m, key=key: f"{key}: {m}")


def test_one_node_serves_all_layers_and_each_new_pass_makes_one(nodes: list[int]) -> None:
    model, handle = in_one_group()
    nodes.clear()
    model(X)
    assert nodes == [3]
    model(X)
    assert nodes == [3, 3]
    handle.step()


def test_one_gradient_alone_may_be_asked_for() -> None:
    model, handle = in_one_group()
    weights = [model[place].parametrizations.weight.original for place in (0, 2, 4)]
    together = torch.autograd.grad(model(X).square().mean(), weights)
    for weight, expected in zip(weights, together, strict=True):
        (alone,) = torch.autograd.grad(model(X).square().mean(), weight)
        assert torch.equal(alone, expected)
    handle.step()


def test_only_the_changed_layer_of_a_group_is_refused() -> None:
    model, _ = in_one_group()
    model(X)
    first, last = model[0](X).sum(), model[4](torch.ones(1, 24)).sum()
    with torch.no_grad():
        model[4].parametrizations.weight.original.mul_(0.5)
    first.backward()
    with pytest.raises(RuntimeError, match="changed in place"):
        last.backward()


def test_values_that_somebody_wrote_to_are_made_again() -> None:
    model, _ = in_one_group()
    third = model[2].weight
    expected = third.detach().clone()
    for _ in range(2):
        _ = model[0].weight  # the second time from a new node, which has the third layer's too
    with torch.no_grad():
        third.zero_()
    assert torch.equal(model[2].weight, expected)


CHOICES = [
    {},
    {"quantizer": "lsq", "activation_bits": 4},
    {"quantizer": "pact", "activation_bits": 4},
    {"preset": "paper"},
    {"preset": "released"},
    {"bits": 3},
    {"forward": "float", "bits": 3},
    {"target": {"mean_bits": 3.0}},
]


@pytest.fixture(scope="module")
def few_objects() -> Iterator[None]:
    """Python's collector sees only what is made from now on, so that its walks take milliseconds."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.slow
@pytest.mark.usefixtures("few_objects")
@pytest.mark.filterwarnings("ignore:step.. after an optimizer has moved the weights, but penalty:UserWarning")
@pytest.mark.parametrize("form", ["auto", "plain"])
@pytest.mark.parametrize("priced", [True, False])
@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_no_step_leaves_anything_behind(choices: dict[str, Any], priced: bool, form: str) -> None:
    # a circle through autograd's nodes is one that Python's collector cannot see
    model = FunctionalNet()
    wq = waveq.attach(model, total_steps=24, **choices)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    x = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))

    def step() -> None:
        with use_backend(form):
            loss = model(x).square().mean()
            if priced:
                loss = loss + wq.penalty()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            wq.step()

    def tensors() -> int:  # but the vectors of waves that the history keeps, one a recorded step
        kept = sum(len(record.waves) for record in wq._history._records)
        return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects()) - kept

    for _ in range(10):
        step()
    gc.collect()
    gc.disable()
    before = tensors()
    for _ in range(5):
        step()
    after = tensors()
    gc.enable()
    assert after <= before


class EveryNumber(WeightQuantizer):
    """Pitch, gain and both divisors learn, through a parameter, beta and the largest weight; u and v have bounds."""

    scale_modes = ("none",)
    squash = "tanh"
    around = 1.1

    def __init__(self, weight: Tensor, **options: Any) -> None:
        super().__init__(weight, **options)
        self.size = nn.Parameter(torch.tensor(0.9))
        self.tilt = nn.Parameter(torch.tensor(0.2))

    def grid(self, total_bits: int | None = None) -> Grid:
        return Grid.MID_RISE

    def levels(self, given: Given) -> Levels:
        k = given.steps
        return Levels(
            pitch=given.stretch / k * (1.0 + 0.1 * self.tilt),
            low=-k,
            high=k,
            gain=self.size * given.largest + self.tilt,
            divisor=given.reach * self.size,
            bounds=(-0.9, self.around),
            closed=False,
            wave_divisor=given.reach + 0.1 * self.size,
            wave_bounds=(-0.8, 0.7),
        )


class EveryNumberAsItIs(EveryNumber):
    squash = "none"


@pytest.mark.parametrize("method", [EveryNumber, EveryNumberAsItIs])
@pytest.mark.parametrize("form", ["torch", "numba"])
def test_whatever_a_quantizer_states_is_compiled_as_its_plain_form(form: str, method: type[WeightQuantizer]) -> None:
    assert method(torch.ones(3)).compiles("forward")
    found = []
    for each in ("plain", form):
        model = mlp()
        handle = waveq.attach(model, quantizer=method, schedule=lambda _step: (0.2, 0.02), total_steps=10**6)
        handle.step()
        with use_backend(each):
            for _ in range(2):
                with torch.no_grad():
                    for name in handle.names:
                        beta_of(model, name).fill_(2.4)
                model.zero_grad()
                (model(X).square().mean() + handle.penalty()).backward()
                found.append(gradients(model))
                handle.step()
    for expected, ours in zip(found[:2], found[2:], strict=True):
        assert ours.keys() == expected.keys()
        for key in expected:
            torch.testing.assert_close(
                ours[key], expected[key], rtol=1e-3, atol=2e-6, msg=lambda m, key=key: f"{key}: {m}"
            )


def test_quantizers_that_differ_in_a_plain_attribute_are_not_taken_for_one_another() -> None:
    model = mlp()
    handle = waveq.attach(model, quantizer=EveryNumber, bits=3)
    parametrization_of(model[2]).quantizer.around = 0.5
    for _ in range(3):
        rounded = [model[place].weight.detach().clone() for place in (0, 2, 4)]
        handle.step()
    with use_backend("plain"):
        expected = [model[place].weight.detach() for place in (0, 2, 4)]
    torch.testing.assert_close(rounded, expected, rtol=1e-5, atol=1e-7)

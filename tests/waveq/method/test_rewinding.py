"""Search, then rewind: the run that follows is the one that the float model would have had with those bits."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import waveq
from tests.training import OPTIMIZERS, batches, mlp, train
from waveq.method.options import Method

State = dict[str, Any]


def normed(seed: int = 0) -> nn.Sequential:
    """Batch norm, and a ReLU that an input quantiser may do the work of."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(6, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 3)
    )


def search(make: Callable[[], nn.Sequential] = mlp, steps: int = 12, **options: Any) -> tuple[nn.Module, Any, State]:
    """A search that has ended, and the float weights that it began from."""
    model = make()
    start = copy.deepcopy(model.state_dict())
    wq = waveq.attach(model, **{"total_steps": 12, **options})
    train(model, wq, OPTIMIZERS["sgd"](model.parameters()), batches(steps))
    return model, wq, start


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        pytest.param({}, {}, id="plain"),
        pytest.param({"lambda_beta": 0.1, "lambda_w": 0.7, "quantizer": "wrpn"}, {"lambda_w": 0.7}, id="strengths"),
        pytest.param({"target": {"mean_bits": 3.0}, "quantizer": "lsq", "activation_bits": 4}, {}, id="scales, inputs"),
        pytest.param({"activation_bits": {"3": 2}, "activation_signed": True}, {"activation_signed": True}, id="signs"),
        pytest.param({"skip": ("0",), "preset": "paper"}, {"skip": ("0",), "preset": "paper"}, id="skip, preset"),
        pytest.param({"first_last": 8, "scale_rule": "2^(b-beta)"}, {"scale_rule": "2^(b-beta)"}, id="ends, rule"),
        pytest.param({"forward": "float"}, {"forward": "float"}, id="float road"),
        pytest.param({"schedule": "exponential"}, {"schedule": "exponential"}, id="schedule"),
    ],
)
def test_it_is_the_float_model_attached_with_the_learned_bits(options: State, kept: State) -> None:
    model, wq, start = search(normed, **options)
    policy = wq.policy()
    wq = waveq.rewind(wq, start, total_steps=8)
    twin = normed()
    other = waveq.attach(twin, bits=policy, total_steps=8, **kept)
    assert same(model.state_dict(), twin.state_dict())
    assert dict(wq.policy()) == dict(policy)
    assert wq.policy().activation_bits == policy.activation_bits
    assert (wq.learning, wq.steps, wq.total_steps) == (False, 0, 8)
    for each, handle in ((model, wq), (twin, other)):
        train(each, handle, OPTIMIZERS["adam"](each.parameters()), batches(8, seed=5))
        handle.finalize()
    assert same(model.state_dict(), twin.state_dict())


def test_the_search_remains_readable_and_stands_in_the_policy(tmp_path: Path) -> None:
    model, wq, start = search(target={"mean_bits": 3.0})
    betas, doubts = wq.betas(), wq.diagnose()
    rewound = waveq.rewind(wq, start)
    assert (wq.betas(), wq.diagnose(), wq.steps) == (betas, doubts, 12)
    with pytest.raises(RuntimeError, match=r"rewind\(\) after remove\(\)"):
        waveq.rewind(wq, start)
    rewound.policy().save(tmp_path / "policy.json")
    told = waveq.Policy.load(tmp_path / "policy.json").provenance["search"]
    assert told == {
        "schedule": "three-phase", "total_steps": 12, "target": {"mean_bits": 3.0}, "steps": 12, "betas": betas
    }  # fmt: skip
    assert "search" not in waveq.attach(mlp(), bits=3).policy().provenance
    assert rewound.total_steps is None
    assert model.state_dict().keys() >= {"waveq_step"}


def test_options_may_differ_from_the_searchs() -> None:
    _, wq, start = search()
    wq = waveq.rewind(wq, start, total_steps=10, schedule="exponential", lambda_w=0.25)
    assert (wq.settings.schedule.name, wq.strengths()[0]) == ("exponential", pytest.approx(0.25 * torch.e**-4))


def test_bits_that_are_still_free_are_fixed_within_the_budget() -> None:
    _, wq, start = search(steps=3, target={"mean_bits": 3.0})
    with pytest.warns(UserWarning, match=r"rewind\(\) at step 3 of 12: the bits were still being learned"):
        wq = waveq.rewind(wq, start)
    assert wq.mean_bits() <= 3.0


def test_float_weights_from_a_file(tmp_path: Path) -> None:
    model, wq, start = search()
    torch.save(start, tmp_path / "float.pt")
    waveq.rewind(wq, tmp_path / "float.pt")
    assert torch.equal(model[0].parametrizations.weight.original, start["0.weight"])


def test_a_layer_used_twice_and_tied_weights_come_back_as_they_were() -> None:
    def tied() -> nn.Sequential:
        model = mlp()
        model.append(nn.Linear(24, 3))
        model[5].weight = model[4].weight
        return nn.Sequential(*model[:3], model[2], model[3], model[4])

    model, wq, start = search(tied)
    waveq.rewind(wq, start).remove()
    assert same(model.state_dict(), start)


def _alias(start: State, model: nn.Module) -> Any:
    return {**start, "2.bias": model.state_dict()["2.bias"]}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda start, model: {k: v for k, v in start.items() if k != "2.bias"}, r"start lacks '2\.bias' of the model"),
        (
            lambda start, model: {**start, "2.wieght": torch.ones(1)},
            r"'2\.wieght', which the model does not have.*'2\.w",
        ),
        (lambda start, model: {**start, "2.bias": torch.ones(3)}, r"start\['2\.bias'\].*\(24,\), not of shape \(3,\)"),
        (lambda start, model: {**start, "2.bias": 3.0}, r"start\['2\.bias'\] must be a tensor.*not float"),
        (_alias, r"start\['2\.bias'\] is the model's own memory.*copy\.deepcopy"),
        (lambda start, model: copy.deepcopy(model.state_dict()), "the state_dict of an attached model"),
        (lambda start, model: Path("none.pt"), r"none\.pt: there is no such file"),
        (lambda start, model: Path(__file__), "truncated or not a file of weights"),
        (lambda start, model: 3, "start must be the model, a state_dict or a file of one, not int"),
    ],
)
def test_a_start_that_does_not_fit_leaves_the_run_as_it_was(change: Any, complaint: str) -> None:
    model, wq, start = search()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises((ValueError, TypeError), match=complaint):
        waveq.rewind(wq, change(start, model))
    assert same(model.state_dict(), before)
    wq.penalty().backward()
    wq.step()


def test_a_file_of_something_else(tmp_path: Path) -> None:
    _, wq, _ = search()
    torch.save([1], tmp_path / "list.pt")
    with pytest.raises(ValueError, match=r"list\.pt holds no state_dict"):
        waveq.rewind(wq, tmp_path / "list.pt")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"lamda_w": 1.0}, "'lamda_w' is no option of attach.*did you mean 'lambda_w'"),
        ({"lambda_w": -1.0}, "lambda_w must be a finite number"),
        ({"schedule": "exponential"}, "the exponential schedule needs total_steps"),
    ],
)
def test_wrong_options_leave_the_run_as_it_was(changes: State, complaint: str) -> None:
    _, wq, start = search()
    with pytest.raises(ValueError, match=complaint):
        waveq.rewind(wq, start, **changes)
    wq.penalty().backward()
    wq.step()


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_an_optimizer_of_the_search_is_refused_at_its_first_step(kind: str) -> None:
    model = mlp()
    start = copy.deepcopy(model.state_dict())
    wq = waveq.attach(model, total_steps=12)
    stale = OPTIMIZERS[kind](model.parameters())
    train(model, wq, stale, batches(12))
    wq = waveq.rewind(wq, start)
    with pytest.raises(RuntimeError, match=rf"this {type(stale).__name__} is the search's: of 6 of the model's"):
        train(model, wq, stale, batches(1))
    assert torch.equal(model[0].parametrizations.weight.original, start["0.weight"])
    train(model, wq, OPTIMIZERS[kind](model.parameters()), batches(3))
    other = mlp()
    for optimizer in (OPTIMIZERS[kind](other.parameters()),):  # somebody else's model is nobody's business
        other(batches(1)[0][0]).sum().backward()
        optimizer.step()


def test_a_loop_that_steps_twice_before_wq_steps_is_left_alone() -> None:
    model, wq, start = search()
    wq = waveq.rewind(wq, start)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    for _ in range(2):
        model(batches(1)[0][0]).sum().backward()
        optimizer.step()


def test_a_checkpoint_of_the_second_part_brings_its_optimizer_along() -> None:
    def second_part(stop: int | None) -> tuple[nn.Module, Any, torch.optim.Optimizer]:
        model, wq, start = search(normed, quantizer="lsq", activation_bits=4)
        wq = waveq.rewind(wq, start, total_steps=8)
        optimizer = OPTIMIZERS["adam"](model.parameters())
        train(model, wq, optimizer, batches(8)[:stop])
        return model, wq, optimizer

    whole, _, _ = second_part(None)
    saved, _, held = second_part(3)
    model, wq, optimizer = second_part(0)
    model.load_state_dict(saved.state_dict())
    optimizer.load_state_dict(held.state_dict())
    train(model, wq, optimizer, batches(8)[3:])
    assert same(model.state_dict(), whole.state_dict())


def test_nothing_keeps_a_run_alive_that_nobody_steps() -> None:
    model, wq, start = search()
    gone = weakref.ref(waveq.rewind(wq, start))
    del wq
    other = mlp(1)
    other(batches(1)[0][0]).sum().backward()
    OPTIMIZERS["sgd"](other.parameters()).step()
    assert gone() is None
    assert model is not None


def test_a_compiled_model_is_looked_into_and_ddp_has_to_go_first() -> None:
    model = mlp()
    start = copy.deepcopy(model.state_dict())
    wq = waveq.attach(torch.compile(model), total_steps=2)
    train(model, wq, OPTIMIZERS["sgd"](model.parameters()), batches(2))
    assert not waveq.rewind(wq, start).learning


def test_with_policy_keeps_all_but_what_drives_bits() -> None:
    method = Method(skip=("a",), target={"mean_bits": 3.0}, lambda_w=0.1, activation_bits=4, total_steps=5)
    assert method.with_policy({"b": 3}, 7) == Method(skip=("a",), bits={"b": 3}, lambda_w=0.1, total_steps=7)


# ---------------------------------------------------------------------- the model itself as the start


def test_the_model_itself_is_a_start() -> None:
    model, wq, start = search(normed)
    twin, other, _ = search(normed)
    kept, given = waveq.rewind(wq, model, total_steps=8), waveq.rewind(other, start, total_steps=8)
    assert same(model.state_dict(), twin.state_dict())
    assert kept.policy() == given.policy()
    again = {name.replace("parametrizations.weight.original", "weight"): t for name, t in model.state_dict().items()}
    assert all(torch.equal(again[name], value) for name, value in start.items())


def test_weights_that_are_loaded_before_the_first_step_are_the_start() -> None:
    model, other = normed(), normed(seed=1)
    wq = waveq.attach(model, total_steps=12)
    model.load_state_dict(other.state_dict())
    train(model, wq, OPTIMIZERS["sgd"](model.parameters()), batches(12))
    waveq.rewind(wq, model, total_steps=8).remove()
    assert same(model.state_dict(), other.state_dict())


def test_a_resumed_search_wants_to_be_given_its_start() -> None:
    model, _wq, start = search(normed, steps=6)
    resumed = normed(seed=3)  # a process that makes its network anew; its weights are nobody's start
    again = waveq.attach(resumed, total_steps=12)
    resumed.load_state_dict(model.state_dict())
    train(resumed, again, OPTIMIZERS["sgd"](resumed.parameters()), batches(6))
    with pytest.raises(ValueError, match=r"not known here \(a checkpoint was loaded.*state_dict from before"):
        waveq.rewind(again, resumed, total_steps=8)
    waveq.rewind(again, start, total_steps=8).remove()
    assert same(resumed.state_dict(), start)


def test_another_model_is_no_start() -> None:
    _, wq, _ = search()
    with pytest.raises(ValueError, match="a Sequential that the search did not run on"):
        waveq.rewind(wq, mlp(), total_steps=8)
    fixed = mlp()
    preset = waveq.attach(fixed, bits=3)
    with pytest.raises(ValueError, match="no bits were learned in this run"):
        waveq.rewind(preset, fixed)


def test_copies_and_finalised_models_keep_no_start() -> None:
    model, wq, _ = search()
    copied = copy.deepcopy(model)
    wq.finalize_copy(copied)
    wq.finalize()
    assert wq.start is not None
    assert wq.start.weights is None
    for each in (model, copied):
        assert not each._load_state_dict_post_hooks


def test_a_copied_run_is_rewound_with_a_start_that_is_given() -> None:
    model, wq, start = search(normed)
    twin, other = copy.deepcopy((model, wq))
    with pytest.raises(ValueError, match=r"not known here .*or it is a copy"):
        waveq.rewind(other, twin, total_steps=8)
    waveq.rewind(other, start, total_steps=8).remove()
    assert same(twin.state_dict(), start)

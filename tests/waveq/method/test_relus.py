"""ReLUs that the quantiser behind them makes superfluous: the same numbers without them, and where they must run."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import waveq
from tests.waveq.method.relu_chains import CHAINS, assert_same, attached, conv, images, results, unfused
from waveq._kernels.activations import fused_clip_round
from waveq._kernels.backends import engine_for, use_backend
from waveq.method.input_quantizers import restore_inputs
from waveq.method.presets import get_preset
from waveq.method.relus import Leaning, LeanSequential
from waveq.quantizers import DoReFaActivation, activation_quantizer_names, quantize_activation


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The ReLUs that ran; a hook would make them run."""
    seen: list[nn.Module] = []
    for kind in (nn.ReLU, nn.ReLU6):

        def forward(self: nn.Module, x: Tensor, real: Any = kind.forward) -> Any:
            seen.append(self)
            return real(self, x)

        monkeypatch.setattr(kind, "forward", forward)
    return seen


# ---------------------------------------------------------------------- the same numbers


@pytest.mark.parametrize("method", ["dorefa", "pact"])
@pytest.mark.parametrize("chain", CHAINS)
def test_values_and_gradients_are_those_with_the_relu(chain: str, method: str) -> None:
    make, expected = CHAINS[chain]
    model, handle = attached(make, activation_quantizer=method)
    assert handle.relus_left_out == ({} if (chain, method) == ("relu6", "pact") else expected)
    twin = unfused(model)
    assert not any(isinstance(module, LeanSequential) for module in twin.modules())
    assert_same(model, twin, images())
    with torch.no_grad():
        assert torch.equal(model.eval()(images()), twin.eval()(images()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions(dtype: torch.dtype) -> None:
    model, handle = attached(CHAINS["three layers"][0])
    model.to(dtype)
    assert handle.relus_left_out
    assert_same(model, unfused(model), images().to(dtype))


def test_channels_last_and_autocast() -> None:
    model, _ = attached(CHAINS["blocks"][0])
    twin = unfused(model)
    x = images().to(memory_format=torch.channels_last)
    assert_same(model, twin, x)
    with torch.autocast("cpu", torch.bfloat16):
        assert_same(model, twin, x)


@pytest.mark.slow
@pytest.mark.parametrize("chain", ["three layers", "blocks"])
def test_whole_trainings_end_with_the_same_weights(chain: str) -> None:
    finals = []
    for fused in (True, False):
        torch.manual_seed(0)
        model = CHAINS[chain][0]()
        handle = waveq.attach(model, total_steps=12, quantizer="dorefa", activation_bits=3)
        if not fused:
            Leaning(model).remove()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        for _ in range(12):
            for part in images(6).split(3):  # two micro-batches
                (model(part).square().mean() + handle.penalty() / 2).backward()
            optimizer.step()
            optimizer.zero_grad()
            handle.step()
        assert bool(handle.relus_left_out) is fused
        finals.append((model.state_dict(), handle.bits(), handle.policy()))
        handle.finalize()
        finals.append((model.state_dict(), handle.bits(), model.eval()(images())))
    for ours, theirs in zip(finals[:2], finals[2:], strict=True):
        assert all(torch.equal(value, theirs[0][name]) for name, value in ours[0].items())
        assert ours[0].keys() == theirs[0].keys()
        assert ours[1] == theirs[1]
    assert torch.equal(finals[1][2], finals[3][2])


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-2, 2, width=32) | st.sampled_from([0.0, -0.0, 1.0, 1e-45]), min_size=1, max_size=40),
    st.integers(1, 8),
    st.sampled_from(["numba", "torch"]),
)
def test_the_open_kernel_is_the_relu_and_the_closed_one(values: list[float], bits: int, engine: str) -> None:
    with use_backend(engine):
        one, two = (torch.tensor(values, requires_grad=True) for _ in range(2))
        found = engine_for(one)
        assert found is not None
        ours = fused_clip_round(found, one, low=0.0, steps=2.0**bits - 1.0, closed=False)
        theirs = quantize_activation(torch.relu(two), bits)
        assert torch.equal(ours, theirs)
        for result in (ours, theirs):
            result.backward(torch.arange(1.0, len(values) + 1))
        assert torch.equal(one.grad, two.grad)  # type: ignore[arg-type]


# ---------------------------------------------------------------------- when


def test_the_relu_runs_until_the_sign_is_known(runs: list[nn.Module]) -> None:
    model = CHAINS["plain"][0]()
    handle = waveq.attach(model, bits=4, quantizer="dorefa", activation_bits=3)
    for _ in range(2):  # and to the end of that step, for a backward pass may compute it again
        model(images())
        assert len(runs) == 1
        assert handle.relus_left_out == {}
        runs.clear()
    handle.step()
    model(images())
    assert runs == []
    assert handle.relus_left_out == {"1": "2"}


def test_a_checkpoint_brings_the_sign(runs: list[nn.Module]) -> None:
    model, _ = attached(CHAINS["plain"][0])
    later = CHAINS["plain"][0]()
    handle = waveq.attach(later, bits=4, quantizer="dorefa", activation_bits=3)
    later.load_state_dict(model.state_dict())
    assert handle.relus_left_out == {"1": "2"}
    runs.clear()
    assert torch.equal(later(images()), model(images()))
    assert runs == []


def test_inputs_with_a_sign_keep_the_relu(runs: list[nn.Module]) -> None:
    model = CHAINS["plain"][0]()
    handle = waveq.attach(model, bits=4, quantizer="dorefa", activation_bits=3)
    model[2](torch.randn(2, 4, 8, 8))  # the layer is used elsewhere too
    handle.step()
    model(images())
    assert handle.relus_left_out == {}
    assert len(runs) == 1


def test_the_relu_runs_while_nothing_is_quantised(runs: list[nn.Module]) -> None:
    model = CHAINS["plain"][0]()
    handle = waveq.attach(model, total_steps=9, quantizer="dorefa", activation_bits=3)
    counts = []
    for _ in range(9):
        (model(images()).square().mean() + handle.penalty()).backward()
        counts.append((handle.phase, len(runs)))
        runs.clear()
        handle.step()
    wanted = get_preset("recommended").quantize_from_phase
    first = next(place for place, (phase, _) in enumerate(counts) if phase >= wanted)
    assert [count for _, count in counts] == [1] * (first + 1) + [0] * (8 - first)  # one step to see the sign
    assert first > 0


def test_the_float_road_quantises_inputs_and_leaves_the_relu_out() -> None:
    model, handle = attached(CHAINS["plain"][0], quantizer="midrise", forward="float", total_steps=10)
    assert handle.relus_left_out == {"1": "2"}
    assert_same(model, unfused(model), images())


@pytest.mark.parametrize("method", sorted(set(activation_quantizer_names()) - {"dorefa", "pact", "range"}))
def test_methods_that_start_from_data_keep_the_relu(method: str) -> None:
    model, handle = attached(CHAINS["plain"][0], activation_quantizer=method)
    assert handle.relus_left_out == {}
    assert_same(model, unfused(model), images())


def test_methods_of_the_users_own_keep_the_relu() -> None:
    model, handle = attached(CHAINS["plain"][0])

    class Shifted(DoReFaActivation):
        def quantize(self, x: Tensor, signed: bool) -> Tensor:
            return quantize_activation(x + 0.5, self.bits, signed=signed)

    model[2].parametrizations.weight[0].activation = Shifted(3)
    assert handle.relus_left_out == {}
    assert_same(model, unfused(model), images())


def test_the_plain_form_keeps_the_relu_of_dorefa(runs: list[nn.Module]) -> None:
    model, _ = attached(CHAINS["plain"][0], activation_quantizer="dorefa")
    runs.clear()
    with use_backend("plain"):
        model(images())
    assert len(runs) == 1


# ---------------------------------------------------------------------- what users do with their models


def test_the_modules_stay_theirs(runs: list[nn.Module]) -> None:
    model, handle = attached(CHAINS["three layers"][0])
    assert isinstance(model, nn.Sequential)
    assert type(model[1]) is nn.ReLU
    runs.clear()
    outputs = [images()]
    for module in model:  # layer by layer, to look between
        outputs.append(module(outputs[-1]))
    assert len(runs) == 2
    assert bool((outputs[2] >= 0).all())
    assert torch.equal(outputs[-1], model(images()))
    assert len(runs) == 2
    assert torch.equal(model[:2](images()), outputs[2])  # a slice that ends with the ReLU
    assert torch.equal(model[2:](outputs[2]), outputs[-1])
    model.append(nn.ReLU())
    model.append(conv(4))
    waveq_free = model(images())
    assert torch.equal(waveq_free, model[7](torch.relu(outputs[-1])))
    assert handle.relus_left_out == {"1": "2", "3": "5"}


def before(module: nn.Module, hook: Any, *, prepend: bool = False) -> Any:
    return module.register_forward_pre_hook(lambda m, args: hook(m, args, args[0]), prepend=prepend)


HOOKED: dict[str, Callable[[Any, Any], Any]] = {
    "relu": lambda model, hook: model[1].register_forward_hook(hook),
    "before relu": lambda model, hook: before(model[1], hook),
    "behind relu": lambda model, hook: model[1].register_full_backward_hook(lambda m, gi, go: hook(m, go, gi[0])),
    "conv": lambda model, hook: model[0].register_forward_hook(hook),
    "pool": lambda model, hook: model[2].register_forward_hook(hook),
    "layer": lambda model, hook: before(model[3], hook, prepend=True),
    "everywhere": lambda _, hook: nn.modules.module.register_module_forward_hook(
        lambda m, args, out: hook(m, args, out) if isinstance(m, nn.ReLU) else None
    ),
}


@pytest.mark.parametrize("where", HOOKED)
def test_hooks_see_what_they_saw(where: str) -> None:
    model, _ = attached(lambda: nn.Sequential(conv(), nn.ReLU(inplace=where == "conv"), nn.MaxPool2d(2), conv(4)))
    twin = unfused(model)
    seen: list[list[Tensor]] = []
    for each in (model, twin):
        mine: list[Tensor] = []
        seen.append(mine)
        handle = HOOKED[where](each, lambda _m, _a, out, mine=mine: mine.append(out.detach()))
        results(each, images())
        handle.remove()
    assert len(seen[0]) == len(seen[1]) > 0
    for ours, theirs in zip(*seen, strict=True):
        assert torch.equal(ours, theirs)


def test_a_hook_on_a_chain_within_sees_what_it_saw() -> None:
    model, handle = attached(CHAINS["nested"][0])
    seen: list[Tensor] = []
    model[0].register_forward_hook(lambda _m, _a, out: seen.append(out))
    assert handle.relus_left_out == {}
    assert_same(model, unfused(model), images())
    assert all(bool((out >= 0).all()) for out in seen)


def test_a_replaced_forward_is_called() -> None:
    model, handle = attached(CHAINS["plain"][0])
    model[1].forward = torch.abs
    assert handle.relus_left_out == {}
    assert torch.equal(model(images()), model[2](model[0](images()).abs()))


def test_copies_keep_it() -> None:
    plain = CHAINS["blocks"][0]()
    model, handle = attached(lambda: copy.deepcopy(plain))
    keys = set(unfused(model).state_dict())
    assert set(model.state_dict()) == keys
    twin, twins_handle = copy.deepcopy((model, handle))
    assert twins_handle.relus_left_out == handle.relus_left_out == {"0.2": "1.0", "1.2": "2"}
    assert torch.equal(twin(images()), model(images()))
    assert any(isinstance(module, LeanSequential) for module in twin.modules())


@pytest.mark.parametrize("how", ["remove", "finalize"])
def test_models_that_were_left_are_plain(how: str) -> None:
    plain = CHAINS["blocks"][0]()
    model, handle = attached(lambda: copy.deepcopy(plain))
    getattr(handle, how)()
    kept = {name for name, _ in model.named_modules() if "waveq_restore_inputs" in name}
    assert bool(kept) is (how == "finalize")  # the layers' own input quantisers
    assert not any(isinstance(module, LeanSequential) for module in model.modules())
    assert handle.relus_left_out == {}
    inputs = {name for name in model.state_dict() if "waveq_restore_inputs" in name}
    assert model.state_dict().keys() - inputs == plain.state_dict().keys()
    again = pickle.loads(pickle.dumps(model.eval()))
    assert torch.equal(again(images()), model(images()))


def test_finalising_changes_no_output_and_policies_bring_it_back() -> None:
    model, handle = attached(CHAINS["three layers"][0])
    model.eval()
    before = model(images())
    handle.finalize()
    assert torch.equal(model(images()), before)
    fresh = CHAINS["three layers"][0]().eval()
    restore_inputs(fresh, handle.policy())
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(images()), before)
    second = waveq.attach(model, bits=handle.policy(), activation_bits=3)
    model(images())
    second.step()
    assert second.relus_left_out == {"1": "2", "3": "5"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_torch_compile_runs_the_relu_and_computes_the_same() -> None:
    model, _ = attached(CHAINS["plain"][0])
    compiled = torch.compile(copy.deepcopy(model), backend="eager")
    with use_backend("plain"):
        assert torch.equal(compiled(images()), model(images()))
    torch._dynamo.reset()


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing_from_the_first_step_on(reentrant: bool) -> None:
    results_of = []
    for checkpointed in (True, False):
        torch.manual_seed(0)
        model = CHAINS["three layers"][0]()
        handle = waveq.attach(model, bits=4, quantizer="dorefa", activation_bits=3)
        grads = []
        for _ in range(3):
            x = images().requires_grad_()
            y = checkpoint(model, x, use_reentrant=reentrant) if checkpointed else model(x)
            y.square().mean().backward()
            handle.step()
            grads.append(x.grad)
        assert handle.relus_left_out
        results_of.append([*grads, *[p.grad for p in model.parameters()]])
    assert all(torch.equal(a, b) for a, b in zip(*results_of, strict=True))


def test_distributed_data_parallel(tmp_path: Path, runs: list[nn.Module]) -> None:
    model, _ = attached(CHAINS["blocks"][0])
    twin = unfused(model)
    runs.clear()
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        ours = results(DistributedDataParallel(model), images())
    finally:
        dist.destroy_process_group()
    assert runs == []
    theirs = results(twin, images())
    assert all(torch.equal(value, ours[name if name in "xy" else f"module.{name}"]) for name, value in theirs.items())


def test_meta_tensors_run_the_relu(runs: list[nn.Module]) -> None:
    model, _ = attached(CHAINS["plain"][0])
    runs.clear()
    assert copy.deepcopy(model).to("meta")(images().to("meta")).shape == (6, 4, 8, 8)
    assert len(runs) == 1

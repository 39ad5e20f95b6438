"""Models in wrappers, names from wrappers, and calls that are refused."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.nn.parallel import DistributedDataParallel

import waveq
from tests.training import batches, mlp, train
from waveq.method import attachment
from waveq.method.wrappers import names_of

NAMES = ("0", "2", "4")


def everything(model: nn.Module) -> dict[str, Any]:
    """What a refused call must leave as it is."""
    return {
        "state": {name: value.clone() for name, value in model.state_dict().items()},
        "objects": [id(p) for p in (*model.parameters(), *model.buffers())],
        "modules": [(name, id(module), type(module)) for name, module in model.named_modules()],
        "attributes": [(sorted(vars(module)), module.training) for module in model.modules()],
        "hooks": [
            [len(value) for key, value in sorted(vars(module).items()) if "hooks" in key and value is not None]
            for module in model.modules()
        ],
        "gradients": [p.requires_grad for p in model.parameters()],
    }


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    states = before.pop("state"), after.pop("state")
    assert before == after
    assert list(states[0]) == list(states[1])
    for one, other in zip(*(state.values() for state in states), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


# ---------------------------------------------------------------------- wrappers


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: torch.compile(model, backend="eager"),
        nn.DataParallel,
        lambda model: nn.DataParallel(torch.compile(model, backend="eager")),
    ],
)
def test_the_network_inside_is_attached(wrap: Callable[[nn.Module], Any]) -> None:
    model, twin = mlp(), mlp()
    wrapped = wrap(model)
    wq, again = waveq.attach(wrapped, bits=3, activation_bits=4), waveq.attach(twin, bits=3, activation_bits=4)
    assert wq.names == NAMES
    train(wrapped, wq, torch.optim.SGD(wrapped.parameters(), lr=0.05), batches(5))
    train(twin, again, torch.optim.SGD(twin.parameters(), lr=0.05), batches(5))
    wq.finalize()
    again.finalize()
    x = torch.randn(4, 6)
    torch.testing.assert_close(wrapped(x), twin(x))
    assert list(model.state_dict()) == list(twin.state_dict())


class Outer(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network


def test_wrappers_that_came_first_are_refused(one_rank: None) -> None:
    for make in (DistributedDataParallel, lambda model: Outer(DistributedDataParallel(model))):
        model = make(mlp())
        before = everything(model)
        with pytest.raises(TypeError, match=r"DistributedDataParallel.*attach to the network itself.*then Distributed"):
            waveq.attach(model, bits=3)
        assert_same(before, everything(model))
    inner = mlp()
    holder = DistributedDataParallel(inner)
    with pytest.raises(TypeError, match="inside a DistributedDataParallel already"):
        waveq.attach(inner, bits=3)
    assert type(holder.module[0]) is nn.Linear


@pytest.mark.slow
def test_attached_first_the_wrapper_trains(one_rank: None) -> None:
    model, twin = mlp(), mlp()
    wq, again = waveq.attach(model, total_steps=20), waveq.attach(twin, total_steps=20)
    wrapped = DistributedDataParallel(model)
    train(wrapped, wq, torch.optim.SGD(wrapped.parameters(), lr=0.05), batches(20))
    train(twin, again, torch.optim.SGD(twin.parameters(), lr=0.05), batches(20))
    assert wq.policy() == again.policy()


def test_sharded_weights_are_refused(one_rank: None) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import distribute_module

    model = distribute_module(mlp(), init_device_mesh("cpu", (1,)))
    with pytest.raises(
        TypeError, match=r"sharded \('0\.weight' is a DTensor\).*train the network whole.*shard the plain network"
    ):
        waveq.attach(model, bits=3)
    assert type(model[0]) is nn.Linear  # type: ignore[index]


@pytest.mark.filterwarnings("ignore")  # torch's own, on one rank
def test_the_older_sharding_is_refused(one_rank: None) -> None:
    sharded = FullyShardedDataParallel(nn.Linear(4, 4), device_id=torch.device("cpu"))
    for model in (sharded, nn.Sequential(sharded, nn.ReLU(), nn.Linear(4, 2))):
        before = everything(model)
        with pytest.raises(TypeError, match=r"is a FullyShardedDataParallel, .*shard the plain network"):
            waveq.attach(model, bits=3)
        assert_same(before, everything(model))


def test_an_engine_of_deepspeed_is_refused_by_its_name() -> None:
    """A stand-in: the real one needs a launcher."""
    kind = type("DeepSpeedEngine", (nn.Sequential,), {"__module__": "deepspeed.runtime.engine"})
    model = kind(nn.Linear(4, 4))
    before = everything(model)
    with pytest.raises(TypeError, match=r"is a DeepSpeedEngine, .*deepspeed\.initialize\(model=network\)"):
        waveq.attach(model, bits=3)
    assert_same(before, everything(model))
    assert waveq.attach(type("DeepSpeedEngine", (nn.Sequential,), {})(nn.Linear(4, 4)), bits=3).names == ("0",)


def test_also_and_signs_take_names_from_a_wrapper() -> None:
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    with pytest.warns(UserWarning, match="3 names are those of a wrapped model.*'_orig_mod.2' is taken as '2'"):
        wq = waveq.attach(
            model,
            bits=3,
            also=("module.0",),
            activation_bits={"_orig_mod.2": 4},
            activation_signed={"module._orig_mod.2": True},
        )
    assert list(wq.bits()) == ["0", "1", "2"]
    assert wq.policy().provenance["inputs"]["2"]["signed"]
    with pytest.raises(ValueError, match=r"also names 'module\.7', which is no embedding"):
        waveq.attach(mlp(), bits=3, also=("module.7",))


def test_fully_shard_comes_after_attach(one_rank: None) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = fully_shard(mlp(), mesh=init_device_mesh("cpu", (1,)))
    with pytest.raises(TypeError, match=r"is a DTensor\).*then fully_shard\(network, ignored_params=wq\.scales\(\)\)"):
        waveq.attach(model, bits=3)


@pytest.mark.parametrize("call", ["remove", "finalize", "finalize_copy"])
def test_sharded_weights_are_left_where_they_are(one_rank: None, call: str) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = mlp()
    wq = waveq.attach(model, bits=3)
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)), ignored_params=wq.scales())
    wq.penalty()
    with pytest.raises(RuntimeError, match=rf"{call}\(\) on sharded weights.*full_state_dict=True"):
        getattr(wq, call)(*([model] if call == "finalize_copy" else []))


def test_parts_of_weights_are_refused_in_the_middle_of_a_run() -> None:
    model = mlp()
    wq = waveq.attach(model, bits=3)
    wq.penalty()
    chain = model[0].parametrizations["weight"]  # type: ignore[index,union-attr]
    chain.original = nn.Parameter(chain.original.detach().flatten()[:5])  # as FSDP leaves it between calls
    with pytest.raises(TypeError, match="layer '0' has been sharded since"):
        wq.finalize()


@pytest.mark.filterwarnings("ignore")  # torch's own
def test_scripts_and_traces_are_refused() -> None:
    for made in (torch.jit.script(mlp()), torch.jit.trace(mlp(), torch.ones(1, 6))):
        with pytest.raises(TypeError, match=r"Module, .*finalize\(\) and torch\.jit\.(script|trace)"):
            waveq.attach(made, bits=3)


# ---------------------------------------------------------------------- names


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_names_from_inside_a_wrapper_are_found(prefix: str) -> None:
    policy = waveq.attach(mlp(), bits={"0": 4, "2": 3, "4": 2}, activation_bits={"4": 3}).policy()
    bits = {prefix + name: value for name, value in policy.items()}
    wrapped = waveq.Policy(bits, activation_bits={f"{prefix}4": 3}, quantizer="dorefa", skipped=())
    for given in (bits, wrapped):
        with pytest.warns(UserWarning, match=f"3 names are those of a wrapped model.*'{prefix}0' is taken as '0'"):
            wq = waveq.attach(mlp(), bits=given)
        assert wq.bits() == policy
        assert dict(wq.policy().activation_bits) == ({"4": 3} if given is wrapped else {})
    with pytest.warns(UserWarning, match="is taken as"):
        wq = waveq.attach(
            mlp(),
            total_steps=20,
            skip=(f"{prefix}0",),
            activation_bits={f"{prefix}2": 4},
            layer_costs={f"{prefix}2": 1.0, f"{prefix}4": 2.0},
        )
    assert wq.names == ("2", "4")
    assert wq.settings.bit_costs["4"] == 2 * wq.settings.bit_costs["2"]


def test_names_without_the_wrapper_are_found_inside_it() -> None:
    model = Outer(torch.compile(mlp(), backend="eager"))  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match=r"'network\.0' is taken as 'network\._orig_mod\.0'"):
        wq = waveq.attach(model, bits={f"network.{name}": 3 for name in NAMES})
    assert wq.names == tuple(f"network._orig_mod.{name}" for name in NAMES)
    assert names_of(["module.head"], ["0"]) == {}
    assert names_of(["module.*"], ["0", "1"], patterns=True) == {"module.*": "*"}


def test_a_module_that_is_called_module_keeps_its_name() -> None:
    model = nn.Sequential()
    model.add_module("module", mlp())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert waveq.attach(model, bits=3, skip=("module.0",)).names == ("module.2", "module.4")


def test_a_wrapped_policy_restores_inputs() -> None:
    model = mlp()
    wq = waveq.attach(model, bits=3, activation_bits=3)
    model(torch.randn(8, 6))
    policy = wq.policy()
    wq.finalize()
    wrapped = waveq.Policy(
        {f"module.{name}": bits for name, bits in policy.items()},
        activation_bits={f"module.{name}": bits for name, bits in policy.activation_bits.items()},
        provenance={"inputs": {f"module.{name}": told for name, told in policy.provenance["inputs"].items()}},
    )
    for source in (wrapped, {f"module.{key}": value for key, value in model.state_dict().items()}):
        twin = mlp(seed=1)
        waveq.restore_inputs(twin, source)
        twin.load_state_dict(model.state_dict())
        x = torch.randn(4, 6)
        assert torch.equal(twin(x), model(x))


# ---------------------------------------------------------------------- refusals


def diverged() -> nn.Sequential:
    model = mlp()
    with torch.no_grad():
        model[2].weight[0, 0] = float("nan")  # type: ignore[index, operator]
    return model


def normed() -> nn.Sequential:
    model = mlp()
    torch.nn.utils.parametrizations.weight_norm(model[2])
    return model


def attached() -> nn.Sequential:
    model = mlp()
    waveq.attach(model, bits=3, skip=("4",))
    return model


REFUSED: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "unknown quantizer": (mlp, {"bits": 3, "quantizer": "dorfa"}),
    "unknown preset": (mlp, {"bits": 3, "preset": "papr"}),
    "unknown schedule": (mlp, {"bits": 3, "schedule": "sometimes"}),
    "unknown scale": (mlp, {"bits": 3, "scale": "maximum"}),
    "a scale that the method lacks": (mlp, {"bits": 3, "quantizer": "lsq", "scale": "none"}),
    "bits out of range": (mlp, {"bits": 10}),
    "bits of a stranger": (mlp, {"bits": {"fc": 3}}),
    "bits of some": (mlp, {"bits": {"0": 3}}),
    "bits that the method lacks": (mlp, {"bits": {"0": 2, "2": 2, "4": 3}, "quantizer": "ttq"}),
    "bits that cannot be learned": (mlp, {"quantizer": "lqnets", "total_steps": 9}),
    "no steps": (mlp, {}),
    "skipped all": (mlp, {"bits": 3, "skip": ("*",)}),
    "skipped a stranger": (mlp, {"bits": 3, "skip": ("fc",)}),
    "inputs of a stranger": (mlp, {"bits": 3, "activation_bits": {"fc": 3}}),
    "inputs that the method lacks": (mlp, {"bits": 3, "activation_bits": 1, "quantizer": "lsq"}),
    "an input quantizer without bits": (mlp, {"bits": 3, "activation_quantizer": "pact"}),
    "an unknown input quantizer": (mlp, {"bits": 3, "activation_bits": 3, "activation_quantizer": "pakt"}),
    "a price of preset bits": (mlp, {"bits": 3, "lambda_beta": 0.1}),
    "no price": (mlp, {"total_steps": 9, "lambda_beta": 0.0}),
    "a target of preset bits": (mlp, {"bits": 3, "target": {"mean_bits": 3.0}}),
    "an unknown target": (mlp, {"total_steps": 9, "target": {"bits": 3.0}}),
    "costs of some": (mlp, {"total_steps": 9, "layer_costs": {"0": 1.0}}),
    "the float road of a learned scale": (mlp, {"bits": 3, "forward": "float", "scale": "learned"}),
    "another policy's quantizer": (
        mlp, {"bits": waveq.Policy(dict.fromkeys(NAMES, 3), quantizer="wrpn"), "quantizer": "lsq"}
    ),
    "no layers": (lambda: nn.Sequential(nn.ReLU()), {"bits": 3}),
    "a single layer": (lambda: nn.Linear(2, 2), {"bits": 3}),
    "weights that are no numbers": (diverged, {"bits": 3}),
    "weights of somebody else": (normed, {"bits": 3}),
    "attached already": (attached, {"bits": 3}),
    "the rest of an attached model": (attached, {"bits": 3, "skip": ("0", "2")}),
}  # fmt: skip


@pytest.mark.parametrize("why", REFUSED)
def test_a_refused_call_leaves_the_model_as_it_was(why: str) -> None:
    make, options = REFUSED[why]
    model = make()
    before = everything(model)
    with pytest.raises((ValueError, TypeError)):
        waveq.attach(model, **options)
    assert_same(before, everything(model))


@pytest.mark.parametrize("after", [1, 2, 3])
def test_an_attach_that_fails_midway_is_undone(after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = mlp()
    wq = waveq.attach(model, bits=3, activation_bits=3)
    model(torch.randn(4, 6))
    wq.finalize()
    before = everything(model)
    calls = 0
    shorten = attachment.shorten

    def fails(module: nn.Module, tensor: str) -> None:
        nonlocal calls
        calls += 1
        if calls == after:
            raise KeyboardInterrupt
        shorten(module, tensor)

    monkeypatch.setattr(attachment, "shorten", fails)
    with pytest.raises(KeyboardInterrupt):
        waveq.attach(model, bits=2, activation_bits=2)
    assert_same(before, everything(model))


def test_refused_calls_of_the_handle_leave_the_model_as_it_was() -> None:
    model = mlp()
    wq = waveq.attach(model, total_steps=20)
    original: Tensor = model[2].parametrizations.weight.original  # type: ignore[union-attr, assignment, index]
    with torch.no_grad():
        original[0, 0] = float("inf")
    before = everything(model)
    for call in (wq.finalize, wq.policy):
        with pytest.raises(ValueError, match="layer '2' hold NaN or infinity"):
            call()
        assert_same(copy.copy(before), everything(model))
    with torch.no_grad():
        original[0, 0] = 0.0
    wq.remove()
    before = everything(model)
    for name in ("penalty", "step", "finalize", "remove", "policy"):
        with pytest.raises(RuntimeError, match="after remove"):
            getattr(wq, name)()
        assert_same(copy.copy(before), everything(model))

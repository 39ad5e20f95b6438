"""attach(activation_bits="learn"): runs end to end, their budgets, checkpoints and borders."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import waveq
from tests.ranks import in_two_ranks
from tests.training import OPTIMIZERS, FunctionalNet, batches, mlp, train
from waveq.method.checkpoint import ROOT_COUNTS
from waveq.method.parametrization import parametrization_of

BOTH: dict[str, Any] = {"bits": "learn", "activation_bits": "learn"}


def learned(model: nn.Module, steps: int = 60, **options: Any) -> waveq.WaveQ:
    """A run to its end."""
    wq = waveq.attach(model, **{**BOTH, "total_steps": steps, **options})
    shape = (3, 8, 8) if isinstance(model, FunctionalNet) else (6,)
    train(model, wq, OPTIMIZERS["sgd"](model.parameters()), batches(steps, shape=shape))
    return wq


def bitops_of(wq: waveq.WaveQ, macs: dict[str, float]) -> float:
    """By the formula."""
    inputs = wq.input_bits()
    cost = sum(macs[name] * bits * inputs.get(name, 16) for name, bits in wq.bits().items())
    return cost / sum(64 * macs[name] for name in wq.bits())


MLP_MACS = {"0": 6 * 24, "2": 24 * 24, "4": 24 * 3}
NET_MACS = {"conv1": 64 * 27 * 8, "depthwise": 64 * 9 * 8, "grouped": 64 * 32, "again": 2 * 64, "fc": 24}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("share", [0.2, 0.35, 0.6])
@pytest.mark.parametrize("kind", ["mlp", "net"])
def test_targets_are_met(kind: str, share: float, seed: int) -> None:
    model, macs = (mlp(seed), MLP_MACS) if kind == "mlp" else (FunctionalNet(seed), NET_MACS)
    least = 2 * 16 * next(iter(macs.values())) / (64 * sum(macs.values()))
    target = least + share * (1 - least)
    wq = learned(model, 90, target={"bitops": target}, preset="recommended")
    found = bitops_of(wq, macs)
    assert found == pytest.approx(wq.cost())
    assert found <= target * (1 + 1e-9)
    assert wq.input_bits().keys() == wq.bits().keys() - {next(iter(macs))}
    if found < 0.98 * target:  # then no bit fits any more
        for name in wq.bits():
            w, a = wq.bits()[name], wq.input_bits().get(name, 16)
            unit = macs[name] / (64 * sum(macs.values()))
            assert w == 8 or found + unit * a > target
            assert a >= 8 or found + unit * w > target


@pytest.mark.slow
def test_multiplications_are_counted_in_the_first_step() -> None:
    model = FunctionalNet()
    wq = waveq.attach(model, **BOTH, total_steps=40, target={"bitops": 0.8})
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    train(model, wq, optimizer, batches(1, size=4, shape=(3, 8, 8)))
    counts = dict(zip(wq.names, model._buffers[ROOT_COUNTS].tolist(), strict=True))  # type: ignore[union-attr]
    assert counts == {name: 4 * count for name, count in NET_MACS.items()}
    train(model, wq, optimizer, batches(1, size=8, shape=(3, 8, 8)))
    assert model._buffers[ROOT_COUNTS].tolist() == list(counts.values())  # type: ignore[union-attr]
    assert not any(module._forward_hooks for module in model.modules())
    wq.freeze()
    wq.finalize()
    assert ROOT_COUNTS not in model._buffers


@pytest.mark.slow
@pytest.mark.parametrize("steps_more", [0, 2])
@pytest.mark.parametrize("inputs", ["range", "lsq", "pact"])
def test_a_resumed_run_is_the_same_run(inputs: str, steps_more: int) -> None:
    data = batches(60)
    options: dict[str, Any] = {**BOTH, "total_steps": 60, "activation_quantizer": inputs, "target": {"bitops": 0.3}}

    def begun(seed: int) -> tuple[nn.Module, waveq.WaveQ, torch.optim.Optimizer]:
        model = mlp(seed)
        return model, waveq.attach(model, **options), OPTIMIZERS["sgd"](model.parameters())

    whole, wq, optimizer = begun(0)
    done = 0
    while not (waits := [parametrization_of(whole[k]).inputs.restarts.item() for k in (2, 4)]) or not any(waits):  # type: ignore[index, union-attr]
        train(whole, wq, optimizer, data[done : done + 1])
        done += 1
    train(whole, wq, optimizer, data[done : done + steps_more])
    done += steps_more
    file = io.BytesIO()
    torch.save({"model": whole.state_dict(), "optimizer": optimizer.state_dict()}, file)
    train(whole, wq, optimizer, data[done:])

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed, again, other = begun(99)
    resumed.load_state_dict(saved["model"])
    other.load_state_dict(saved["optimizer"])
    train(resumed, again, other, data[done:])
    for (name, ours), theirs in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    assert wq.input_betas() == again.input_betas()
    assert wq.policy().to_json() == again.policy().to_json()
    assert max(wq.input_betas().values()) < 7.0


@pytest.mark.slow
def test_what_is_left_is_what_was_learned() -> None:
    model = mlp()
    wq = learned(model, target={"bitops": 0.3})
    policy, x = wq.policy(), batches(1, seed=7)[0][0]
    assert dict(policy.activation_bits) == wq.input_bits()
    assert policy.provenance["inputs"]["2"]["beta"] == wq.input_betas()["2"]
    assert str(wq.summary()).count("beta") == 3  # the head, and two inputs
    model.eval()
    before = model(x)
    wq.finalize()
    assert torch.equal(model(x), before)
    for name, bits in policy.activation_bits.items():
        fixed = model.get_submodule(name).waveq_restore_inputs
        assert fixed.bits == bits  # type: ignore[union-attr]
        assert fixed(torch.linspace(-9, 9, 999)).unique().numel() <= 2**bits  # type: ignore[operator]
    twin = mlp()
    waveq.restore_inputs(twin, policy)
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin(x), before)


@pytest.mark.slow
def test_the_bits_found_go_on_in_a_preset_run() -> None:
    model = mlp()
    wq = learned(model, target={"bitops": 0.3})
    again = mlp(5)
    waveq.attach(again, bits=wq.policy(), total_steps=10)
    state = model.state_dict()
    again.load_state_dict(
        {**state, "waveq_step": torch.zeros_like(state["waveq_step"]), "waveq_seal": again.waveq_seal}
    )
    x = batches(1, seed=7)[0][0]
    assert torch.equal(model.eval()(x), again.eval()(x))


@pytest.mark.slow
def test_checkpoints_that_do_not_fit() -> None:
    state = learned(mlp(), total_steps=400)._model.state_dict()
    preset = mlp()
    waveq.attach(preset, bits="learn", activation_bits=4, total_steps=400)
    with pytest.raises(RuntimeError, match=r"activation_bits 'learn' there, 4 here \(layers 2, 4\)"):
        preset.load_state_dict(state)
    learning = mlp()
    waveq.attach(learning, **BOTH, total_steps=400)
    with pytest.raises(RuntimeError, match=r"activation_bits 4 there, 'learn' here"):
        learning.load_state_dict(preset.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"bits": 4},
        {"bits": "learn", "activation_bits": {"2": "learn", "4": 3}},
        {"bits": {"0": 4, "2": 2, "4": 4}, "activation_bits": {"2": "learn"}},
        {"forward": "float"},
        {"quantizer": "lsq"},
        {"quantizer": "wrpn", "activation_quantizer": "dsq"},
        {"target": None, "layer_costs": {"0": 144.0, "2": 576.0, "4": 72.0}},
        {"target": None},
    ],
)
def test_combinations(options: dict[str, Any]) -> None:
    model = mlp()
    wq = learned(model, **{"target": {"bitops": 0.4}, **options})
    preset = options.get("bits", "learn")
    if preset != "learn":
        assert set(wq.bits().values()) == set(preset.values() if isinstance(preset, dict) else [preset])
    asked = options.get("activation_bits", dict.fromkeys(("2", "4"), "learn"))
    assert wq.input_betas().keys() == {name for name, bits in asked.items() if bits == "learn"}
    assert wq.input_bits().keys() == asked.keys()
    assert all(beta < 7.0 for beta in wq.input_betas().values())
    if "target" not in options:
        assert wq.cost() <= 0.4
    wq.finalize()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "paper"}, r"needs the task loss to move beta, which preset 'paper' does not have"),
        (
            {"activation_quantizer": "lqnets"},
            r"'lqnets' cannot learn bits: .* activation_quantizer='dorefa' or 'dsq' or 'lsq' or 'pact' or",
        ),
        ({"activation_bits": "lern"}, r'activation bits must be "learn" or a whole number from 1 to 8, not .lern.'),
        ({"activation_bits": {"2": "lern"}}, r"activation bits of layer '2' must be \"learn\" or a whole"),
        ({"total_steps": None}, r'^bits="learn" needs total_steps'),
        ({"total_steps": None, "bits": 4}, r'^activation_bits="learn" needs total_steps'),
        ({"target": {"mean_bits": 4.0}}, r"mean_bits counts the bits of weights alone"),
        (
            {"target": {"bitops": 0.3}, "also": ("stack",)},
            r"cannot count the multiplications of stack: say those of all",
        ),
        ({"skip": ("2", "4")}, r"activation_bits=.learn. finds nothing to learn"),
    ],
)
def test_refusals_leave_the_model_as_it_was(options: dict[str, Any], message: str) -> None:
    model = mlp()
    if "also" in options:
        model.register_parameter("stack", nn.Parameter(torch.randn(2, 3, 4)))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        waveq.attach(model, **{**BOTH, "total_steps": 40, **options})
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), before.values(), strict=True))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_target_out_of_reach_is_said_at_the_first_step() -> None:
    model = mlp()
    wq = waveq.attach(model, **BOTH, total_steps=40, target={"bitops": 0.05})
    with pytest.raises(ValueError, match=r"target bitops = 0.05 cannot be met: with 2 bits in every weight and input"):
        train(model, wq, OPTIMIZERS["sgd"](model.parameters()), batches(1))


def test_the_forecast_speaks_of_inputs() -> None:
    wq = waveq.attach(mlp(), **BOTH, total_steps=40)
    assert (
        "of task loss; bits settle where it does. The bits of the inputs of 2 layers are learned too." in wq.forecast()
    )
    wq = waveq.attach(mlp(), bits=4, activation_bits="learn", total_steps=40, target={"bitops": 0.4})
    assert wq.forecast().startswith(
        "Bits are preset: 0 4, 2 4, 4 4. The price of a bit will be driven until the policy"
    )


@pytest.mark.slow
def test_relus_are_left_out_once_the_bits_are_fixed() -> None:
    model = mlp()
    wq = waveq.attach(model, **BOTH, activation_quantizer="range", total_steps=40)
    optimizer, data = OPTIMIZERS["sgd"](model.parameters()), batches(40)
    train(model, wq, optimizer, data[:10])
    assert wq.phase == 2
    assert wq.relus_left_out == {}
    train(model, wq, optimizer, data[10:])
    assert wq.relus_left_out == {"1": "2", "3": "4"}


@pytest.mark.slow
def test_copies_go_on_alike() -> None:
    model, data = mlp(), batches(60)
    wq = waveq.attach(model, **BOTH, total_steps=60, target={"bitops": 0.3})
    train(model, wq, OPTIMIZERS["sgd"](model.parameters()), data[:15])
    other, theirs = copy.deepcopy((model, wq))
    for each, handle in ((model, wq), (other, theirs)):
        train(each, handle, OPTIMIZERS["sgd"](each.parameters()), data[15:])
    assert wq.input_betas() == theirs.input_betas()
    averaged = copy.deepcopy(model)
    wq.finalize_copy(averaged)
    x = data[0][0]
    assert torch.equal(averaged.eval()(x), model.eval()(x))


@pytest.mark.slow
def test_averages_of_models_finish() -> None:
    model, data = mlp(), batches(60)
    wq = waveq.attach(model, **BOTH, total_steps=60, target={"bitops": 0.3})
    averaged, optimizer = torch.optim.swa_utils.AveragedModel(model), OPTIMIZERS["sgd"](model.parameters())
    for batch in data:
        train(model, wq, optimizer, [batch])
        averaged.update_parameters(model)
    wq.finalize_copy(averaged)
    for name, bits in wq.input_bits().items():
        assert averaged.module.get_submodule(name).waveq_restore_inputs.bits == bits  # type: ignore[union-attr]


def _rank(rank: int, folder: Path) -> None:
    model, data = mlp(), batches(60, seed=rank + 1, size=16 + 8 * rank)
    wq = waveq.attach(model, **BOTH, total_steps=60, target={"bitops": 0.3})
    parallel = nn.parallel.DistributedDataParallel(model)
    train(parallel, wq, OPTIMIZERS["sgd"](model.parameters()), data)
    torch.save(
        (wq.betas(), wq.input_betas(), wq.policy().to_json(), model.state_dict()[ROOT_COUNTS]), f"{folder}/{rank}.pt"
    )


@pytest.mark.slow
def test_ranks_agree(tmp_path: Path) -> None:
    in_two_ranks(_rank, tmp_path)
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in (0, 1))
    assert one[:3] == other[:3]
    assert torch.equal(one[3], other[3])
    assert one[3].tolist() == [(16 + 24) * count for count in MLP_MACS.values()]


@pytest.mark.slow
def test_attention_and_recurrent_weights_are_counted() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.lstm = nn.LSTM(8, 4, batch_first=True)
            self.up = nn.ConvTranspose1d(4, 3, 2, stride=2)
            self.table = nn.Embedding(5, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x + self.table(torch.zeros(x.shape[:2], dtype=torch.long))
            y, _ = self.attention(x, x, x, need_weights=False)
            return self.up(self.lstm(y)[0].transpose(1, 2)).mean(dim=2)  # type: ignore[no-any-return]

    model = Net()
    wq = waveq.attach(model, bits="learn", also=("table",), total_steps=20, target={"bitops": 0.9})
    train(model, wq, OPTIMIZERS["sgd"](model.parameters()), [(torch.randn(2, 5, 8), torch.zeros(2, dtype=torch.long))])
    counts = dict(zip(wq.names, model._buffers[ROOT_COUNTS].tolist(), strict=True))  # type: ignore[union-attr]
    assert counts == {
        "attention.in_proj_weight": 10 * 8 * 24,
        "attention.out_proj": 10 * 64,
        "lstm.weight_ih_l0": 10 * 8 * 16,
        "lstm.weight_hh_l0": 10 * 4 * 16,
        "up": 10 * 4 * 3 * 2,
        "table": 0,
    }


@pytest.mark.slow
def test_a_search_is_rewound_with_both() -> None:
    model, data = mlp(), batches(60)
    start = copy.deepcopy(model.state_dict())
    wq = waveq.attach(model, **BOTH, total_steps=30, schedule="search", target={"bitops": 0.3})
    train(model, wq, OPTIMIZERS["sgd"](model.parameters()), data[:30])
    found = wq.bits(), wq.input_bits()
    wq = waveq.rewind(wq, start, total_steps=30)
    assert (wq.bits(), wq.input_bits(), wq.input_betas()) == (*found, {})
    assert ROOT_COUNTS not in model._buffers
    train(model, wq, OPTIMIZERS["sgd"](model.parameters()), data[30:])
    assert dict(wq.policy().activation_bits) == found[1]


@pytest.mark.slow
def test_forward_passes_that_are_computed_again() -> None:
    models, data = [mlp(), mlp()], batches(40)
    for model, again in zip(models, (False, True), strict=True):
        wq = waveq.attach(model, **BOTH, total_steps=40, target={"bitops": 0.4})
        optimizer = OPTIMIZERS["sgd"](model.parameters())
        for x, y in data:
            scores = checkpoint(model, x, use_reentrant=False) if again else model(x)
            loss = F.cross_entropy(scores, y) + wq.penalty()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            wq.step()
    assert all(torch.equal(a, b) for a, b in zip(*(m.state_dict().values() for m in models), strict=True))

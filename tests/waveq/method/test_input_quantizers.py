"""What input quantisers learned survives finalize, a policy file and a plain checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from waveq import Policy, attach, restore_inputs
from waveq.method.input_quantizers import INPUTS, describe_inputs
from waveq.method.parametrization import parametrization_of
from waveq.quantizers import activation_quantizer_names


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))


def finalised(method: str) -> tuple[nn.Sequential, Policy]:
    torch.manual_seed(0)
    model = network()
    wq = attach(model, bits=3, activation_bits=3, activation_quantizer=method)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(5):
        loss = (model(torch.randn(16, 6)) - 1).square().mean() + wq.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        wq.step()
    wq.finalize()
    return model.eval(), wq.policy()


@pytest.mark.parametrize("method", activation_quantizer_names())
def test_checkpoint_and_policy_file_are_the_whole_network(method: str, tmp_path: Path) -> None:
    model, policy = finalised(method)
    policy.save(tmp_path / "policy.json")
    x = torch.randn(30, 6)
    for source in (Policy.load(tmp_path / "policy.json"), model.state_dict()):
        twin = network()
        with pytest.raises(RuntimeError, match=r"Unexpected key.*2\.waveq_restore_inputs"):
            twin.load_state_dict(model.state_dict())
        restore_inputs(twin, source)
        twin.load_state_dict(model.state_dict())
        assert torch.equal(twin(x), model(x))


def test_the_sign_is_told() -> None:
    _, policy = finalised("pact")
    assert policy.provenance[INPUTS]["2"]["signed"] is False  # after ReLU
    assert policy.provenance[INPUTS]["4"]["signed"] is True  # after Tanh
    assert "0" not in policy.provenance[INPUTS]


def test_layers_without_input_quantiser_are_left_out() -> None:
    model = network()
    attach(model, bits=3)
    assert describe_inputs({"0": parametrization_of(model[0])}) == {}


def test_modules_that_share_a_weight_share_the_quantiser() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[4].weight = model[2].weight
    wq = attach(model, bits=2, activation_bits={"2": 2}, quantizer="lsq")
    model(torch.randn(8, 4))
    policy = wq.policy()
    wq.finalize()
    twin = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)).eval()
    twin[4].weight = twin[2].weight
    restore_inputs(twin, policy)
    twin.load_state_dict(model.state_dict())
    x = torch.randn(8, 4)
    assert torch.equal(twin(x), model.eval()(x))


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (None, "does not say how the inputs of layer '2'"),
        ({"2": {"method": "pakt", "signed": False, "learned": {}}}, "layer '2' cannot be used: .*did you mean 'pact'"),
        ({"2": {"method": "pact", "signed": False, "learned": {"alpha": [1, 2]}}}, "cannot be used"),
        ({"2": {"method": "pact", "signed": False, "learned": {}}}, "cannot be used"),
        ({"2": {"method": "pact", "signed": False, "learned": {"alpha": "x"}}}, "cannot be used"),
        ({"2": 3}, "cannot be used"),
    ],
)
def test_policies_that_cannot_be_restored(told: Any, message: str) -> None:
    model = network()
    with pytest.raises(ValueError, match=message):
        restore_inputs(model, Policy({"2": 3}, activation_bits={"2": 4}, provenance={INPUTS: told}))
    assert type(model[2]) is nn.Linear
    assert not model[2]._forward_pre_hooks
    assert list(model.state_dict()) == list(network().state_dict())


def test_a_layer_that_the_model_does_not_have() -> None:
    with pytest.raises(ValueError, match="'layer2', which the model does not have"):
        restore_inputs(network(), Policy({"layer2": 3}, activation_bits={"layer2": 4}))

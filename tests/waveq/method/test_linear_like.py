"""Layers that are linear in all but name: attention, recurrent layers, embeddings, stacked experts."""

from __future__ import annotations

import copy
import sys
import types
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import waveq
from stripes_sim import trace
from waveq.method.parametrization import parametrization_of
from waveq.method.sites import weight_sites


class Attends(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, **options)

    def forward(self, x: Tensor) -> Tensor:
        other = x[..., : self.attention.kdim]
        return self.attention(x, other, other)[0]  # type: ignore[no-any-return]


class First(nn.Module):
    """A recurrent layer's outputs."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]  # type: ignore[no-any-return]


class Cell(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        state = self.layer(x[:, 0])
        return state[0] if isinstance(state, tuple) else state  # type: ignore[no-any-return]


class Experts(nn.Module):
    """Two experts, the second with weights a hundred times as large."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.stack([torch.randn(8, 4), 100 * torch.randn(8, 4)]))
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.einsum("bti,eio->bto", x, self.up) / 100)  # type: ignore[no-any-return]


CASES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "attention": (Attends, ("attention.in_proj_weight", "attention.out_proj")),
    "attention, other keys": (
        lambda: Attends(kdim=6, vdim=6),
        ("attention.q_proj_weight", "attention.k_proj_weight", "attention.v_proj_weight", "attention.out_proj"),
    ),
    "lstm": (lambda: First(nn.LSTM(8, 5, batch_first=True)), ("layer.weight_ih_l0", "layer.weight_hh_l0")),
    "lstm, projected": (
        lambda: First(nn.LSTM(8, 5, proj_size=3, batch_first=True)),
        ("layer.weight_ih_l0", "layer.weight_hh_l0", "layer.weight_hr_l0"),
    ),
    "gru, both ways": (
        lambda: First(nn.GRU(8, 5, bidirectional=True, batch_first=True, bias=False)),
        ("layer.weight_ih_l0", "layer.weight_hh_l0", "layer.weight_ih_l0_reverse", "layer.weight_hh_l0_reverse"),
    ),
    "rnn, two layers": (
        lambda: First(nn.RNN(8, 5, num_layers=2, batch_first=True)),
        ("layer.weight_ih_l0", "layer.weight_hh_l0", "layer.weight_ih_l1", "layer.weight_hh_l1"),
    ),
    "lstm cell": (lambda: Cell(nn.LSTMCell(8, 5)), ("layer.weight_ih", "layer.weight_hh")),
    "gru cell": (lambda: Cell(nn.GRUCell(8, 5)), ("layer.weight_ih", "layer.weight_hh")),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("forward", ["quantized", "float"])
@pytest.mark.parametrize("case", CASES)
def test_all_their_matrices_are_quantised_and_leave_as_they_were_measured(case: str, forward: Any) -> None:
    torch.manual_seed(0)
    make, names = CASES[case]
    model = make()
    plain, x = copy.deepcopy(model), torch.randn(3, 6, 8)
    wq = waveq.attach(model, bits=2, quantizer="wrpn", forward=forward, total_steps=4)
    assert wq.names == names
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(4):
        loss = model(x).square().mean() + wq.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        wq.step()
    copy.deepcopy(model)  # no tensor of the last forward pass is kept
    model.double().float()
    with torch.no_grad(), wq.rounded():
        before = model.eval()(x)
    assert all(row.calls > 0 for row in wq.summary() if row.layer is not None)
    wq.finalize()
    with torch.no_grad():
        torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-6)
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in plain.named_parameters()]
    assert list(model.state_dict()) == list(plain.state_dict())
    for name, site in weight_sites(model).items():
        assert getattr(site.module, site.tensor).unique().numel() <= 3, name
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(x), before, rtol=1e-4, atol=1e-6)


def test_the_task_reaches_a_recurrent_weight_and_its_beta() -> None:
    model = First(nn.LSTM(8, 5, batch_first=True))
    wq = waveq.attach(model, total_steps=10, schedule="constant", lambda_w=0.0)
    wq._all[0].state.set_quantized(True)
    model(torch.randn(2, 3, 8)).sum().backward()
    assert all(float(layer.weight.grad.abs().sum()) > 0 for layer in wq._all)  # type: ignore[union-attr]


def test_a_plain_checkpoint_loads_into_recurrent_layers_under_training() -> None:
    model, other = (First(nn.GRU(8, 5, batch_first=True)) for _ in range(2))
    waveq.attach(model, bits=8, quantizer="wrpn")
    model.load_state_dict(other.state_dict())
    assert torch.equal(model.layer.parametrizations["weight_hh_l0"].original, other.layer.weight_hh_l0)  # type: ignore


def test_a_policy_of_these_names_comes_back_and_fits_the_trace() -> None:
    policy = waveq.attach(Attends(), bits=3).policy()
    again = Attends()
    assert waveq.attach(again, bits=policy).policy() == policy
    weights = {layer.name for layer in trace(Attends(), (6, 8)) if layer.has_weights}
    assert weights == set(policy) == {layer.name for layer in trace(again, (6, 8)) if layer.has_weights}


def test_inputs_that_no_hook_reaches_are_left_and_naming_them_is_an_error() -> None:
    model = nn.Sequential(nn.Linear(8, 8), Attends(), nn.Linear(8, 2))
    assert dict(waveq.attach(model, bits=4, activation_bits=4).policy().activation_bits) == {"2": 4}
    with pytest.raises(ValueError, match=r"names '1.attention.out_proj', whose inputs cannot be quantised"):
        waveq.attach(nn.Sequential(nn.Linear(8, 8), Attends()), bits=4, activation_bits={"1.attention.out_proj": 4})


def test_first_and_last_are_all_matrices_of_those_modules() -> None:
    model = nn.Sequential(First(nn.LSTM(8, 8, batch_first=True)), nn.Linear(8, 8), nn.Linear(8, 2))
    assert waveq.attach(model, bits=3, first_last=8).bits() == {
        "0.layer.weight_ih_l0": 8,
        "0.layer.weight_hh_l0": 8,
        "1": 3,
        "2": 8,
    }


def test_conv1d_of_transformers_is_known_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Conv1D(nn.Module):
        """(inputs, outputs), as transformers.pytorch_utils has it."""

        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.randn(8, 3)), nn.Parameter(torch.zeros(3))

        def forward(self, x: Tensor) -> Tensor:
            return torch.addmm(self.bias, x, self.weight)

    module = types.ModuleType("transformers.pytorch_utils")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    Conv1D.__module__ = module.__name__
    model = nn.Sequential(Conv1D())
    waveq.attach(model, bits=2, quantizer="lqnets", activation_bits={"0": 4})
    assert parametrization_of(model[0]).quantizer.basis.shape == (3, 2)  # an output channel each
    model(torch.randn(2, 8)).sum().backward()


# ---------------------------------------------------------------------- by name only


def test_embeddings_are_quantised_where_they_are_asked_for() -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2))

    assert waveq.attach(make(), bits=3).names == ("1",)
    for options in ({"bits": 3, "also": ("0",)}, {"bits": 3, "also": ("*",)}, {"bits": {"0": 3, "1": 3}}):
        model = make()
        wq = waveq.attach(model, **options)  # type: ignore[arg-type]
        assert wq.names == ("0", "1")
        model(torch.tensor([1, 2])).sum().backward()
        wq.finalize()
        assert model[0].weight.unique().numel() <= 8  # type: ignore[index]
    with pytest.raises(ValueError, match=r"also names 'emb', which is no embedding and no parameter of two axes .*0"):
        waveq.attach(make(), bits=3, also=("emb",))
    with pytest.raises(TypeError, match="also must be a sequence of names"):
        waveq.attach(make(), bits=3, also="0")
    for made in (nn.Embedding(9, 4, max_norm=1.0), nn.Embedding(9, 4, sparse=True)):
        with pytest.raises(ValueError, match="embedding '0' cannot be quantised"):
            waveq.attach(nn.Sequential(made, nn.Linear(4, 2)), bits=3, also=("0",))


@pytest.mark.parametrize("quantizer", ["wrpn", "dorefa", "lsq", "lqnets", "dsq"])
def test_each_expert_has_levels_of_its_own(quantizer: str) -> None:
    torch.manual_seed(0)
    model, x = Experts(), torch.randn(3, 5, 8)
    wq = waveq.attach(model, bits=2, quantizer=quantizer, also=("up",))
    assert wq.names == ("up", "head")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for _ in range(3):
        loss = model(x).square().mean() + wq.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        wq.step()
    assert all(0 <= share <= 1 for share in wq.on_levels().values())
    before = model.eval()(x).detach()
    wq.finalize()
    torch.testing.assert_close(model(x), before)
    for expert in model.up.detach():
        assert 2 <= expert.unique().numel() <= (32 if quantizer == "lqnets" else 4)
    small, large = (float(expert.abs().max()) for expert in model.up.detach())
    assert large > 10 * small


def test_bits_of_experts_are_learned() -> None:
    torch.manual_seed(0)
    model = Experts()
    wq = waveq.attach(model, quantizer="dorefa", total_steps=12, also=("up",))  # so few steps move its bits already
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for _ in range(12):
        loss = F.mse_loss(model(torch.randn(3, 5, 8)), torch.zeros(3, 5, 2)) + wq.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        wq.step()
    assert not wq.learning
    assert wq.bits()["up"] < 8
    wq.finalize()

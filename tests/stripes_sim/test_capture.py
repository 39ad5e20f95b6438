"""Integers of a real forward: equal to what the layers multiplied, of the trace's shapes, the model left alone."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from stripes_sim import DynamicStripes, Laconic, capture, trace


class Net(nn.Module):
    """Every kind of layer, one of them called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2)
        self.twice = nn.Conv2d(4, 4, 1)
        self.up = nn.ConvTranspose2d(4, 2, 2)
        self.fc = nn.Linear(2 * 4 * 4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv(x))
        x = torch.relu_(self.twice(torch.relu_(self.twice(x))))
        return self.fc(self.up(x).flatten(1))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


def test_codes_times_scale_are_what_the_layers_multiplied(net: Net) -> None:
    x = torch.randn(3, 3, 8, 8)
    seen = {}
    net.conv.register_forward_pre_hook(lambda _, inputs: seen.update(conv=inputs[0]))
    net.fc.register_forward_pre_hook(lambda _, inputs: seen.update(fc=inputs[0]))
    net(x)
    found = capture(net, x, activation_bits=12, weight_bits={"conv": 10})
    assert {name: each.shape for name, each in found.activations.items()} == {
        "conv": (3, 3, 8, 8), "twice": (3, 2, 4, 3, 3), "up": (3, 4, 3, 3), "fc": (3, 1, 32),
    }  # fmt: skip
    image = seen["conv"].numpy()
    scale = np.abs(image).max() / (2**11 - 1)
    assert np.abs(found.activations["conv"] * scale - image).max() <= scale / 2 * 1.001
    assert found.activations["conv"].min() < 0 <= found.activations["up"].min()
    assert found.activations["up"].max() == 2**12 - 1
    weight = net.conv.weight.detach().numpy()
    scale = np.abs(weight).max() / (2**9 - 1)
    assert np.abs(found.weights["conv"] * scale - weight).max() <= scale / 2 * 1.001
    assert np.abs(found.weights["fc"]).max() == 2**15 - 1  # left out: 16 bits


@pytest.mark.slow
@pytest.mark.parametrize("hw", [DynamicStripes(), Laconic()])
def test_a_trace_runs_on_what_was_captured(net: Net, hw) -> None:
    found = capture(net, torch.randn(2, 3, 8, 8))
    layers = trace(net, (3, 8, 8))
    result = hw.run(layers, 8, 8, activations=found.activations, weights=found.weights)
    assert result.compute_cycles > 0
    assert hw.run(layers, 8, 8, activations=found.activations, weights=found.weights, batch=2).compute_cycles > 0


def test_values_of_a_grid_are_its_codes(net: Net) -> None:
    codes = torch.randint(0, 14, (4, 3, 8, 8))
    assert (capture(net, codes / 15, activation_bits=4, activation_scales={"conv": 1 / 15}).activations["conv"]
            == codes.numpy()).all()  # fmt: skip
    codes[0, 0, 0, 0] = 15
    assert (capture(net, codes * 0.3, activation_bits=4).activations["conv"] == codes.numpy()).all()


def test_one_bit_is_the_sign(net: Net) -> None:
    x = torch.randn(1, 3, 8, 8)
    found = capture(net, x, activation_bits=1, weight_bits=1)
    assert (found.activations["conv"] == np.where(x < 0, -1, 0)).all()
    assert set(np.unique(found.weights["conv"])) == {-1, 0}


class Half(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return torch.round(weight * 2) / 2


def test_parametrised_weights_are_as_computed_and_the_model_stays_as_it_is(net: Net) -> None:
    parametrize.register_parametrization(net.fc, "weight", Half())
    net.fc.parametrizations.weight.original.data.mul_(20)
    net.train()
    before, hooks = copy.deepcopy(net.state_dict()), len(net.fc._forward_hooks)
    found = capture(net, torch.randn(2, 3, 8, 8), weight_bits=12)
    halves = 2 * net.fc.weight.detach().numpy()
    assert np.allclose(
        found.weights["fc"] / np.abs(found.weights["fc"]).max(), halves / np.abs(halves).max(), atol=1e-3
    )
    assert (net.training, parametrize.is_parametrized(net.fc), len(net.fc._forward_hooks)) == (True, True, hooks)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


@pytest.mark.slow
def test_recurrent_and_attention_layers_fit_their_trace() -> None:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(20, 8)
            self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.lstm = nn.LSTM(8, 4, batch_first=True)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.lstm(self.layer(self.table(ids)))[0]

    model = Tagger()
    found = capture(model, torch.randint(0, 20, (2, 5)))
    layers = trace(model, (5,))
    assert set(found.activations) == {layer.name for layer in layers if layer.kind != "embedding"}
    result = DynamicStripes().run(layers, 8, 8, activations=found.activations)
    assert not any("all their bits count" in note for note in result.notes)


class Heads(nn.Module):
    """Four query heads share two key heads."""

    def __init__(self, *, mixed: bool = False) -> None:
        super().__init__()
        self.q, self.mixed = nn.Linear(8, 8), mixed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = self.q(x).unflatten(-1, (4, 2)).transpose(1, 2)
        k, v = q[:, :2] + 1, q[:, 2:] - 1
        if self.mixed:
            return q @ k.repeat(1, 2, 1, 1).mT
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


def test_both_products_of_attention_are_the_codes_of_what_they_multiply() -> None:
    torch.manual_seed(0)
    net, x = Heads(), torch.randn(3, 5, 8)
    found = capture(net, x, activation_bits=16)
    q = net.q(x).unflatten(-1, (4, 2)).transpose(1, 2)
    masked = (q @ (q[:, :2] + 1).repeat_interleave(2, 1).mT / 2**0.5).masked_fill(torch.ones(5, 5).triu(1) > 0, -1e9)
    # (samples, key heads, query heads that share one as tokens, inputs) and (samples * key heads, outputs, inputs)
    for name, streamed, stationary in (
        ("matmul", q.reshape(3, 2, 10, 2), (q[:, :2] + 1).flatten(0, 1)),
        ("matmul_2", masked.softmax(-1).reshape(3, 2, 10, 5), (q[:, 2:] - 1).flatten(0, 1).mT),
    ):
        for codes, values in ((found.activations[name], streamed), (found.weights[name], stationary)):
            assert codes.shape == values.shape
            scaled = codes * (values.detach().abs().max().item() / np.abs(codes).max())
            np.testing.assert_allclose(scaled, values.detach().numpy(), atol=2e-3)
    layers = trace(net, (5, 8))
    for hw in (DynamicStripes(), Laconic()):
        notes = hw.run(layers, 8, 16, activations=found.activations, weights=found.weights).notes
        assert not any("all their bits count" in note for note in notes)


def test_heads_in_an_order_that_mixes_samples_are_left_out_and_named() -> None:
    net = Heads(mixed=True)
    found = capture(net, torch.randn(3, 5, 8))
    assert set(found.activations) == {"q"}
    result = DynamicStripes().run(trace(net, (5, 8)), 8, 8, activations=found.activations)
    assert "products of activations: all their bits count (matmul)" in result.notes[-1]
    assert set(capture(net, torch.randn(1, 5, 8)).activations) == {"q", "matmul"}


@pytest.mark.parametrize("form", ["side by side", "broadcast"])
def test_every_expert_has_its_own_inputs_and_weights(form: str) -> None:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 4, 6))
            self.scale = torch.tensor([1.0, 2.0, 3.0])[:, None, None]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if form == "broadcast":
                return (x[:, None] * self.scale) @ self.weight
            return torch.bmm(x.flatten(0, 1) * self.scale, self.weight)

    net, x = Experts(), torch.randint(0, 6, (2, 7, 4)).float()
    x[0, 0, 0] = 5  # the third expert's largest input is 15
    found = capture(net, x, activation_bits=4)
    (layer,) = trace(net, inputs=x[:1], device="cpu")
    assert (layer.matrices, layer.copies, layer.tokens) == (3, 3, 7)
    assert (found.activations[layer.name] == (x[:, None] * net.scale).numpy()).all()
    weight = net.weight.mT.detach()
    assert (found.weights[layer.name] == np.rint(weight.double().numpy() / weight.abs().max().item() * 127)).all()
    assert Laconic().run([layer], 8, 8, activations=found.activations, weights=found.weights).compute_cycles > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "meta"}, "device must be one that computes numbers, such as 'cpu', but it is 'meta'"),
        ({"activation_bits": 17}, "activation_bits must be from 1 to 16, but it is 17"),
        ({"activation_scales": {"cnov": 1.0}}, "activation_scales names 'cnov', which is no layer of this run; did"),
        ({"inputs": torch.randn(2, 3, 1, 1)}, "cannot run on inputs of float32 (2, 3, 1, 1): RuntimeError in conv"),
    ],
)  # fmt: skip
def test_what_cannot_be_captured_is_named(net: Net, settings, message) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        capture(net, **{"inputs": torch.randn(2, 3, 8, 8), **settings})

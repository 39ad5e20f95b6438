from __future__ import annotations

import re
import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models

from stripes_sim import LayerShape, Stripes, trace

# torch tells of its own lazy choice of nested tensors when a transformer is built
pytestmark = pytest.mark.filterwarnings("ignore:.*enable_nested_tensor.*:UserWarning")


def counted_macs(model, *inputs):
    """Multiply-accumulates by torch's own counter."""
    with FlopCounterMode(display=False) as counter, torch.no_grad(), torch.device("meta"):
        model.eval()(*inputs)
    return counter.get_total_flops() / 2


def matrix_parameters(model):
    return sum(p.numel() for p in model.parameters() if p.dim() > 1)


NETWORKS = {
    # name: (parameters with more than one axis that are no layer: class tokens and positions)
    "alexnet": 0,
    "vgg11": 0,
    "resnet18": 0,
    "mobilenet_v2": 0,
    "resnext50_32x4d": 0,
    "vit_b_16": 768 + 197 * 768,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_torchvision_networks_count_what_the_independent_counter_counts(name):
    with torch.device("meta"):
        model = getattr(models, name)(weights=None)
    start = time.process_time()
    layers = trace(model, (3, 224, 224))
    assert time.process_time() - start < 20  # a guard against accidents; the benchmark holds the two seconds
    assert sum(layer.macs for layer in layers) == counted_macs(model, torch.empty(1, 3, 224, 224, device="meta"))
    assert sum(layer.weight_count for layer in layers) == matrix_parameters(model) - NETWORKS[name]
    assert Stripes().run(layers, 4).cycles > 0


class Bert(nn.Module):
    """BERT-base from its configuration, with torch's own layers."""

    def __init__(self, words=30522, width=768, heads=12, depth=12, tokens=512):
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(tokens, width)
        block = nn.TransformerEncoderLayer(width, heads, 4 * width, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(block, depth)
        self.pooler = nn.Linear(width, width)

    def forward(self, ids):
        x = self.words(ids) + self.places(torch.arange(ids.shape[1]))
        return torch.tanh(self.pooler(self.encoder(x)[:, 0]))


@pytest.mark.slow
def test_bert_counts_what_the_independent_counter_and_the_formula_count():
    with torch.device("meta"):
        model = Bert()
    layers = trace(model, (128,), dtype="int64")
    macs = sum(layer.macs for layer in layers)
    assert macs == counted_macs(model, torch.zeros(1, 128, dtype=torch.int64, device="meta"))
    # per block: four projections, two products of attention, two layers of the feed-forward part
    block = 4 * 128 * 768**2 + 2 * 128**2 * 768 + 2 * 128 * 768 * 3072
    assert macs == 12 * block + 768**2
    assert sum(layer.weight_count for layer in layers) == matrix_parameters(model)
    products = [layer for layer in layers if layer.kind == "matmul"]
    assert sum(layer.copies for layer in products) == 2 * 12 * 12
    lookups = [layer for layer in layers if layer.kind == "embedding"]
    assert [(layer.name, layer.tokens) for layer in lookups] == [("words", 128), ("places", 128)]


def test_every_convolution_and_its_transpose():
    model = nn.Sequential(
        nn.Conv1d(2, 4, 3, padding=1, groups=2),
        nn.Unflatten(2, (8, 8)),
        nn.Conv2d(4, 8, 3, stride=2, dilation=2, padding=2),
        nn.ConvTranspose2d(8, 4, 3, stride=2, padding=1, output_padding=1, groups=4),
        nn.Unflatten(2, (2, 4)),
        nn.Conv3d(4, 4, 2, groups=4),
    )
    layers = trace(model, (2, 64))
    assert [layer.kind for layer in layers] == ["conv", "conv", "conv_transpose", "conv"]
    assert [layer.name for layer in layers] == ["0", "2", "3", "5"]
    assert sum(layer.macs for layer in layers) == counted_macs(model.to("meta"), torch.empty(1, 2, 64, device="meta"))
    assert layers[2] == LayerShape(
        name="3",
        kind="conv_transpose",
        in_channels=8,
        out_channels=4,
        kernel_size=(3, 3),
        input_size=(4, 4),
        stride=(2, 2),
        padding=(1, 1),
        output_padding=(1, 1),
        groups=4,
    )


class Functional(nn.Module):
    """Layers that are calls, a shared module, and products of activations."""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 3, 3, 3))
        self.shared = nn.Linear(16, 16)
        self.out = nn.Linear(16, 2, bias=False)

    def forward(self, x):
        x = F.relu(F.conv2d(x, self.kernel / self.kernel.std(), padding="same")).flatten(2)
        x = self.shared(F.relu(self.shared(x)))
        attention = torch.softmax(x @ x.transpose(1, 2), dim=-1) @ x
        return torch.einsum("btc,oc->bto", attention, self.out.weight)


def test_functional_calls_shared_modules_and_products_are_found():
    layers = trace(Functional(), (3, 4, 4))
    assert [(layer.name, layer.kind, layer.copies) for layer in layers] == [
        ("kernel", "conv", 1),
        ("shared", "linear", 2),
        ("matmul", "matmul", 1),
        ("matmul_2", "matmul", 1),
        ("out", "linear", 1),
    ]
    assert layers[1].tokens == 4
    assert sum(layer.weight_count for layer in layers) == 4 * 27 + 256 + 32


def test_several_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(5, 4)

        def forward(self, x, y):
            return self.a(x) + self.b(y)

    assert [layer.name for layer in trace(Two(), [(3,), (5,)])] == ["a", "b"]


def test_recurrent_layers_are_their_matrix_products():
    model = nn.LSTM(8, 16, batch_first=True)
    layers = trace(model, (5, 8))
    assert sum(layer.macs for layer in layers) == 5 * 4 * 16 * (8 + 16)
    assert sum(layer.weight_count for layer in layers) == 4 * 16 * (8 + 16)


class Doubled(nn.Module):
    def forward(self, weight):
        if weight.abs().max() > 0:  # asks for a number, which no meta tensor has
            return 2 * weight
        return weight


def test_the_users_model_is_left_alone():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(4 * 36, 2))
    parametrize.register_parametrization(model[0], "weight", Doubled())
    parametrize.register_parametrization(model[4], "weight", Doubled())
    parametrize.register_parametrization(model[4], "bias", Doubled())
    called = []
    model[0].register_forward_hook(lambda *_: called.append(1))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    assert [(layer.name, layer.weight_count) for layer in trace(model, (3, 8, 8))] == [("0", 108), ("4", 288)]
    assert torch.equal(torch.get_rng_state(), state)
    assert not called
    assert model.training
    assert model[1].num_batches_tracked == 0
    assert parametrize.is_parametrized(model[0], "weight")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert next(model.parameters()).device.type == "cpu"


def test_a_model_with_learned_bits_traces_like_the_plain_one():
    import waveq
    from waveq._kernels.backends import use_backend

    def build():
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))

    model = build()
    with use_backend("plain"):  # whichever rounds: what is traced are shapes
        waveq.attach(model, quantizer="dorefa", bits=4)
        assert trace(model, (3, 8, 8)) == trace(build(), (3, 8, 8))


def test_a_weight_that_meets_an_unknown_operator_is_named():
    model = nn.Sequential(nn.Linear(4, 4), nn.Flatten())
    model.add_module("pair", Pair())
    with pytest.raises(ValueError, match=re.escape("layer 'pair.mix': its weight goes into aten._trilinear")):
        trace(model, (4,))


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.Bilinear(4, 4, 3)

    def forward(self, x):
        return self.mix(x, x)


def test_bad_arguments_are_named():
    net = nn.Sequential(nn.Conv2d(3, 4, 3))
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, but it is str"):
        trace("resnet", (3, 8, 8))
    with pytest.raises(ValueError, match=re.escape("the model cannot run on input_shape=(1, 8, 8)")):
        trace(net, (1, 8, 8))
    with pytest.raises(ValueError, match="RuntimeError in 0: "):
        trace(net, (1, 8, 8))
    for shape in ((), (3, 0), "3x8x8", 5):
        with pytest.raises(ValueError, match="input_shape must be one sample's sizes without batch dimension"):
            trace(net, shape)
    with pytest.raises(ValueError, match=r"dtype must be a torch.dtype or its name"):
        trace(net, (3, 8, 8), dtype="int65")
    with pytest.raises(ValueError, match="no layer with weights runs in ReLU"):
        trace(nn.ReLU(), (3, 8, 8))

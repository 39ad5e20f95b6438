"""Real inputs, dictionaries, keyword arguments, token ids found by themselves, and what cannot be traced."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

import waveq
from stripes_sim import trace
from waveq._kernels.backends import use_backend

pytestmark = pytest.mark.filterwarnings("ignore:.*enable_nested_tensor.*:UserWarning")


class Routed(nn.Module):
    """Experts that are chosen by numbers, which the meta device does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(8, 4)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))
        self.norm = nn.BatchNorm1d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        chosen = int(self.router(x).sum(0).argmax().item())
        return self.experts[chosen](self.norm(x))


def test_a_way_that_depends_on_numbers_runs_on_real_inputs() -> None:
    model, x = Routed(), torch.randn(5, 8)
    with torch.no_grad():
        model.router.bias.copy_(torch.tensor([0.0, 0.0, 1e3, 0.0]))
    state = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"where the way depends on numbers, give inputs= and device='cpu'"):
        trace(model, inputs=x)
    layers = trace(model, inputs=x, device="cpu")
    assert [(layer.name, layer.tokens) for layer in layers] == [("router", 5), ("experts.2", 5)]
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert model.training


class Keywords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.out = nn.Embedding(20, 6), nn.Linear(6, 3)

    def forward(self, ids: torch.Tensor, *, mask: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        return self.out(self.words(ids) * mask[..., None] * scale)


def test_keyword_arguments_and_token_ids_that_an_embedding_finds() -> None:
    expected = [("words", "embedding", 7), ("out", "linear", 7)]
    found = trace(Keywords(), {"ids": (7,), "mask": (7,)})
    assert [(layer.name, layer.kind, layer.tokens) for layer in found] == expected
    assert trace(Keywords(), {"ids": (7,), "mask": (7,)}, dtype={"ids": "int64"}) == found
    inputs = {"ids": torch.zeros(1, 7, dtype=torch.int64), "mask": torch.ones(1, 7), "scale": 2.0}
    for device in ("meta", "cpu"):
        assert trace(Keywords(), inputs=inputs, device=device) == found


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.out = nn.Embedding(20, 6), nn.Linear(6, 3)

    def forward(self, features: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return self.out(features + self.words(ids.clamp(0, 19)))


def test_one_dtype_for_each_input() -> None:
    layers = trace(Pair(), [(7, 6), (7,)], dtype=(None, "int64"))
    assert [layer.name for layer in layers] == ["words", "out"]
    with pytest.raises(ValueError, match="dtype must be one for all inputs, or one for each of 2"):
        trace(Pair(), [(7, 6), (7,)], dtype=("int64",))
    with pytest.raises(ValueError, match="dtype names 'idz', which is no input"):
        trace(Keywords(), {"ids": (7,), "mask": (7,)}, dtype={"idz": "int64"})


class Nested(nn.Module):
    """A list of images of their own sizes, and a dictionary: as detection models take and give them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)

    def forward(self, images: list[torch.Tensor], targets: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        return [{"map": self.stem(image[None] * targets["scale"])} for image in images]


def test_lists_and_dictionaries_of_tensors() -> None:
    images = [torch.randn(3, 8, 8), torch.randn(3, 10, 12)]
    for device in ("meta", "cpu"):
        layers = trace(Nested(), inputs=(images, {"scale": torch.ones(1)}), device=device)
        assert [(layer.name, layer.input_size) for layer in layers] == [("stem", (8, 8)), ("stem", (10, 12))]


@pytest.mark.slow
def test_a_detection_model_runs_on_real_images() -> None:
    from torchvision.models import detection

    model = detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)
    layers = trace(model, inputs=([torch.rand(3, 64, 64)],), device="cpu")
    weights = sum(p.numel() for p in model.parameters() if p.dim() > 1)
    assert sum({layer.name: layer.weight_count for layer in layers}.values()) == weights


MODELS = {
    "recurrent": (lambda: nn.LSTM(6, 5, num_layers=2, batch_first=True), (4, 6)),
    "encoder": (lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2), (5, 8)),
    "convolutions": (lambda: nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.ConvTranspose2d(6, 2, 2)), (3, 6, 6)),
    "double": (lambda: nn.Linear(6, 2).double(), (6,)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_real_numbers_and_shapes_give_the_same_workload(name: str) -> None:
    build, shape = MODELS[name]
    model = build()
    kind = next(model.parameters()).dtype
    on_meta = trace(model, shape)
    real = trace(model, inputs=torch.randn(1, *shape, dtype=kind), device="cpu")

    def plain(layers):
        return sorted((layer.name, layer.macs) for layer in layers if layer.has_weights)

    assert plain(real) == plain(on_meta)
    assert sum(layer.macs for layer in real) == sum(layer.macs for layer in on_meta)


def test_a_single_layer_has_the_name_of_its_kind() -> None:
    assert [layer.name for layer in trace(nn.Linear(4, 2), (4,))] == ["linear"]
    assert [layer.name for layer in trace(nn.Conv2d(3, 2, 1), (3, 4, 4))] == ["conv"]
    assert [layer.name for layer in trace(nn.Embedding(9, 2), (4,))] == ["embedding"]


def test_a_model_with_learned_bits_runs_on_real_inputs() -> None:
    model, x = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)), torch.randn(1, 6)
    plain = trace(model, (6,))
    with use_backend("plain"):
        waveq.attach(model, quantizer="dorefa", bits=4)
        assert trace(model, inputs=x, device="cpu") == plain


class Rotary(nn.Module):
    """Switches autocast off for the device of its input, as transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device_type=x.device.type, enabled=False):
            return self.proj(x)


def test_autocast_that_is_switched_off_is_no_obstacle() -> None:
    original = torch.autocast
    assert [layer.name for layer in trace(Rotary(), (3, 4))] == ["proj"]
    assert torch.autocast is original


def test_a_cache_that_is_joined_with_new_keys_still_comes_from_dram() -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.key = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor, cache: torch.Tensor) -> torch.Tensor:
            cache = cache.clone()  # a copy is stored before the run like what it is made of, and waits nowhere
            x = self.first(x)
            return (torch.cat([cache * 0.5, self.key(x)], 1) * 2).transpose(1, 2)

    class Query(Joined):
        def forward(self, x: torch.Tensor, cache: torch.Tensor) -> torch.Tensor:
            return x @ super().forward(x, cache)

    _, key, scores = trace(Query(), [(1, 4), (7, 4)])
    assert (key.waiting, scores.stored_before, scores.out_channels) == (0, 4 + 7 * 4, 8)


def test_wrapped_models_are_looked_into() -> None:
    model = nn.Sequential(nn.Linear(6, 5))
    assert trace(nn.DataParallel(model), (6,)) == trace(torch.compile(model), (6,)) == trace(model, (6,))


class Flexible(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        from torch.nn.attention.flex_attention import flex_attention

        x = self.proj(x)[:, None]
        return flex_attention(x, x, x)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
@pytest.mark.filterwarnings("ignore:.*flex_attention.*:UserWarning")
def test_what_cannot_be_traced_says_so_in_one_sentence() -> None:
    scripted = torch.jit.script(nn.Linear(4, 4))
    with pytest.raises(ValueError, match=r"the model is TorchScript, which cannot be traced: give the nn.Module"):
        trace(scripted, (4,))
    with pytest.raises(ValueError, match="module '1' is TorchScript"):
        trace(nn.Sequential(nn.Linear(4, 4), scripted), (4,))
    with pytest.raises(ValueError, match="calls flex_attention, which cannot be traced: let it call scaled_dot"):
        trace(Flexible(), (16, 8))


def test_bad_inputs_are_named() -> None:
    model = nn.Sequential(nn.Linear(4, 2))
    with pytest.raises(ValueError, match="inputs have shapes and dtypes of their own"):
        trace(model, (4,), inputs=torch.zeros(1, 4))
    with pytest.raises(ValueError, match="inputs must be a tensor, a sequence of positional arguments or a mapping"):
        trace(model, inputs=[3])
    with pytest.raises(ValueError, match="an embedding looks up numbers that are no integers"):
        trace(nn.Embedding(4, 2), inputs=torch.zeros(1, 4))
    with pytest.raises(ValueError, match=re.escape("cannot run on inputs of float32 (1, 5): RuntimeError in 0: ")):
        trace(model, inputs=torch.zeros(1, 5), device="cpu")


def test_a_weight_that_is_an_input_is_an_operand_of_a_product() -> None:
    class Loose(nn.Module):
        def forward(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
            return F.linear(x, weight)

    (layer,) = trace(Loose(), inputs=[torch.zeros(3, 8), torch.zeros(2, 8)])
    assert (layer.kind, layer.macs) == ("matmul", 3 * 8 * 2)


def test_an_expert_that_no_token_comes_to_is_no_layer() -> None:
    class Routed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            chosen = (x[:, 0] > 0).long()  # never the last one
            return torch.cat([expert(x[chosen == i]) for i, expert in enumerate(self.experts)])

    x = torch.tensor([[1.0], [2.0], [-1.0]]).expand(3, 4)
    layers = trace(Routed(), inputs=x, device="cpu")
    assert [(layer.name, layer.tokens) for layer in layers] == [("experts.0", 1), ("experts.1", 2)]


@pytest.mark.parametrize("wrap", [nn.utils.weight_norm, nn.utils.spectral_norm, prune.identity])
@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
def test_a_weight_that_an_older_hook_computes_is_a_weight(wrap) -> None:
    layer = nn.Linear(12, 5)
    wrapped = wrap(layer, "weight")
    (found,) = trace(wrapped, (12,))
    assert (found.kind, found.weight_count) == ("linear", 60)


def test_a_constant_of_the_model_was_stored_before() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 6)
            self.register_buffer("basis", torch.randn(5, 6))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x) @ self.basis.t()

    _, product = trace(Mixed(), (6,))
    assert (product.kind, product.stored_before, product.input_count) == ("matmul", 30, 36)

"""Which stored tensor an operand is: tied, repeated, cached, merged, sliced and stacked ones; and what waits."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import waveq
from stripes_sim import LayerShape, Stripes, cost_table, read_workload, trace, write_workload
from waveq._kernels.backends import use_backend

pytestmark = pytest.mark.filterwarnings("ignore:.*enable_nested_tensor.*:UserWarning")
TOKENS, WIDTH, HEADS, GROUP, CONTEXT = 1, 16, 8, 4, 32
PER_HEAD = 8


def by_name(layers: list[LayerShape]) -> dict[str, LayerShape]:
    return {layer.name: layer for layer in layers}


class Cached(nn.Module):
    """One decode step of grouped-query attention over a cache that is given."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.query = nn.Linear(WIDTH, HEADS * PER_HEAD, bias=False)

    def forward(self, x: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        query = self.query(x).view(1, TOKENS, HEADS, PER_HEAD).transpose(1, 2)
        if self.form == "enable_gqa":
            return F.scaled_dot_product_attention(query, keys, values, enable_gqa=True)
        if self.form == "repeat_interleave":
            keys, values = (each.repeat_interleave(GROUP, 1) for each in (keys, values))
        else:  # as transformers' repeat_kv
            keys, values = (
                each[:, :, None]
                .expand(1, HEADS // GROUP, GROUP, CONTEXT, PER_HEAD)
                .reshape(1, HEADS, CONTEXT, PER_HEAD)
                for each in (keys, values)
            )
        if self.form == "sdpa":
            return F.scaled_dot_product_attention(query, keys, values)
        return torch.softmax(query @ keys.transpose(2, 3), -1) @ values


@pytest.mark.parametrize("form", ["matmul", "repeat_interleave", "sdpa", "enable_gqa"])
def test_a_cache_that_query_heads_share_comes_from_dram_once(form: str) -> None:
    cache = (HEADS // GROUP, CONTEXT, PER_HEAD)
    layers = trace(Cached(form), [(TOKENS, WIDTH), cache, cache])
    _, scores, values = layers
    assert (scores.tokens, scores.copies) == (values.tokens, values.copies) == (GROUP, HEADS // GROUP)
    elements = HEADS // GROUP * CONTEXT * PER_HEAD
    assert scores.stored_before == values.stored_before == elements
    assert scores.macs == values.macs == HEADS * CONTEXT * PER_HEAD
    frame = Stripes().run(layers, 8, 16).frame
    assert frame["dram_bytes"].tolist()[1] == 2 * elements
    assert frame["dram_bytes"].tolist()[2] == 2 * elements + 2 * values.output_count
    assert Stripes(resident_cache=True).run(layers, 8, 16).frame["dram_bytes"].tolist()[1] == 0


def test_a_decode_step_of_a_large_model_reads_its_cache_once() -> None:
    # 80 layers, 8 key heads of 128, context 4096, 16 bits: 2 * 80 * 8 * 128 * 4096 * 2 bytes
    scores = LayerShape(
        name="scores",
        kind="matmul",
        in_channels=128,
        out_channels=4096,
        tokens=8,
        copies=8,
        stored_before=8 * 128 * 4096,
    )
    values = dataclasses.replace(scores, name="values", in_channels=4096, out_channels=128)
    first = LayerShape(name="q", kind="linear", in_channels=1, out_channels=1)
    frame = Stripes().run([first, *[scores, values] * 80, first], 8, 16).frame
    cache = 2 * 80 * 8 * 128 * 4096 * 2
    assert cache == pytest.approx(1.34e9, rel=2e-3)
    assert frame["dram_bytes"].sum() == cache + 2 * (1 + 2)


class Merged(nn.Linear):
    """A layer with an adapter that is merged in forward."""

    def __init__(self) -> None:
        super().__init__(WIDTH, WIDTH)
        self.up, self.down = nn.Parameter(torch.randn(WIDTH, 4)), nn.Parameter(torch.randn(4, WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight + 0.5 * (self.up @ self.down), self.bias)


def test_an_adapter_that_is_merged_is_part_of_the_weight() -> None:
    (layer,) = trace(nn.Sequential(Merged()), (3, WIDTH))
    assert (layer.name, layer.kind, layer.macs, layer.weight_count) == ("0", "linear", 3 * WIDTH**2, WIDTH**2)
    assert Stripes().run([layer], 4).frame["weight_bits"].tolist() == [4]


def test_an_adapter_that_is_not_merged_is_two_layers() -> None:
    class Beside(Merged):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.linear(x, self.weight) + F.linear(F.linear(x, self.down), self.up)

    assert {layer.name: layer.weight_count for layer in trace(nn.Sequential(Beside()), (3, WIDTH))} == {
        "0": WIDTH**2,
        "0.down": 4 * WIDTH,
        "0.up": 4 * WIDTH,
    }


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stack = nn.Parameter(torch.randn(4, WIDTH, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.bmm(x.expand(4, -1, -1), self.stack)


def test_a_stack_of_matrices_is_as_many() -> None:
    (layer,) = trace(nn.Sequential(Experts()), (5, WIDTH))
    assert (layer.name, layer.copies, layer.matrices) == ("0.stack", 4, 4)
    assert (layer.macs, layer.weight_count) == (4 * 5 * WIDTH * 6, 4 * WIDTH * 6)
    result = Stripes().run([layer], 8)
    assert result.weight_bytes == 4 * WIDTH * 6
    alone = Stripes().run([dataclasses.replace(layer, copies=1, matrices=1)], 8)
    assert result.frame["weight_buffer_pj"][0] == pytest.approx(4 * alone.frame["weight_buffer_pj"][0])


def test_experts_that_are_called_one_by_one_are_parts_of_one_tensor() -> None:
    class Loop(Experts):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return sum(x @ self.stack[number] for number in range(4))

    layers = trace(nn.Sequential(Loop()), (5, WIDTH))
    assert [layer.name for layer in layers] == ["0.stack"] * 4
    assert len({layer.stored_as for layer in layers}) == 4
    assert Stripes().run(layers, {"0.stack": 8}).weight_bytes == 4 * WIDTH * 6


class TiedLanguage(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.inner = nn.Embedding(50, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 50, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.inner(self.words(ids)))


def test_a_tied_table_is_stored_once() -> None:
    layers = by_name(trace(TiedLanguage(), (7,), dtype="int64"))
    assert list(layers) == ["words", "inner", "head"]
    assert (layers["words"].kind, layers["words"].stored_as) == ("embedding", "head")
    assert Stripes().run([*layers.values()], 8, 8).weight_bytes == 50 * WIDTH + WIDTH**2


class TwoOfOne(nn.Module):
    """Two layers with one parameter, and a third that runs on two sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.b.weight = self.a.weight
        self.everywhere = nn.Conv2d(1, 2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.b(torch.relu(self.a(x)))[:, None]
        return self.everywhere(y).sum() + self.everywhere(y[..., ::2]).sum()


def test_one_weight_in_several_places_has_one_name_and_is_stored_once() -> None:
    layers = trace(TwoOfOne(), (WIDTH, WIDTH))
    assert [(layer.name, layer.copies) for layer in layers] == [("a", 2), ("everywhere", 1), ("everywhere", 1)]
    assert Stripes().run(layers, 8).weight_bytes == WIDTH**2 + 18
    table = cost_table(layers, Stripes(), bits=(8,))
    assert table.score([[8, 8]])["weight_bytes"][0] == WIDTH**2 + 18


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        return x + self.two(torch.relu(self.one(x)))


def test_a_residual_waits_on_chip_and_takes_room() -> None:
    layers = by_name(trace(Residual(), (4, 8, 8)))
    assert {name: layer.waiting for name, layer in layers.items()} == {"stem": 0, "one": 0, "two": 4 * 64}
    network, size = [*layers.values()], 4 * 64
    middle = [network[0], network[2], network[1]]
    held, tight = 3 * size, 3 * size - 1
    weights = 9 * 4 * 4
    for room, moved in ((held, 0), (tight, 2 * size)):
        frame = Stripes(activation_buffer_bytes=room).run(middle, 8, 8).frame.set_index("name")
        assert frame.loc["two", "dram_bytes"] == weights + moved


def test_a_second_graph_input_comes_from_dram() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(5, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.c(self.a(x) + self.b(y))

    layers = by_name(trace(Two(), [(3,), (5,)]))
    assert {name: layer.stored_before for name, layer in layers.items()} == {"a": 0, "b": 5, "c": 0}
    frame = Stripes().run([*layers.values()], 8, 8).frame
    assert frame["dram_bytes"].tolist() == [12 + 3, 20 + 5, 16 + 4]


def test_a_recurrent_matrix_that_does_not_fit_comes_for_each_call() -> None:
    hidden = LayerShape(name="hh", kind="linear", in_channels=64, out_channels=256, copies=10)
    roomy, tight = Stripes(), Stripes(weight_buffer_bytes=8 * 1024)
    moved = 10 * (64 + 256)
    assert moved < 4 * 2**20
    for hw, calls in ((roomy, 1), (tight, 10)):
        frame = hw.run([hidden, hidden, hidden], 8, 8).frame
        assert frame["dram_bytes"][1] == calls * 64 * 256


class Conv1D(nn.Module):
    """The linear layer of GPT-2 in transformers, weight (inputs, outputs)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.nf = outputs
        self.weight, self.bias = nn.Parameter(torch.randn(inputs, outputs)), nn.Parameter(torch.zeros(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.addmm(self.bias, x.view(-1, x.shape[-1]), self.weight).view(*x.shape[:-1], self.nf)


Conv1D.__module__ = "transformers.pytorch_utils"


class Cross(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x[:, :3].relu(), x[:, :3].relu(), need_weights=False)[0]


class Apart(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 2, kdim=6, vdim=4, batch_first=True)
        self.k, self.v = nn.Linear(WIDTH, 6), nn.Linear(WIDTH, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x, self.k(x), self.v(x), need_weights=False)[0]


class Last(nn.Module):
    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.cell(x)[0]


class Raw(nn.Module):
    """A weight that a module of the user's own holds, too, and comes first in."""

    def __init__(self) -> None:
        super().__init__()
        self.raw, self.fc = nn.Module(), nn.Linear(WIDTH, WIDTH)
        self.raw.kernel = self.fc.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(self.fc(x), self.raw.kernel) @ self.fc.weight  # and transposed


def test_a_weight_that_is_computed_by_a_parametrisation_is_named_after_its_module() -> None:
    normed = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, 3)))
    assert [(layer.name, layer.weight_count) for layer in trace(normed, (WIDTH,))] == [("0", 3 * WIDTH)]


MODELS = {
    "held elsewhere": Raw,
    "keys of their own": lambda: nn.Sequential(Apart()),
    "encoder layer": lambda: nn.Sequential(nn.TransformerEncoderLayer(WIDTH, 2, 32, batch_first=True)),
    "decoder over keys": Cross,
    "LSTM": lambda: Last(nn.LSTM(WIDTH, 6, num_layers=2, bidirectional=True, batch_first=True)),
    "GRU": lambda: Last(nn.GRU(WIDTH, 6, batch_first=True)),
    "cell": lambda: Last(nn.LSTMCell(WIDTH, 6)),
    "Conv1D of transformers": lambda: nn.Sequential(Conv1D(WIDTH, 8), nn.Linear(8, 2)),
    "tied layers": TwoOfOne,
    "stack of experts": lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), Experts()),
    "transposed": lambda: nn.Sequential(nn.Unflatten(1, (1, 5)), nn.ConvTranspose2d(1, 2, 3, groups=1)),
    "merged adapter": lambda: nn.Sequential(Merged()),
}
SLOW = ("encoder layer", "LSTM", "GRU")


@pytest.mark.filterwarnings("ignore:layers with a forward of their own")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in MODELS]
)
def test_a_policy_that_attach_gives_fits_the_trace(name: str) -> None:
    shape = (WIDTH, WIDTH) if name == "tied layers" else (WIDTH,) if name == "cell" else (5, WIDTH)
    model = MODELS[name]()
    plain = trace(model, shape)
    also = ("1.stack",) if name == "stack of experts" else ()
    with use_backend("plain"):  # whichever rounds: what is compared are names
        policy = waveq.attach(model, quantizer="dorefa", bits=4, also=also).policy()
    weighted = {layer.name for layer in plain if layer.has_weights}
    assert weighted == set(policy)
    assert trace(model, shape) == plain
    assert Stripes().run(plain, policy).frame["weight_bits"].isin([4, 16]).all()


def test_a_tied_head_gets_the_bits_of_its_policy() -> None:
    layers = trace(TiedLanguage(), (7,), dtype="int64")
    with use_backend("plain"):
        policy = waveq.attach(TiedLanguage(), quantizer="dorefa", bits=4).policy()
    assert {layer.name for layer in layers if layer.has_weights} == set(policy)


def test_files_keep_what_is_known_of_the_tensors(tmp_path) -> None:
    stack = LayerShape(
        name="experts",
        kind="linear",
        in_channels=4,
        out_channels=2,
        copies=6,
        matrices=3,
        stored_as="w",
        stored_before=5,
        waiting=7,
    )
    for ending in ("csv", "json"):
        write_workload(tmp_path / f"net.{ending}", [stack])
        assert read_workload(tmp_path / f"net.{ending}") == [stack]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"matrices": 4}, "matrices is for linear layers and divides copies, but a linear of 6 copies has 4"),
        ({"stored_before": 99}, "stored_before must be at most the 24 input values, but it is 99"),
        ({"waiting": -1}, "waiting must be at least 0, but it is -1"),
        ({"stored_as": 3}, "stored_as must be a string, but it is 3"),
    ],
)
def test_impossible_tensors_are_refused(change: dict[str, object], message: str) -> None:
    stack = LayerShape(name="x", kind="linear", in_channels=4, out_channels=2, copies=6)
    with pytest.raises((TypeError, ValueError), match=message):
        dataclasses.replace(stack, **change)

"""A weight that is read in several places is quantised in all of them, or refused."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import waveq
from stripes_sim import trace
from tests.training import mlp


class Language(nn.Module):
    """A next-token model whose head is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.inner, self.head = nn.Embedding(11, 6), nn.Linear(6, 6), nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.inner(self.embed(x))))  # type: ignore[no-any-return]


class Named(Language):
    """The same weight once more, in a module of the user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.table = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + F.embedding(x, self.table).mean()


@pytest.mark.parametrize("make", [Language, Named])
@pytest.mark.parametrize("forward", ["quantized", "float"])
def test_every_holder_reads_the_quantised_weight(make: Callable[[], nn.Module], forward: str) -> None:
    torch.manual_seed(0)
    model, x = make(), torch.randint(0, 11, (4, 7))
    keys = list(model.state_dict())
    wq = waveq.attach(model, bits=2, quantizer="wrpn", forward=forward, total_steps=20)  # type: ignore[arg-type]
    assert wq.names == ("inner", "head")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(20):
        loss = F.cross_entropy(model(x).flatten(0, 1), x.flatten()) + wq.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        wq.step()
    model.eval()
    with torch.no_grad(), wq.rounded():
        assert torch.equal(model.embed.weight, model.head.weight)  # type: ignore[arg-type, union-attr]
        before = model(x)
    state = copy.deepcopy(model.state_dict())
    fresh = make()
    waveq.attach(fresh, bits=2, quantizer="wrpn", forward=forward, total_steps=20)  # type: ignore[arg-type]
    fresh.load_state_dict(state)
    wq.finalize()
    with torch.no_grad():
        assert torch.equal(model(x), before)
    assert list(model.state_dict()) == keys
    assert model.embed.weight is model.head.weight
    assert model.embed.weight.unique().numel() <= 3  # type: ignore[operator, union-attr]


def test_the_summary_names_all_holders() -> None:
    row = waveq.attach(Named(), bits=2).summary()[0]
    assert {row.name, *row.tied} == {"table", "embed.weight", "head.weight"}
    assert row.layer == "head"


@pytest.mark.parametrize("also", [("embed",), ("table",), ("*",)])
def test_a_weight_that_is_asked_for_is_named_by_the_layer_that_has_it_too(also: tuple[str, ...]) -> None:
    model = Named()
    layers = trace(model, (5,), dtype="int64")
    wq = waveq.attach(model, bits={"inner": 4, "head": 3}, also=also)
    assert wq.names == ("inner", "head")
    assert {layer.name for layer in layers if layer.has_weights} == set(wq.policy())


def test_a_holder_in_skip_is_refused_and_both_are_named() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 2))
    model[2].weight = model[0].weight
    with pytest.raises(ValueError, match=r"'0' and '2' hold the same weight, but '2' is in skip"):
        waveq.attach(model, bits=3, skip=("2",))
    assert waveq.attach(model, bits=3, skip=("0", "2")).names == ("3",)


def test_embeddings_that_cannot_read_a_quantised_weight_are_refused() -> None:
    for options in ({"max_norm": 1.0}, {"sparse": True}):
        model = nn.Sequential(nn.Embedding(5, 5, **options), nn.Linear(5, 5))  # type: ignore[arg-type]
        model[1].weight = model[0].weight
        with pytest.raises(ValueError, match=r"'1' and '0' hold the same weight, but '0' cannot read a quantised one"):
            waveq.attach(model, bits=3)


def _same_memory(model: nn.Sequential) -> str:
    model[2].weight = nn.Parameter(model[0].weight.detach())
    return "the weight of '2' shares its memory with '0.weight'"


def _transposed(model: nn.Sequential) -> str:
    model[2].weight = nn.Parameter(model[0].weight.detach().t())
    return "the weight of '2' shares its memory with '0.weight'"


def _buffer(model: nn.Sequential) -> str:
    model.register_buffer("row", model[0].weight.detach()[1])
    return "shares its memory with 'row'"


def _list(model: nn.Sequential) -> str:
    model.tied = [model[0].weight]  # type: ignore[assignment]
    return "also kept in the attribute 'tied' of the model"


@pytest.mark.parametrize("tie", [_same_memory, _transposed, _buffer, _list])
def test_readers_that_cannot_be_reached_are_refused(tie: Callable[[nn.Sequential], str]) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    message = tie(model)
    keys, kinds = list(model.state_dict()), [type(module) for module in model.modules()]
    with pytest.raises(ValueError, match=message):
        waveq.attach(model, bits=3)
    assert (list(model.state_dict()), [type(module) for module in model.modules()]) == (keys, kinds)


def test_a_holder_that_came_after_attach_is_found_before_anything_is_rounded() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Embedding(4, 4))
    wq = waveq.attach(model, bits=3)
    model[1].weight = model[0].parametrizations.weight.original  # type: ignore[union-attr]
    with pytest.raises(RuntimeError, match="'1' has come to hold the weight of layer '0' since attach"):
        wq.finalize()


def test_a_parametrisation_on_top_is_found_before_anything_is_rounded() -> None:
    class Twice(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return 2 * weight

    model = mlp()
    wq = waveq.attach(model, bits=3)
    nn.utils.parametrize.register_parametrization(model[2], "weight", Twice())
    with pytest.raises(RuntimeError, match="layer '2' is read as something else"):
        wq.finalize()

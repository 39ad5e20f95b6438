"""Signs of inputs: seen in the first batch, corrected by a later one, or told beforehand."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import waveq
from tests.ranks import in_two_ranks
from tests.training import mlp
from waveq.method.parametrization import parametrization_of
from waveq.quantizers import activation_quantizer_names

_GENERATOR = torch.Generator().manual_seed(0)
UNSIGNED, SIGNED = torch.rand(64, 4, generator=_GENERATOR), torch.rand(64, 4, generator=_GENERATOR) * 4 - 2


def network(**options: Any) -> tuple[nn.Sequential, waveq.WaveQ]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Identity())
    return model, waveq.attach(model, **{"bits": 8, "activation_bits": {"0": 8}, **options})


def seen_by(layer: nn.Module, x: Tensor) -> Tensor:
    seen: list[Tensor] = []
    hook = layer.register_forward_hook(lambda _m, args, _out: seen.append(args[0].detach()))
    layer(x)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize("method", activation_quantizer_names())
@pytest.mark.parametrize("training", [True, False])
def test_a_later_negative_value_gives_the_layer_a_signed_grid(method: str, training: bool) -> None:
    model, _ = network(activation_quantizer=method)
    model.train(training)
    model(UNSIGNED)
    assert parametrization_of(model[0]).signed_now == 0
    with pytest.warns(
        UserWarning, match=r"layer '0': its first inputs were not negative.*activation_signed=\{'0': True"
    ):
        values = seen_by(model[0], SIGNED / 2)
    # the worst case of a signed grid of 8 bits: LQ-Nets' levels are not evenly spaced
    assert float((values - SIGNED / 2).abs().max()) < 0.07
    assert int(parametrization_of(model[0]).activation_signed) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(SIGNED / 2)  # said once


def test_negatives_are_noticed_among_the_first_inputs_at_least_and_then_now_and_then() -> None:
    model, _ = network()
    for _ in range(40):
        model(torch.rand(2000, 4))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(16):
            model(torch.randn(2000, 4))
    assert len(told) == 1
    assert parametrization_of(model[0]).signed_now == 1


@pytest.mark.parametrize("signed", [True, False])
def test_a_sign_that_is_told_is_not_looked_for(signed: bool) -> None:
    for said in (signed, {"0": signed}):
        model, wq = network(activation_signed=said)
        model(UNSIGNED)
        values = seen_by(model[0], SIGNED / 2)
        assert bool((values < 0).any()) is signed
        assert wq.policy().provenance["inputs"]["0"]["signed"] is signed


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"activation_signed": True, "activation_bits": None}, "activation_signed=True needs activation_bits"),
        ({"activation_signed": {"O": True}}, "activation_signed names 'O', whose inputs are not quantised"),
    ],
)
def test_signs_that_cannot_be_told(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        network(**options)


def test_a_relu_that_is_left_out_is_no_negative_input() -> None:
    model = mlp()
    wq = waveq.attach(model, bits=4, activation_bits=4, activation_quantizer="range")
    for _ in range(3):
        (model(torch.randn(8, 6)).sum() + wq.penalty()).backward()
        wq.step()
    assert wq.relus_left_out == {"1": "2", "3": "4"}
    assert parametrization_of(model[2]).signed_now == 0


def _rank(rank: int, folder: Path) -> None:
    model, wq = network(activation_quantizer="lsq")
    model.eval()
    if rank == 0:
        model(SIGNED)  # one rank alone evaluates: it binds nobody, and waits for nobody
    model.train()
    warnings.simplefilter("ignore")
    found = []
    for batches in ((UNSIGNED, UNSIGNED), (UNSIGNED, SIGNED), (UNSIGNED, UNSIGNED)):
        model(batches[rank])
        wq.step()
        found.append(parametrization_of(model[0]).signed_now)
    fresh, _ = network()
    fresh((UNSIGNED, SIGNED)[rank])
    found.append(parametrization_of(fresh[0]).signed_now)
    torch.save(found, f"{folder}/{rank}.pt")


@pytest.mark.slow
def test_ranks_agree(tmp_path: Path) -> None:
    in_two_ranks(_rank, tmp_path)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    assert found[0] == found[1] == [0, 1, 1, 1]

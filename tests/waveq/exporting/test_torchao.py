"""Programs of torch.export with weights of torchao."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import waveq
import waveq.zoo
from waveq.exporting.torchao import POLICY_FILE
from waveq.layers import quantizable


@pytest.fixture
def torchao() -> Any:
    return pytest.importorskip("torchao", reason="needs waveq[export]")


def finalised(model: nn.Module, x: Tensor, bits: Any, **options: Any) -> waveq.Policy:
    wq = waveq.attach(model, bits=bits, skip=(), **options)
    model.train()(x)
    wq.finalize()
    model.eval()
    return wq.policy()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    model, x = nn.Sequential(nn.Linear(4, 4)), torch.randn(2, 4)
    policy = finalised(model, x, 3, quantizer="lsq")
    with pytest.raises(ImportError, match=r"needs the package torchao: pip install 'waveq\[export\]'"):
        waveq.export(model, policy, tmp_path / "net.pt2", to="torchao", sample=x)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"quantizer": "lsq", "granularity": "channel"},
        {"quantizer": "wrpn", "scale": "max", "activation_bits": 4, "activation_quantizer": "range"},
        {"quantizer": "dorefa", "scale": "max"},
    ],
)
def test_programs_hold_integers_and_run_at_any_length(torchao: Any, options: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = waveq.zoo.build("simplenet5"), torch.randn(4, 3, 32, 32)
    names = list(quantizable(model))
    policy = finalised(model, x, {name: 3 + i for i, name in enumerate(names)}, **options)
    made = waveq.export(model, policy, tmp_path / "net.pt2", to="torchao", sample=x)
    assert made.difference <= 1e-6 * made.largest
    extra = options["quantizer"] == "dorefa"
    assert made.carriers == {name: f"int{3 + i + extra} in int8" for i, name in enumerate(names)}
    program = torch.export.load(tmp_path / "net.pt2")
    with torch.no_grad():
        for length in (1, 7):
            more = torch.randn(length, 3, 32, 32)
            torch.testing.assert_close(program.module()(more), model(more), rtol=0.0, atol=1e-6 * made.largest)
    for name, each in waveq.integers(model, policy).items():
        codes = program.state_dict[f"{name}.parametrizations.weight.original0"]
        assert codes.dtype == torch.int8
        whole = 2 * each.codes.short() + 1 if extra else each.codes
        assert torch.equal(codes, whole.to(torch.int8))
    assert made.file_bytes == (tmp_path / "net.pt2").stat().st_size


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dorefa", "pact", "range", "lsq", "dsq", "lqnets"])
def test_inputs_of_every_method_are_carried(torchao: Any, method: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(*(layer for _ in range(3) for layer in (nn.Linear(8, 8), nn.ReLU()))), torch.randn(64, 8)
    policy = finalised(model, x, 4, quantizer="lsq", activation_bits=3, activation_quantizer=method)
    made = waveq.export(model, policy, tmp_path / "net.pt2", to="torchao", sample=x)
    assert made.difference == 0.0
    graph = torch.export.load(tmp_path / "net.pt2").graph
    clamps = sum(node.target is torch.ops.aten.clamp.default for node in graph.nodes)
    assert clamps == (2 if method in ("range", "lsq", "dsq") else 0)


@pytest.mark.slow
def test_a_program_says_its_policy_and_nothing_of_this_machine(torchao: Any, tmp_path: Path) -> None:
    model, x = nn.Sequential(nn.Linear(8, 4)), torch.full((2, 8), 0.123)
    policy = finalised(model, x, 4, quantizer="lsq")
    waveq.export(model, policy, tmp_path / "net.pt2", to="torchao", sample=x)
    extra = {POLICY_FILE: ""}
    program = torch.export.load(tmp_path / "net.pt2", extra_files=extra)
    assert json.loads(extra[POLICY_FILE]) == policy.to_json()
    assert program.example_inputs is None
    data = (tmp_path / "net.pt2").read_bytes()
    assert str(Path(__file__).parents[3]).encode() not in data
    assert x.numpy().tobytes() not in data


@pytest.mark.slow
def test_other_layers_stay_in_floating_point_by_name(torchao: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokens, head = nn.Embedding(9, 8), nn.Linear(8, 9, bias=False)
    head.weight = tokens.weight
    other = nn.Embedding(9, 8)
    encoder = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    model = nn.Sequential(tokens, encoder, nn.Conv1d(5, 5, 1), head, nn.Flatten(), nn.Linear(45, 4), Codes(), other)
    x = torch.randint(0, 9, (4, 5))
    made = waveq.export(
        model, finalised(model, x, 4, quantizer="lsq", also=("7",)), tmp_path / "net.pt2", to="torchao", sample=x
    )
    assert made.carriers == {
        "1.self_attn.in_proj_weight": "float32 (in_proj_weight of MultiheadAttention)",
        "1.self_attn.out_proj": "float32 (read by MultiheadAttention itself)",
        "1.linear1": "int4 in int8",
        "1.linear2": "int4 in int8",
        "2": "float32 (Conv1d)",
        "3": "float32 (tied to 0.weight)",
        "5": "int4 in int8",
        "7": "int4 in int8",
    }
    assert made.difference <= 1e-5 * made.largest


class Codes(nn.Module):
    """Numbers to token ids."""

    def forward(self, x: Tensor) -> Tensor:
        return (x > 0).long()


@pytest.mark.slow
def test_halves_are_exact(torchao: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).bfloat16(), torch.randn(4, 8).bfloat16()
    policy = finalised(model, x, 4, quantizer="lsq", granularity="channel")
    made = waveq.export(model, policy, tmp_path / "net.pt2", to="torchao", sample=x)
    assert made.difference == 0.0


class Fixed(nn.Module):
    """Four samples and no others."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.fc(x).view(4, 2, 2)
        return found


@pytest.mark.slow
def test_what_cannot_be_held_is_refused_and_nothing_is_written(torchao: Any, tmp_path: Path) -> None:
    def refused(match: str, model: nn.Module, x: Tensor, bits: int = 4, **options: Any) -> None:
        policy = finalised(model, x, bits, **{"quantizer": "lsq", **options})
        with pytest.raises(ValueError, match=match):
            waveq.export(model, policy, tmp_path / "net.pt2", to="torchao", sample=x)
        assert not list(tmp_path.iterdir())

    x = torch.randn(4, 4)
    refused("layer '0' takes 9 bits as whole numbers, and target 'torchao'", nn.Sequential(nn.Linear(4, 4)), x, 9)
    refused("takes 9 bits .* no zero", nn.Sequential(nn.Linear(4, 4)), x, 8, quantizer="dorefa", scale="max")
    refused("layer '0' is in float64", nn.Sequential(nn.Linear(4, 4)).double(), x.double())
    refused("holds the weights of Linear, Conv2d, Embedding alone", nn.Sequential(nn.Conv1d(4, 2, 1)), x[..., None])
    refused("torch.export does not take this network with any number of samples", Fixed(), x)

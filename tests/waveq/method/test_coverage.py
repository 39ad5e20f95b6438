"""What of a model is not controlled is said: the table, its totals, layers that never ran, other formulas."""

from __future__ import annotations

import re
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import waveq
from tests.training import FunctionalNet, batches, mlp, train


class Zoo(nn.Module):
    """Something of everything; ``spare`` never runs, ``raw`` is read past its module."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__()
        self.embed, self.norm = nn.Embedding(7, 6), nn.LayerNorm(6)
        self.mix = nn.Parameter(torch.eye(6))
        self.kept, self.raw, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.spare = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.embed(x)) @ self.mix
        return self.out(F.linear(self.kept(x), self.raw.weight))  # type: ignore[no-any-return]


def trained(model: nn.Module, **options: Any) -> waveq.WaveQ:
    wq = waveq.attach(model, **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(options.get("total_steps") or 3):
        loss = model(torch.randint(0, 7, (4,))).square().mean() + wq.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        wq.step()
    return wq


def test_a_row_for_every_parameter_tensor_says_whether_and_why_not() -> None:
    model = Zoo()
    expected = {name: tuple(p.shape) for name, p in model.named_parameters()}
    total = sum(p.numel() for p in model.parameters())
    wq = trained(model, bits={"raw": 3, "out": 5, "spare": 3}, skip=("kept",), activation_bits=4, quantizer="lsq")
    summary = wq.summary()
    rows = {row.name: row for row in summary}
    assert {name: row.shape for name, row in rows.items()} == expected
    assert sum(row.share for row in summary) == pytest.approx(1.0)
    assert {name: row.why for name, row in rows.items() if row.layer is None} == {
        "embed.weight": "embedding, also=('embed',)",
        "norm.weight": "one axis",
        "norm.bias": "bias",
        "mix": "no layer that is known, also=('mix',)",
        "kept.weight": "skip",
        "kept.bias": "bias",
        "raw.bias": "bias",
        "out.bias": "bias",
        "spare.bias": "bias",
    }
    raw, out = rows["raw.weight"], rows["out.weight"]
    assert (raw.module, raw.kind, raw.layer, raw.calls, raw.bits, raw.beta) == ("raw", "Linear", "raw", 3, 3, 2.0)
    assert (out.bits, out.input_bits, out.input_signed) == (5, 4, True)
    assert (raw.input_bits, raw.input_signed) == (4, None)
    assert rows["spare.weight"].calls == 0
    assert out.distance is not None
    assert 0.0 < out.distance < 0.5
    assert summary.share == pytest.approx((36 + 18 + 36) / total)
    text = str(summary)
    assert len(text.splitlines()) == len(expected) + 2
    assert text.splitlines()[-1] == summary.totals == repr(summary).splitlines()[-1]
    assert "no: skip" in text


def test_the_totals_stand_wherever_a_run_is_described() -> None:
    model = Zoo()
    wq = trained(model, bits=4, also=("embed",))
    told = f"{100 * wq.summary().share:.1f} % of"
    assert told in wq.forecast()
    assert f"{told} the weights" in repr(wq)
    policy = wq.policy()
    assert f"{told} the weights" in repr(policy)
    assert policy.provenance["coverage"]["in_floating_point"] == {"mix": "no layer that is known, also=('mix',)"}
    before = str(wq.summary())
    wq.finalize()
    assert str(wq.summary()).split("\n")[0] == before.split("\n")[0]
    assert told in repr(wq)


def test_layers_that_never_ran_and_inputs_that_never_came_are_named() -> None:
    wq = trained(Zoo(), bits=4, activation_bits=4)
    never, deaf = wq.diagnose()
    assert never.startswith("never ran: spare.")
    assert deaf.startswith("the inputs were never quantised in: raw.")
    assert trained(FunctionalLike(), bits=4, activation_bits=4).diagnose() == []


class FunctionalLike(Zoo):
    def forward(self, x: Tensor) -> Tensor:
        return self.spare(self.raw(self.kept(self.norm(self.embed(x)) @ self.mix)))[:, :1] * self.out(self.embed(x))  # type: ignore[no-any-return]


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["recommended", "paper"])
def test_layers_that_never_ran_do_not_pay_for_the_others(preset: str) -> None:
    class Spare(FunctionalNet):
        def __init__(self) -> None:
            super().__init__()
            self.spare = nn.ModuleList([nn.Linear(8, 8) for _ in range(5)])

    data = batches(60, shape=(3, 5, 5))
    found = []
    for model in (FunctionalNet(), Spare()):
        wq = waveq.attach(model, total_steps=60, target={"mean_bits": 3.0}, preset=preset)
        train(model, wq, torch.optim.SGD(model.parameters(), lr=0.05), data)
        bits = [value for name, value in wq.bits().items() if not name.startswith("spare")]
        found.append(sum(bits) / len(bits))
    assert found[1] <= 3.0
    assert found[0] == pytest.approx(found[1], abs=0.21)


# ---------------------------------------------------------------------- other formulas


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        w = self.weight
        w = (w - w.mean(dim=(1, 2, 3), keepdim=True)) / w.std(dim=(1, 2, 3), keepdim=True)
        return F.conv2d(x, w, self.bias)


class Padding(nn.Conv2d):
    """Pads for itself, as timm's Conv2dSame does."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), self.weight.to(x.dtype), self.bias)


class Added(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x.mean()


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (Padding, None),
        (Added, r"a forward of their own: 1 \(Added\)\. "),
        (Standardised, r"another formula before they are used: 1 \("),
    ],
)
def test_a_forward_of_its_own_is_warned_of_by_name(kind: Any, told: str | None) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), kind(4, 4, 3))
    waveq.attach(model, bits=3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model(torch.randn(2, 3, 8, 8))
    assert len(caught) == (told is not None)
    assert all(re.search(str(told), str(warning.message)) for warning in caught)


def test_a_forward_of_its_own_that_no_pass_has_shown_is_warned_of_at_the_first_step() -> None:
    wq = waveq.attach(nn.Sequential(nn.Conv2d(3, 4, 3), Added(4, 4, 3)), bits=3)
    wq.penalty()
    with pytest.warns(UserWarning, match=r"a forward of their own: 1 \(Added\)\. "):
        wq.step()


class Reads(nn.Module):
    """Multiplies with a formula of its layer's weight."""

    def __init__(self, formula: Any) -> None:
        super().__init__()
        self.layer, self.formula = nn.Linear(6, 6), formula
        self.low = nn.Parameter(torch.randn(6, 6))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.formula(self.layer.weight, self.low), self.layer.bias)


def _standardised(w: Tensor, _low: Tensor) -> Tensor:
    return F.batch_norm(w.reshape(1, 6, -1), None, None, training=True).reshape_as(w)


@pytest.mark.parametrize(
    ("formula", "named"),
    [
        (lambda w, low: w + low @ low, "add"),
        (_standardised, "batch_norm"),
        (lambda w, low: w * low, "mul"),
        (lambda w, low: torch.tanh(w), "tanh"),
        (lambda w, low: w.t().contiguous().t() * 0.5, None),
        (lambda w, low: torch.cat([w[:3], w[3:]]), None),
        (lambda w, low: w.to(torch.float64).to(torch.float32), None),
    ],
)
def test_another_formula_is_found_in_the_first_forward_pass(formula: Any, named: str | None) -> None:
    model = nn.Sequential(Reads(formula), nn.Linear(6, 2))
    waveq.attach(model, bits=3)
    hooks = len(model._forward_hooks)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            model(torch.randn(4, 6)).sum().backward()
    told = [str(warning.message) for warning in caught if "another formula" in str(warning.message)]
    assert len(told) == (named is not None)
    assert all(f"0.layer ({named}" in text or f"0.layer (__{named}" in text for text in told)
    assert (hooks, len(model._forward_hooks)) == (1, 0)  # one look, and no trace of it


def test_the_first_look_survives_an_error_of_the_model() -> None:
    model = mlp()
    waveq.attach(model, bits=3)
    with pytest.raises(RuntimeError):
        model(torch.randn(4, 5))
    model(torch.randn(4, 6)).sum().backward()
    assert not model._forward_hooks

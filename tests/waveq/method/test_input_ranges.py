"""Ranges of inputs: from the first batches, from ``calibrate``, or fixed with a warning."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import waveq
from waveq.method.parametrization import parametrization_of
from waveq.quantizers import activation_quantizer_names, make_activation_quantizer
from waveq.quantizers.ranged import nearest_range


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Sequential, Tensor, Tensor]:
    """A network whose hidden values reach far beyond 1."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    x = torch.randn(1000, 20) * 6
    y = (x @ torch.randn(20, 10)).argmax(1)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(120):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval(), x, y


def attached(trained: tuple[nn.Sequential, Tensor, Tensor], **options: Any) -> tuple[nn.Sequential, waveq.WaveQ]:
    import copy

    model = copy.deepcopy(trained[0])
    return model, waveq.attach(model, bits=8, activation_bits=8, **options)


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    return float((model(x).argmax(1) == y).float().mean())


@pytest.mark.slow
def test_the_default_keeps_a_trained_network(trained: tuple[nn.Sequential, Tensor, Tensor]) -> None:
    _, x, y = trained
    before = accuracy(*trained)
    for train_first in (False, True):
        model, wq = attached(trained)
        if train_first:
            model.train()(x[:100])
        assert accuracy(model.eval(), x, y) > before - 0.01
        wq.finalize()
        assert accuracy(model, x, y) > before - 0.01


def test_a_range_that_does_not_fit_is_told_once_with_the_argument_to_change(
    trained: tuple[nn.Sequential, Tensor, Tensor],
) -> None:
    model, wq = attached(trained, activation_quantizer="dorefa")
    with pytest.warns(
        UserWarning, match=r"layer '2': \d+% of its first inputs lie outside \[0, 1\].*=\"range\""
    ) as told:
        model(trained[1])
    assert len(told) == 1
    shares = wq.clipped_inputs()
    hidden = torch.relu(trained[0][0](trained[1])).detach()
    assert shares["2"] == pytest.approx(float((hidden > 1).float().mean()), abs=0.01)
    assert shares["4"] > 0.3


@pytest.mark.parametrize("method", activation_quantizer_names())
def test_calibration_sets_signs_and_ranges(trained: tuple[nn.Sequential, Tensor, Tensor], method: str) -> None:
    model, wq = attached(trained, activation_quantizer=method)
    _, x, y = trained
    model.train()
    found = waveq.calibrate(model, [(x[:500], y[:500]), [x[500:]]])
    assert model.training
    assert list(found) == ["2", "4"]
    hidden = torch.relu(trained[0][0](x)).detach()
    assert found["2"].signed is False
    # attach's own weights are rounded to 8 bits
    assert found["2"].most == pytest.approx(float(hidden.max()), rel=0.1)
    assert wq.clipped_inputs() == {name: each.clipped for name, each in found.items()}
    if method == "dorefa":
        assert found["2"].high == 1.0
        assert found["2"].clipped > 0.3
    else:
        assert accuracy(model.eval(), x, y) > 0.95 * accuracy(*trained)
    started = parametrization_of(model[2]).activation.state_dict()  # type: ignore[union-attr]
    model.train()(x[:50] * 100)
    if method != "lqnets":  # whose basis every training batch moves
        now = parametrization_of(model[2]).activation.state_dict()  # type: ignore[union-attr]
        assert all(torch.equal(now[key], started[key]) for key in started)


def test_a_sign_in_any_batch_counts_and_a_told_one_stays() -> None:
    for said, expected in ((None, True), (False, False)):
        model = nn.Sequential(nn.Linear(4, 3), nn.Identity())
        waveq.attach(model, bits=8, activation_bits={"0": 8}, activation_signed=said)
        found = waveq.calibrate(model, [torch.rand(8, 4), -torch.rand(8, 4)])
        assert found["0"].signed is expected
        assert (found["0"].low < 0) is expected


def test_models_that_take_keywords_get_dictionaries() -> None:
    class ByKeyword(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, *, x: Tensor, scale: float = 1.0) -> Tensor:
            return self.fc(x) * scale  # type: ignore[no-any-return]

    model = ByKeyword()
    waveq.attach(model, bits=8, activation_bits={"fc": 8})
    assert waveq.calibrate(model, [{"x": torch.full((2, 4), 3.0), "scale": 2.0}])["fc"].most == 3.0


def test_what_cannot_be_calibrated_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"no input quantisers: attach\(model, activation_bits="):
        waveq.calibrate(model, [torch.rand(2, 4)])
    waveq.attach(model, bits=4, activation_bits=4)
    with pytest.raises(ValueError, match="batches is empty"):
        waveq.calibrate(model, [])
    with pytest.raises(RuntimeError):
        waveq.calibrate(model, [torch.rand(2, 5)])
    assert parametrization_of(model[2]).observer is None
    assert model.training


# ---------------------------------------------------------------------- the method "range"


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("signed", [False, True])
def test_levels_are_dorefas_over_the_range(bits: int, signed: bool) -> None:
    torch.manual_seed(bits)
    ranged, dorefa = make_activation_quantizer("range", bits), make_activation_quantizer("dorefa", bits)
    x = torch.randn(4096) * 3 if signed else torch.randn(4096).abs() * 3
    y = ranged(x, signed=signed)
    r = ranged.range
    torch.testing.assert_close(y, dorefa(x / r, signed=signed) * r, rtol=0, atol=1e-4 * float(r))
    tops = float(x.abs().max()) * torch.linspace(0.02, 1, 99)
    best = min(float((dorefa(x / size, signed=signed) * size - x).square().mean()) for size in tops)
    assert float((y - x).square().mean()) <= 1.05 * best + 1e-6


def test_gradients_pass_inside_the_range_alone() -> None:
    ranged = make_activation_quantizer("range", 4)
    ranged(torch.linspace(0, 4, 50))
    for signed, expected in ((False, [0.0, 0.0, 0.0, 1.0, 0.0]), (True, [0.0, 1.0, 1.0, 1.0, 0.0])):
        x = torch.tensor([-9.0, -1.0, 0.0, 1.0, 9.0], requires_grad=True)
        ranged(x, signed=signed).sum().backward()
        assert x.grad is not None
        assert x.grad.tolist() == expected


def test_a_batch_in_evaluation_stands_in_until_training_begins() -> None:
    ranged = make_activation_quantizer("range", 8).eval()
    ranged(torch.zeros(4))
    first = ranged(torch.rand(99) * 5).max()
    assert (
        float(ranged(torch.rand(99) * 50).max())
        == pytest.approx(float(ranged.range))
        == pytest.approx(float(first), rel=0.1)
    )
    ranged.train()(torch.rand(99) * 50)
    assert float(ranged.range) > 40
    ranged(torch.rand(99))
    assert float(ranged.range) > 40


def test_the_nearest_range_of_one_bit_with_a_sign_is_the_mean_size() -> None:
    assert float(nearest_range(torch.tensor([-1.0, 3.0]), 1, signed=True)) == 2.0
    assert math.isfinite(float(nearest_range(torch.zeros(5), 4, signed=False)))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_small_inputs_and_large_ones_lie_on_the_same_levels(dtype: torch.dtype, signed: bool) -> None:
    """Small ones are rounded in torch, large ones by the compiled loop."""
    large = (3 * torch.randn(200_000, generator=torch.Generator().manual_seed(0))).to(dtype).requires_grad_()
    ranged = make_activation_quantizer("range", 3)
    ranged(large, signed=signed)
    parts = torch.cat([ranged(part, signed=signed) for part in large.split(1000)])
    whole = ranged(large, signed=signed)
    assert torch.equal(parts, whole)
    for made in (parts, whole):
        (gradient,) = torch.autograd.grad(made.float().sum(), large, retain_graph=True)
        values, end = large.detach().float(), ranged.range
        inside = (values > (-end if signed else 0.0)) & (values < end)
        assert torch.equal(gradient != 0, inside)

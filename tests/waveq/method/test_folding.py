"""Batch norm folded into the layer before it: the same function in evaluation, and a network that trains on."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import waveq
from tests.training import OPTIMIZERS, batches, train
from waveq.zoo import build


def stir(model: nn.Module, seed: int = 0) -> nn.Module:
    """Statistics and affine parameters as if it had been trained, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor, low, high in (
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.3, 2.0),
                (module.weight, 0.5, 1.5),
                (module.bias, -0.5, 0.5),
            ):
                if tensor is not None:
                    tensor.data.uniform_(low, high, generator=generator)
    return model.eval()


LAYERS: dict[str, tuple[nn.Module, nn.Module, tuple[int, ...]]] = {
    "conv": (nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6), (2, 4, 5, 5)),
    "no bias": (nn.Conv2d(4, 6, 3, stride=2, bias=False), nn.BatchNorm2d(6), (2, 4, 5, 5)),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4), nn.BatchNorm2d(8), (2, 4, 5, 5)),
    "one axis": (nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6), (2, 4, 9)),
    "three axes": (nn.Conv3d(2, 3, 2), nn.BatchNorm3d(3), (2, 2, 4, 4, 4)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), (2, 4, 5, 5)),
    "linear": (nn.Linear(4, 6), nn.BatchNorm1d(6), (3, 4)),
    "not affine": (nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6, affine=False), (3, 4)),
    "float64": (nn.Linear(4, 6, dtype=torch.float64), nn.BatchNorm1d(6, dtype=torch.float64), (3, 4)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_the_function_stays_in_evaluation(kind: str) -> None:
    layer, norm, shape = LAYERS[kind]
    model = stir(nn.Sequential(copy.deepcopy(layer), copy.deepcopy(norm), nn.ReLU()))
    weight = model[0].weight
    x = torch.randn(shape, dtype=weight.dtype)
    before = model(x)
    assert waveq.fold_batch_norm(model) == {"1": "0"}
    torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-5)
    assert isinstance(model[1], nn.Identity)
    assert model[0].weight is weight
    assert model[0].bias.requires_grad
    assert waveq.fold_batch_norm(model) == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg11-bn", "resnet20", "resnet18", "mobilenet-v2"])
def test_networks_of_the_zoo(name: str) -> None:
    sizes: dict[str, Any] = {} if name == "resnet18" else {"width": 0.25}
    model = stir(build(name, num_classes=10, in_channels=3, input_size=32, **sizes))
    x = torch.randn(2, 3, 32, 32)
    model.requires_grad_(requires_grad=False)
    norms = [each for each, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    before = model(x)
    assert list(waveq.fold_batch_norm(model)) == norms
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-5 * float(before.abs().max()))


def test_a_folded_network_is_trained_and_rounded() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 24, bias=False), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 3))
    wq = waveq.attach(model, bits=4, quantizer="lsq")
    train(model, wq, OPTIMIZERS["sgd"](model.parameters()), batches(20))
    policy = wq.policy()
    with pytest.raises(ValueError, match=r"the model is attached: fold before attach\(\), or after wq\.remove\(\)"):
        waveq.fold_batch_norm(model)
    wq.remove()
    waveq.fold_batch_norm(model)
    wq = waveq.attach(model, bits=policy)
    before = model[0].bias.detach().clone()
    train(model, wq, OPTIMIZERS["sgd"](model.parameters()), batches(20))
    wq.finalize()
    assert not torch.equal(model[0].bias, before)
    assert len(model[0].weight.unique()) <= 16


class Own(nn.Conv2d):
    """A layer of the user's."""


class Awkward(nn.Module):
    """Everything that stands in the way, and one pair that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.BatchNorm2d(3)
        self.twice = nn.Conv2d(3, 3, 1)
        self.after_twice = nn.BatchNorm2d(3)
        self.read = nn.Conv2d(3, 3, 1)
        self.after_read = nn.BatchNorm2d(3)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 1))
        self.after_normed = nn.BatchNorm2d(3)
        self.one, self.other = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.other.weight = self.one.weight
        self.after_one = nn.BatchNorm2d(3)
        self.plain = nn.Conv2d(3, 3, 1)
        self.stateless = nn.BatchNorm2d(3, track_running_stats=False)
        self.pool = nn.AvgPool2d(1)
        self.after_pool = nn.BatchNorm2d(3)
        self.before_again = nn.Conv2d(3, 3, 1)
        self.again = nn.BatchNorm2d(3)
        self.unused = nn.BatchNorm2d(3)
        self.own, self.after_own = Own(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.after_twice(self.twice(self.twice(self.first(x))))
        read = self.read(x)
        x = self.after_read(read) + read
        x = self.other(self.after_one(self.one(self.after_normed(self.normed(x)))))
        x = self.after_pool(self.pool(self.stateless(self.plain(x))))
        x = self.again(F.relu(self.again(self.before_again(x))))
        return self.after_own(self.own(x))  # type: ignore[no-any-return]


REASONS = {
    "first": "it follows x, which is no convolution or linear layer",
    "after_twice": "twice before it is called 2 times",
    "after_read": "read before it is read elsewhere too",
    "after_normed": "normed before it has a weight that is computed from other tensors",
    "after_one": "one before it shares its weight",
    "stateless": "it has no running statistics",
    "after_pool": "pool before it is a AvgPool2d, no convolution or linear layer",
    "again": "it is called 2 times",
    "unused": "its module is not called in this mode",
}


def test_what_cannot_be_folded_is_named_and_nothing_is_changed() -> None:
    model = stir(Awkward())
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="batch norms that cannot be folded") as refused:
        waveq.fold_batch_norm(model)
    for name, reason in REASONS.items():
        assert f"{name} ({reason})" in str(refused.value)
    assert "after_own (" not in str(refused.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    x = torch.randn(2, 3, 4, 4)
    expected = model(x)
    assert waveq.fold_batch_norm(model, skip=tuple(REASONS)) == {"after_own": "own"}
    torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)


def test_names_in_skip_are_checked_and_may_be_patterns() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2), nn.BatchNorm1d(2))
    with pytest.raises(ValueError, match="skip"):
        waveq.fold_batch_norm(model, skip=("7",))
    assert waveq.fold_batch_norm(model, skip=("[12]",)) == {"3": "2"}


class NormAct(nn.BatchNorm2d):
    """Batch norm with an activation in its module, as timm has it."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))


class Doubled(nn.BatchNorm2d):
    """What it does beside normalising is in no module of its."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Standardised(nn.Conv2d):
    """Takes any factor out of its weights again."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight / self.weight.square().mean((1, 2, 3), keepdim=True).sqrt()
        return F.conv2d(x, weight, self.bias, padding=self.padding)


class Same(nn.Conv2d):
    """Pads for itself."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (1, 1, 1, 1)))


def test_classes_derived_from_torchs_keep_what_they_do_beside() -> None:
    model = stir(nn.Sequential(Same(3, 6, 3, bias=False), NormAct(6), nn.Conv2d(6, 4, 1), NormAct(4)))
    x = torch.randn(2, 3, 5, 5)
    before = model(x)
    drawn = torch.get_rng_state()
    assert waveq.fold_batch_norm(model) == {"1": "0", "3": "2"}
    assert torch.equal(torch.get_rng_state(), drawn)
    torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-5)
    assert [name for name, _ in model[1].named_children()] == ["drop", "act"]
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (
            nn.Sequential(nn.Conv2d(3, 6, 3), Doubled(6)),
            r"1 \(0 and it are another function once they are folded \(Doubled\)\)",
        ),
        (nn.Sequential(Standardised(3, 6, 3), NormAct(6)), r"1 \(0 and it .* folded \(Standardised and NormAct\)\)"),
    ],
)
def test_classes_of_which_the_fold_is_another_function_are_refused(model: nn.Sequential, why: str) -> None:
    before = copy.deepcopy(stir(model).state_dict())
    with pytest.raises(ValueError, match=why):
        waveq.fold_batch_norm(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert waveq.fold_batch_norm(model, skip=("1",)) == {}


class Branching(nn.Module):
    """A forward that looks at numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) if x.sum() > 0 else x


def test_a_forward_that_cannot_be_followed_is_folded_in_parts() -> None:
    model = Branching()
    with pytest.raises(ValueError, match=r"the forward of Branching cannot be followed \(TraceError.*one by"):
        waveq.fold_batch_norm(model)
    assert waveq.fold_batch_norm(model.body) == {"1": "0"}
    assert waveq.fold_batch_norm(torch.compile(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))) == {"1": "0"}

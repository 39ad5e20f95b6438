from __future__ import annotations

import copy
import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torch.nn.utils.prune
from torch import Tensor, nn

import waveq
from tests.training import OPTIMIZERS, FunctionalNet, batches, mlp, train
from waveq.layers import QUANTIZABLE
from waveq.method.parametrization import parametrization_of
from waveq.method.schedules import three_phase
from waveq.quantizers import quantizer_class, quantizer_names

LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(4, 6), (2, 4)),
    "conv1d": (nn.Conv1d(4, 6, 3), (2, 4, 9)),
    "conv2d": (nn.Conv2d(4, 6, 3), (2, 4, 9, 9)),
    "conv3d": (nn.Conv3d(4, 6, 3), (2, 4, 5, 5, 5)),
    "transposed 1d": (nn.ConvTranspose1d(4, 6, 3), (2, 4, 9)),
    "transposed 2d": (nn.ConvTranspose2d(4, 6, 3), (2, 4, 9, 9)),
    "transposed 3d": (nn.ConvTranspose3d(4, 6, 3), (2, 4, 5, 5, 5)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2), (2, 4, 9, 9)),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4, bias=False), (2, 4, 9, 9)),
    "dilated": (nn.Conv2d(4, 6, 3, dilation=2, stride=2, padding="valid"), (2, 4, 9, 9)),
    "same padding": (nn.Conv2d(4, 6, 3, padding="same", padding_mode="reflect"), (2, 4, 9, 9)),
}


# ---------------------------------------------------------------------- every kind of layer


def test_the_list_of_layers_covers_all_kinds() -> None:
    assert {type(layer) for layer, _ in LAYERS.values()} == set(QUANTIZABLE)


@pytest.mark.filterwarnings("ignore:layer .* of its first inputs lie outside:UserWarning")
@pytest.mark.parametrize("kind", LAYERS)
def test_every_kind_of_layer_uses_its_quantised_weight(kind: str) -> None:
    layer, shape = copy.deepcopy(LAYERS[kind])
    model, x = nn.Sequential(layer), torch.randn(shape)
    plain = copy.deepcopy(model)
    wq = waveq.attach(
        model, bits=3, quantizer="wrpn", scale="max", activation_bits={"0": 8}, activation_quantizer="dorefa"
    )
    weight = layer.parametrizations.weight.original  # type: ignore[union-attr, index]
    step = float(weight.detach().abs().max()) / 3  # type: ignore[operator]
    plain[0].weight.data = (weight / step).round().clamp(-3, 3).detach() * step  # type: ignore[operator]
    expected = plain(torch.round(x.clamp(-1, 1) * 127) / 127)
    torch.testing.assert_close(model(x), expected)
    (model(x).square().mean() + wq.penalty()).backward()
    assert float(weight.grad.abs().sum()) > 0  # type: ignore[union-attr, operator]
    wq.finalize()
    torch.testing.assert_close(model(x), expected)


@pytest.mark.slow
@pytest.mark.parametrize("quantizer", quantizer_names())
def test_every_quantizer_trains_the_functional_network(quantizer: str) -> None:
    method = quantizer_class(quantizer)
    model = FunctionalNet()
    bits: Any = "learn" if method.learns_bits else min(3, method.bit_counts[-1])
    wq = waveq.attach(model, bits=bits, quantizer=quantizer, total_steps=12, activation_bits=4)
    train(model, wq, OPTIMIZERS["sgd"](model.parameters()), batches(12, shape=(3, 5, 5)))
    model.eval()
    x = torch.randn(4, 3, 5, 5)
    with torch.no_grad():
        attached = model(x)
        wq.finalize()
        torch.testing.assert_close(model(x), attached, rtol=1e-5, atol=1e-6)
    assert set(wq.policy()) == {"conv1", "depthwise", "grouped", "again", "fc"}


def test_the_users_classes_and_functions_stay() -> None:
    class Mine(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.weight) * 2

    model = nn.Sequential(Mine(4, 4), nn.BatchNorm1d(4))
    waveq.attach(model, bits=4)
    with pytest.warns(UserWarning, match=r"layers with a forward of their own: 0 \(Mine\)"):
        model(torch.randn(3, 4))
    assert isinstance(model[0], Mine)
    assert not torch.nn.utils.parametrize.is_parametrized(model[1])


# ---------------------------------------------------------------------- bits


def test_bits_as_number_mapping_and_policy() -> None:
    names = ["conv1", "depthwise", "grouped", "again", "fc"]
    assert waveq.attach(FunctionalNet(), bits=5).bits() == dict.fromkeys(names, 5)
    mapping = dict(zip(names, (8, 2, 3, 1, 9), strict=True))
    assert waveq.attach(FunctionalNet(), bits=mapping, quantizer="dorefa").bits() == mapping
    policy = waveq.Policy(mapping, quantizer="dorefa")
    assert waveq.attach(FunctionalNet(), bits=policy).bits() == mapping
    with pytest.raises(ValueError, match=r"'lsq' has 2 to 9 total bits, not 1 \(layer 'again'\); these have: 'dorefa'"):
        waveq.attach(FunctionalNet(), bits=mapping)
    assert waveq.attach(FunctionalNet(), bits=np.uint8(3)).bits() == dict.fromkeys(names, 3)  # type: ignore[arg-type]
    rows = np.array([[8, 2, 3, 4, 9]], dtype=np.uint8)
    assert waveq.attach(FunctionalNet(), bits=dict(zip(names, rows[0], strict=True))).bits()["fc"] == 9


def test_the_quantizer_is_the_users_or_the_policys_or_the_presets() -> None:
    plain = dict.fromkeys(("0", "2", "4"), 3)
    policy = waveq.Policy(plain, quantizer="wrpn")
    for bits, given, used in (
        (plain, None, "lsq"),
        (waveq.Policy(plain), None, "lsq"),
        (waveq.Policy(plain), "wrpn", "wrpn"),
        (policy, None, "wrpn"),
        (policy, "wrpn", "wrpn"),
        (dict(policy), "dorefa", "dorefa"),
    ):
        assert waveq.attach(mlp(), bits=bits, quantizer=given).settings.quantizer == used
    with pytest.raises(ValueError, match="quantizer='dorefa' contradicts bits, a policy made with 'wrpn'; leave"):
        waveq.attach(mlp(), bits=policy, quantizer="dorefa")
    for preset in ("paper", "released"):
        assert waveq.attach(mlp(), bits=plain, preset=preset).settings.quantizer == "dorefa"


def test_a_policy_brings_back_what_it_was_learned_with() -> None:
    learned = waveq.attach(FunctionalNet(), bits=3, skip=("conv1",), activation_bits={"fc": 4}).policy()
    model = FunctionalNet()
    wq = waveq.attach(model, bits=learned)
    assert wq.policy().skipped == ("conv1",)
    assert dict(wq.policy().activation_bits) == {"fc": 4}
    assert not torch.nn.utils.parametrize.is_parametrized(model.conv1)
    other = waveq.attach(FunctionalNet(), bits=learned, activation_bits={"again": 2})
    assert dict(other.policy().activation_bits) == {"again": 2}


def test_first_and_last_layer() -> None:
    wq = waveq.attach(FunctionalNet(), bits=3, first_last=8)
    assert wq.bits() == {"conv1": 8, "depthwise": 3, "grouped": 3, "again": 3, "fc": 8}
    model = FunctionalNet()
    wq = waveq.attach(model, total_steps=10, first_last=8)
    assert not parametrization_of(model.conv1).learns
    assert parametrization_of(model.again).learns
    # a skipped end stays skipped; the rule does not slide to the next layer
    assert waveq.attach(FunctionalNet(), bits=3, first_last=8, skip=("conv1",)).bits() == {
        "depthwise": 3,
        "grouped": 3,
        "again": 3,
        "fc": 8,
    }


def test_activation_bits_leave_the_networks_first_layer() -> None:
    wq = waveq.attach(FunctionalNet(), bits=3, activation_bits=4)
    assert dict(wq.policy().activation_bits) == {"depthwise": 4, "grouped": 4, "again": 4, "fc": 4}


def test_shared_modules_and_tied_weights_have_one_set_of_bits() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode, self.decode, self.out = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 2)
            self.decode.weight = self.encode.weight
            self.alias = self.out

        def forward(self, x: Tensor) -> Tensor:
            return self.alias(F.relu(self.decode(F.relu(self.encode(x)))))  # type: ignore[no-any-return]

    model = Tied()
    wq = waveq.attach(model, total_steps=30, first_last=None)
    assert set(wq.bits()) == {"encode", "out"}
    assert wq.policy().weight_counts == {"encode": 25, "out": 10}
    data = [(x[:, :5], y.clamp(max=1)) for x, y in batches(30)]
    train(model, wq, torch.optim.SGD(model.parameters(), lr=0.05), data)
    assert torch.equal(model.encode.weight, model.decode.weight)
    fresh = Tied()
    again = waveq.attach(fresh, total_steps=30)
    fresh.load_state_dict(model.state_dict())
    assert again.betas() == wq.betas()
    policy = wq.policy()
    wq.finalize()
    assert model.encode.weight is model.decode.weight
    assert isinstance(model.encode.weight, nn.Parameter)
    assert list(model.state_dict()) == list(Tied().state_dict())
    assert waveq.attach(model, bits=policy).bits() == dict(policy)
    assert waveq.attach(Tied(), bits={"decode": 3, "out": 4}).bits() == {"encode": 3, "out": 4}
    with pytest.raises(ValueError, match="share one weight must have the same bits, not 'encode' 3, 'decode' 4"):
        waveq.attach(Tied(), bits={"encode": 3, "decode": 4, "out": 4})


def test_tied_embeddings_follow() -> None:
    class Language(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.embed(x))  # type: ignore[no-any-return]

    model = Language()
    wq = waveq.attach(model, bits=2, quantizer="wrpn")
    model(torch.tensor([1, 2])).sum().backward()
    wq.finalize()
    assert model.head.weight is model.embed.weight


# ---------------------------------------------------------------------- schedules and strengths


def test_default_schedules() -> None:
    assert waveq.attach(mlp(), total_steps=100).settings.schedule.name == "three-phase"
    assert waveq.attach(mlp(), bits=4).settings.schedule.name == "constant"
    assert waveq.attach(mlp(), bits=4, total_steps=50, schedule="exponential").strengths()[0] == pytest.approx(
        0.1 * math.exp(-4)
    )


def test_a_schedule_of_ones_own() -> None:
    seen = []

    def profile(step: int) -> tuple[float, float]:
        seen.append(step)
        return 0.5, 0.25

    wq = waveq.attach(mlp(), total_steps=40, schedule=profile)
    assert wq.strengths() == (0.5, 0.25)
    wq.step()
    wq.strengths()
    assert seen[-1] == 1
    assert wq.settings.schedule.fall == 30

    own = three_phase(100, lambda_w=0.3, lambda_beta=0.1, rise=10, fall=90, sharpness=1)
    wq = waveq.attach(mlp(), total_steps=100, schedule=own)
    assert (wq.settings.schedule.rise, wq.settings.schedule.fall) == (10, 90)


def test_the_rate_of_beta_fits_phase_2_also_when_the_price_comes_late() -> None:
    late = waveq.attach(mlp(), total_steps=100, schedule=lambda step: (0.0, 0.1 if step > 60 else 0.0))
    flat = waveq.attach(mlp(), total_steps=100, schedule=lambda step: (0.0, 0.1))
    assert flat.settings.beta_lr == pytest.approx(12 / (0.1 * 75))
    assert flat.settings.beta_lr < late.settings.beta_lr < 10 * flat.settings.beta_lr
    never = waveq.attach(mlp(), total_steps=100, schedule=lambda step: (1.0, 0.0))
    assert math.isfinite(never.settings.beta_lr)
    assert never.settings.beta_lr < 100


@pytest.mark.parametrize("preset", ["paper", "released", "recommended"])
@pytest.mark.parametrize("total", [1, 2, 3, 7])
def test_very_short_runs_end_with_whole_bits(preset: str, total: int) -> None:
    model = mlp()
    wq = waveq.attach(model, total_steps=total, preset=preset)
    train(model, wq, torch.optim.SGD(model.parameters(), lr=0.01), batches(total + 2))
    assert not wq.learning
    wq.finalize()


# ---------------------------------------------------------------------- what is refused, and how


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {},
            r"needs total_steps, the optimiser steps of the whole run: attach\(model, total_steps=epochs \* len\(load",
        ),
        ({"bits": "lern"}, "bits must be \"learn\", a number of bits, or a mapping of layers to bits, not 'lern'"),
        ({"bits": "policy.json"}, r"for a saved policy: waveq\.Policy\.load"),
        ({"bits": 0}, "whole number from 1 to 9"),
        ({"bits": 10}, "whole number from 1 to 9"),
        ({"bits": 4.0}, "not 4.0"),
        ({"bits": None}, "not None"),
        ({"bits": {"0": 4, "2": 4}}, r"bits says nothing about: 4\. Give their bits, or leave them in floating point"),
        ({"bits": {"0": 4, "2": 4, "4": 4, "6": 4}}, "bits names '6', which is no layer to quantise"),
        ({"bits": {"0": 4, "2": 4, "4": 12}}, "the bits of layer '4' must be"),
        ({"bits": 4, "skip": ("fc",)}, r"skip names 'fc', which matches no layer \(known: 0, 2, 4\)"),
        (
            {"bits": 4, "skip": ("*",)},
            "nothing to quantise: the model has 3 Linear and convolution layers, all skipped",
        ),
        ({"bits": 4, "quantizer": "dorefaa"}, "unknown quantizer 'dorefaa'; did you mean 'dorefa'"),
        ({"bits": 4, "preset": "papr"}, "unknown preset 'papr'; did you mean 'paper'"),
        ({"bits": 4, "schedule": "constnt"}, "unknown schedule 'constnt'; did you mean 'constant'"),
        ({"bits": 4, "schedule": "three-phase"}, "the three-phase schedule needs total_steps"),
        ({"bits": 4, "scale": "mean"}, "scale must be one of"),
        ({"bits": 4, "first_last": 12}, "whole number from 1 to 9"),
        (
            {"bits": 4, "first_last": 8, "skip": ("0", "4")},
            "first_last=8 contradicts skip, which leaves out both '0' and '4'",
        ),
        (
            {"bits": {"0": 4, "2": 4, "4": 8}, "first_last": 8},
            "first_last=8 contradicts bits, which gives layer '0' 4 bits",
        ),
        ({"bits": 4, "activation_bits": 9}, "activation bits must be a whole number from 1 to 8, not 9"),
        ({"bits": 4, "activation_bits": {"1": 4}}, "activation_bits names '1', which is no layer to quantise"),
        ({"bits": 4, "activation_bits": {"2": 0}}, "activation bits of layer '2' must be"),
        ({"bits": 4, "activation_quantizer": "dorefa"}, "needs activation_bits"),
        ({"bits": 4, "lambda_w": -1.0}, "lambda_w must be a finite number >= 0, not -1.0"),
        ({"bits": 4, "lambda_w": math.nan}, "lambda_w must be a finite number"),
        ({"bits": 4, "lambda_w": "1"}, "lambda_w must be a finite number >= 0, not '1'"),
        ({"bits": 4, "lambda_beta": 0.1}, "lambda_beta is the price of a learned bit"),
        ({"bits": 4, "target": {"mean_bits": 4}}, "target drives learned bits"),
        ({"bits": 4, "total_steps": -5}, "total_steps must be a positive whole number"),
        ({"total_steps": 100.0}, "total_steps must be a positive whole number of optimiser steps, not 100.0"),
        ({"total_steps": 100, "lambda_beta": 0.0}, "lambda_beta must be above 0 when bits are learned"),
        ({"total_steps": 100, "lambda_beta": math.inf}, "lambda_beta must be a finite number"),
        ({"total_steps": 100, "beta_lr": -1.0}, "beta_lr must be a finite number"),
        ({"total_steps": 100, "target": {"mean_bit": 4}}, "the mean over layers is called mean_bits"),
        ({"total_steps": 100, "layer_costs": {"0": 1.0}}, "layer_costs has no cost for: 2, 4"),
        (
            {"total_steps": 100, "schedule": lambda step: (1.0, 1.0), "lambda_w": 0.1},
            "lambda_w contradict a schedule that is a callable",
        ),
        ({"total_steps": 100, "quantizer": "ttq"}, "'ttq' cannot learn bits"),
        ({"total_steps": 100, "scale_rule": "linear"}, "scale_rule must be one of 'exact', "),
    ],
)
def test_refusals_say_what_to_do_and_leave_the_model_alone(arguments: dict[str, Any], message: str) -> None:
    model = mlp()
    keys, kinds = list(model.state_dict()), [type(module) for module in model.modules()]
    with pytest.raises(ValueError, match=message):
        waveq.attach(model, **arguments)
    assert list(model.state_dict()) == keys
    assert [type(module) for module in model.modules()] == kinds
    waveq.attach(model, bits=4)  # nothing is left behind that would stand in the way


def test_wrong_names_are_told_the_nearest() -> None:
    with pytest.raises(
        ValueError, match="bits names 'depthwize', which is no layer to quantise; did you mean 'depthwise'"
    ):
        waveq.attach(FunctionalNet(), bits={"depthwize": 4})
    with pytest.raises(ValueError, match="skip names 'conv2', which matches no layer; did you mean 'conv1'"):
        waveq.attach(FunctionalNet(), bits=4, skip=("conv2",))


def test_skip_must_not_be_a_string() -> None:
    with pytest.raises(TypeError, match=r"write skip=\('conv1',\)"):
        waveq.attach(FunctionalNet(), bits=4, skip="conv1")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_weights_that_are_no_numbers(bad: float) -> None:
    model = mlp()
    with torch.no_grad():
        model[2].weight[3, 1] = bad
    with pytest.raises(ValueError, match="the weights of layer '2' hold NaN or infinity"):
        waveq.attach(model, bits=4)
    waveq.attach(model, bits=4, skip=("2",))


def test_models_that_cannot_be_attached() -> None:
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, not list"):
        waveq.attach([nn.Linear(2, 2)], bits=4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nothing to quantise: the model has 0 Linear"):
        waveq.attach(nn.Sequential(nn.ReLU()), bits=4)
    with pytest.raises(ValueError, match=r"a single layer, which has no name; wrap it in nn\.Sequential"):
        waveq.attach(nn.Linear(2, 2), bits=4)
    with pytest.raises(ValueError, match=r"layer '0' has no weights yet \(lazy module\): run one batch"):
        waveq.attach(nn.Sequential(nn.LazyLinear(3)), bits=4)
    model = mlp()
    waveq.attach(model, bits=4)
    with pytest.raises(ValueError, match="layer '0' already has a parametrised weight"):
        waveq.attach(model, bits=4)
    normed = nn.Sequential(torch.nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)))
    with pytest.raises(ValueError, match="already has a parametrised weight"):
        waveq.attach(normed, bits=4)
    pruned = nn.Sequential(nn.Linear(4, 4))
    torch.nn.utils.prune.l1_unstructured(pruned[0], "weight", 0.5)
    with pytest.raises(ValueError, match=r"the weight of layer '0' is computed from other tensors \(pruned"):
        waveq.attach(pruned, bits=4)


def test_weights_without_values_or_gradients() -> None:
    with torch.device("meta"):
        unborn = mlp()
    with pytest.raises(ValueError, match=r"the weights of layer '0' have no values yet \(meta device\)"):
        waveq.attach(unborn, bits=4)
    with torch.inference_mode():
        untrainable = mlp()
        with pytest.raises(RuntimeError, match=r"attach\(\) under torch\.inference_mode\(\)"):
            waveq.attach(mlp(), bits=4)
    with pytest.raises(ValueError, match=r"layer '0' were made under torch\.inference_mode\(\)"):
        waveq.attach(untrainable, bits=4)


def test_frozen_layers_can_be_quantised() -> None:
    model = mlp()
    model[0].weight.requires_grad_(False)
    wq = waveq.attach(model, total_steps=20)
    train(model, wq, torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.05), batches(20))
    assert wq.policy()["0"] <= 8


def test_layers_with_one_weight() -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for preset in ("paper", "recommended"):
            one = copy.deepcopy(model)
            wq = waveq.attach(one, total_steps=20, preset=preset)
            wq.forecast()
            train(one, wq, torch.optim.SGD(one.parameters(), lr=0.05), [(x[:, :1], y) for x, y in batches(20)])
            wq.finalize()
            assert all(bool(torch.isfinite(p).all()) for p in one.parameters())


def test_attention_is_quantised_where_it_uses_layers() -> None:
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    wq = waveq.attach(model, bits=4, quantizer="wrpn")
    assert set(wq.bits()) == {"self_attn.in_proj_weight", "self_attn.out_proj", "linear1", "linear2"}
    x = torch.randn(2, 5, 8)
    trained = model(x)
    (trained.square().mean() + wq.penalty()).backward()
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(x), trained.detach(), rtol=1e-4, atol=1e-5)
        wq.finalize()
        torch.testing.assert_close(model(x), trained.detach(), rtol=1e-4, atol=1e-5)

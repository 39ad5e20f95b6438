"""A scale for each output channel: levels, waves, records and refusals."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import waveq
from tests.ranks import in_two_ranks
from waveq.evaluate.finetune import PolicyFinetuner
from waveq.layers import Outputs, outputs_of
from waveq.quantizers import make_quantizer, quantize_weight

METHODS = [("dorefa", "max"), ("dorefa", "learned"), ("wrpn", "max"), ("wrpn", "learned"), ("lsq", None)]
LAYERS = [
    nn.Linear(5, 4),
    nn.Conv2d(4, 6, 3, groups=2),
    nn.Conv2d(4, 4, 3, groups=4),
    nn.Conv1d(3, 1, 2),
    nn.Conv2d(4, 4, 1, groups=4),  # one weight a channel
    nn.ConvTranspose2d(4, 6, 3, groups=2),
    nn.ConvTranspose1d(4, 3, 2),
]


def _uneven(layer: Any, seed: int = 0) -> Any:
    """The layer with channels of very different sizes."""
    layer = copy.deepcopy(layer)
    outputs, generator = outputs_of(layer), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        weight = torch.randn(layer.weight.shape, generator=generator)
        sizes = torch.logspace(-2.0, 0.0, outputs.count(weight))
        layer.weight.copy_(weight * outputs.spread(sizes, weight))
    return layer


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Flatten(),
        nn.Linear(8 * 16, 4),
    )  # fmt: skip
    with torch.no_grad():
        model[2].weight.mul_(torch.logspace(-3.0, 0.0, 8).reshape(8, 1, 1, 1))
    return model


def _train(model: nn.Module, wq: waveq.WaveQ, steps: int, *, first: int = 0, optimizer: Any = None) -> Any:
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        x, y = torch.randn(16, 1, 6, 6, generator=generator), torch.randint(4, (16,), generator=generator)
        loss = nn.functional.cross_entropy(model(x), y) + wq.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        wq.step()
    return optimizer


def _relative_errors(weight: Tensor, rounded: Tensor) -> Tensor:
    rows = Outputs()
    return rows.rows(rounded - weight).norm(dim=1) / rows.rows(weight).norm(dim=1)


def test_unequal_depthwise_channels_keep_their_shape_at_four_bits() -> None:
    """Issue: relative errors of 1 to 78 with one scale for the tensor, 0.05 to 0.08 with one for each channel."""
    weight = torch.randn(64, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    weight *= torch.logspace(-3.0, -1.0, 64).reshape(64, 1, 1, 1)
    weight[0] *= 1000.0
    small = weight[1:]
    by_tensor = _relative_errors(small, quantize_weight(weight, 4, quantizer="dorefa", scale="max")[1:])
    by_channel = _relative_errors(
        small, quantize_weight(weight, 4, quantizer="dorefa", scale="max", granularity="channel")[1:]
    )
    assert by_tensor.min() > 1.0
    assert by_tensor.max() > 70.0
    assert by_channel.max() < 0.1
    assert 0.05 < by_channel.median() < 0.08


@pytest.mark.parametrize(("method", "scale"), METHODS)
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: f"{type(layer).__name__}-{tuple(layer.weight.shape)}")
def test_a_channel_is_rounded_as_if_it_were_alone(layer: Any, method: str, scale: Any) -> None:
    """The slow twin: a layer's quantiser for each channel by itself; values, wave and gradients."""
    layer = _uneven(layer)
    outputs, options = outputs_of(layer), {"total_bits": 3, "scale": scale}
    weight = layer.weight.detach().clone().requires_grad_()
    bits, beta = torch.tensor(2.0), torch.tensor(1.7)
    together = make_quantizer(method, weight, granularity="channel", outputs=outputs, **options)  # type: ignore[arg-type]
    alone = [make_quantizer(method, row, **options) for row in outputs.rows(weight.detach())]  # type: ignore[arg-type]
    rows = outputs.rows(weight)
    ours, wave = together(weight, bits), together.coordinate(weight, beta)
    theirs = torch.stack([each(row, bits) for each, row in zip(alone, rows, strict=True)])
    their_wave = torch.stack([each.coordinate(row, beta) for each, row in zip(alone, rows, strict=True)])
    torch.testing.assert_close(outputs.rows(ours), theirs)
    torch.testing.assert_close(outputs.rows(wave), their_wave)
    above = torch.linspace(-1.0, 1.0, weight.numel()).reshape(rows.shape)
    ((outputs.rows(ours) + outputs.rows(wave)) * above).sum().backward()
    mine, weight.grad = weight.grad, None
    ((theirs + their_wave) * above).sum().backward()
    torch.testing.assert_close(mine, weight.grad)
    for name, parameter in together.named_parameters():
        assert parameter.shape == (len(alone),)
        expected = torch.stack([dict(each.named_parameters())[name].grad for each in alone])  # type: ignore[misc]
        torch.testing.assert_close(parameter.grad, expected)


@pytest.mark.parametrize(("method", "scale"), [("wrpn", "max"), ("lsq", "learned")])
def test_folding_batch_norm_changes_nothing_that_is_rounded_by_channel(method: str, scale: Any) -> None:
    """A factor for each channel goes through: Q(f_c w_c) = f_c Q(w_c). With one scale for the layer it does not."""
    weight = torch.randn(8, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    factors = torch.exp2(torch.arange(-4.0, 4.0)).reshape(8, 1, 1, 1)  # powers of two, which change no digit
    rounded: dict[str, Any] = {"quantizer": method, "scale": scale, "granularity": "channel"}
    assert torch.equal(quantize_weight(factors * weight, 3, **rounded), factors * quantize_weight(weight, 3, **rounded))
    rounded["granularity"] = "layer"
    other = quantize_weight(factors * weight, 3, **rounded) - factors * quantize_weight(weight, 3, **rounded)
    assert float(other.abs().max()) > 0.1


def test_one_bit_has_a_magnitude_for_each_channel() -> None:
    weight = torch.tensor([[1.0, -3.0], [0.1, 0.3]])
    method = make_quantizer("wrpn", weight, total_bits=1, scale="max", granularity="channel")
    torch.testing.assert_close(method.binarize(weight), torch.tensor([[2.0, -2.0], [0.2, 0.2]]))
    torch.testing.assert_close(method.binary_coordinate(weight), torch.tensor([[0.5, -1.0], [0.5, 1.0]]))


@pytest.mark.parametrize(("method", "scale"), METHODS)
def test_a_channel_of_zeros_stays_there(method: str, scale: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 3, bias=False))
    with torch.no_grad():
        model[0].weight[1] = 0.0
    wq = waveq.attach(model, bits=3, quantizer=method, scale=scale, granularity="channel", lambda_w=1.0)
    (model(torch.ones(2, 4)).sum() + wq.penalty()).backward()
    assert float(model[0].weight[1].detach().abs().max()) < 1e-10
    gradient = model[0].parametrizations.weight.original.grad
    assert bool(torch.isfinite(gradient).all())
    assert all(0.0 <= each <= 1.0 for each in wq.wave().values())


@pytest.mark.slow
@pytest.mark.parametrize(("method", "scale"), METHODS)
def test_finalize_leaves_few_values_in_each_channel_and_computes_the_same(method: str, scale: Any) -> None:
    model = _network()
    wq = waveq.attach(model, total_steps=20, quantizer=method, scale=scale, granularity="channel")
    _train(model, wq, 20)
    assert not wq.learning
    x = torch.randn(3, 1, 6, 6)
    before, bits = model.eval()(x), wq.bits()
    assert [row.scales for row in wq.summary() if row.layer] == [8, 8, 4]
    copied = copy.deepcopy(model)
    wq.finalize_copy(copied)
    wq.finalize()
    assert torch.equal(model(x), before)
    assert torch.equal(copied(x), before)
    for name, many in bits.items():
        rows = model.get_submodule(name).weight.flatten(1)  # type: ignore[operator, union-attr]
        assert max(row.unique().numel() for row in rows) <= 2**many
    spread = model[2].weight.flatten(1).abs().amax(dim=1)
    assert spread.max() / spread.min() > 20  # each channel has kept its own range


@pytest.mark.parametrize("method", ["dorefa", "wrpn"])
def test_the_wave_is_zero_on_the_levels_of_each_channel(method: str) -> None:
    model = nn.Sequential(_uneven(nn.Linear(30, 6)))
    wq = waveq.attach(model, bits=3, quantizer=method, granularity="channel")
    assert wq.wave()["0"] > 0.1
    layer = wq._layers["0"]
    with torch.no_grad():
        levels = layer.state.quantizer.coordinate(layer.weight, torch.tensor(2.0))
        assert float(levels.abs().max()) == pytest.approx(1.0)
        assert Outputs().rows(levels).abs().amax(dim=1).tolist() == pytest.approx([1.0] * 6)
        if method == "wrpn":  # DoReFa's levels of w are not fixed points of its tanh
            layer.weight.copy_(model[0].weight)
            assert wq.wave()["0"] == pytest.approx(0.0, abs=1e-9)


def test_attention_recurrent_layers_and_embeddings_have_scales_by_row() -> None:
    model = nn.ModuleDict(
        {"attention": nn.MultiheadAttention(4, 2), "lstm": nn.LSTM(4, 3), "words": nn.Embedding(7, 4)}
    )
    wq = waveq.attach(model, bits=3, also=("words",), granularity="channel")
    scales = {row.layer: row.scales for row in wq.summary() if row.layer}
    assert scales == {
        "attention.in_proj_weight": 12, "attention.out_proj": 4, "lstm.weight_ih_l0": 12, "lstm.weight_hh_l0": 12,
        "words": 7,
    }  # fmt: skip


def test_experts_keep_one_scale_each() -> None:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.Parameter(torch.stack([torch.randn(8, 4), 100 * torch.randn(8, 4)]))

    for granularity in ("layer", "channel"):
        wq = waveq.attach(Experts(), bits=3, also=("up",), granularity=granularity)  # type: ignore[arg-type]
        assert [row.scales for row in wq.summary() if row.layer] == [2]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"quantizer": "lqnets"}, "'lqnets' has no granularity 'channel': its levels differ between output channels"),
        ({"quantizer": "dsq"}, "'dsq' has no granularity 'channel'; leave granularity out, or take 'dorefa', 'wrpn'"),
        ({"quantizer": "ttq", "bits": 2}, "'ttq' has no granularity 'channel'"),
        (
            {"quantizer": "dorefa", "scale": "none"},
            "scale 'none' has no scale: take scale 'max' or 'learned' with quantizer 'dorefa'",
        ),
        ({"scale": "none"}, "scale 'none' has no scale: take scale 'learned' with quantizer 'lsq'"),
        ({"preset": "released"}, "scale 'none' has no scale"),
    ],
)
def test_methods_without_a_scale_for_each_channel_are_refused(options: dict[str, Any], complaint: str) -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    with pytest.raises(ValueError, match=complaint):
        waveq.attach(model, **{"bits": 3, "granularity": "channel", **options})
    assert type(model[0]) is nn.Linear


def test_an_unknown_granularity_is_refused() -> None:
    with pytest.raises(ValueError, match="granularity must be one of 'layer', 'channel', not 'chanel'; did you mean"):
        waveq.attach(nn.Sequential(nn.Linear(3, 2)), bits=3, granularity="chanel")  # type: ignore[arg-type]


def test_a_policy_says_what_its_scales_belong_to(tmp_path: Path) -> None:
    wq = waveq.attach(_network(), bits=3, granularity="channel")
    policy = wq.policy()
    policy.save(tmp_path / "policy.json")
    loaded = waveq.Policy.load(tmp_path / "policy.json")
    assert loaded.granularity == "channel"
    assert not loaded.scales  # no layer has one distance between its levels
    assert waveq.attach(_network(), bits=loaded).settings.granularity == "channel"
    assert waveq.attach(_network(), bits=dict(loaded)).settings.granularity == "layer"
    with pytest.raises(ValueError, match="granularity='layer' contradicts bits, a policy made with 'channel'"):
        waveq.attach(_network(), bits=loaded, granularity="layer")


def test_a_policy_is_evaluated_on_the_levels_that_it_was_made_for() -> None:
    x, y = torch.randn(40, 1, 6, 6), torch.randint(4, (40,))
    model = _network()
    wq = waveq.attach(model, bits=3, granularity="channel")
    policy = wq.policy()
    evaluator = waveq.PolicyEvaluator(_network(), (x, y), granularity="channel")
    assert torch.equal(torch.from_numpy(evaluator.predictions([policy])[0]), model.eval()(x).argmax(dim=1))
    with pytest.raises(ValueError, match=r"granularity='channel', policies are evaluated with 'layer'"):
        waveq.PolicyEvaluator(_network(), (x, y)).accuracy([policy])
    with pytest.raises(ValueError, match="scale 'none' has no scale"):
        waveq.PolicyEvaluator(_network(), (x, y), quantizer="dorefa", granularity="channel", scale="none")


@pytest.mark.slow
@pytest.mark.parametrize("together", [1, 2])
def test_policies_are_finetuned_by_channel(together: int) -> None:
    x, y = torch.randn(32, 1, 6, 6), torch.randint(4, (32,))
    options: dict[str, Any] = {"epochs": 1, "batch_size": 8, "lr": 0.05, "together": together, "quantizer": "lsq"}
    policies = [{"0": 2, "2": 2, "5": 2}, {"0": 3, "2": 3, "5": 3}]
    data = ((x, y), (x, y))
    tuner = PolicyFinetuner(_network(), *data, granularity="channel", scale="learned", **options)
    alone = PolicyFinetuner(_network(), *data, granularity="channel", scale="learned", **{**options, "together": 1})
    assert tuner.accuracy(policies).tolist() == pytest.approx(alone.accuracy(policies).tolist(), abs=0.04)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dorefa", "lsq"])
def test_a_run_goes_on_from_its_checkpoint_bit_for_bit(method: str) -> None:
    def start() -> tuple[nn.Module, waveq.WaveQ]:
        model = _network()
        return model, waveq.attach(model, total_steps=16, quantizer=method, granularity="channel")

    whole, wq = start()
    _train(whole, wq, 16)
    first, wq = start()
    optimizer = _train(first, wq, 7)
    kept = copy.deepcopy((first.state_dict(), optimizer.state_dict()))
    second, wq = start()
    second.load_state_dict(kept[0])
    resumed = torch.optim.SGD(second.parameters(), lr=0.05, momentum=0.9)
    resumed.load_state_dict(kept[1])
    _train(second, wq, 9, first=7, optimizer=resumed)
    for (name, one), other in zip(whole.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.slow
def test_a_search_by_channel_is_rewound_by_channel() -> None:
    model = _network()
    start = copy.deepcopy(model.state_dict())
    wq = waveq.attach(model, total_steps=12, quantizer="lsq", granularity="channel")
    _train(model, wq, 12)
    wq = waveq.rewind(wq, start, total_steps=20)
    assert wq.settings.granularity == "channel"
    fresh = waveq.attach(_network(), bits=wq.policy())
    ours, theirs = (handle._layers["2"].state.quantizer.step for handle in (wq, fresh))
    assert torch.equal(ours, theirs)  # steps start again from the float weights


def test_a_checkpoint_of_another_granularity_is_refused() -> None:
    by_layer, by_channel = _network(), _network()
    waveq.attach(by_layer, bits=3)
    waveq.attach(by_channel, bits=3, granularity="channel")
    with pytest.raises(RuntimeError, match="granularity 'layer' there, 'channel' here"):
        by_channel.load_state_dict(by_layer.state_dict())


def test_copies_averages_and_rounded_blocks_follow() -> None:
    model = _network()
    wq = waveq.attach(model, bits=3, quantizer="wrpn", granularity="channel")
    average = AveragedModel(model)
    _train(model, wq, 2)
    average.update_parameters(model)
    wq.finalize_copy(average)
    weight = average.module[2].weight
    assert max(row.unique().numel() for row in weight.flatten(1)) <= 7
    twin, x = copy.deepcopy(model), torch.randn(2, 1, 6, 6)
    with torch.no_grad():
        assert torch.equal(twin.eval()(x), model.eval()(x))
        assert model[2].weight is model[2].weight  # kept while nothing changes


@pytest.mark.slow
def test_the_float_road_fits_a_range_to_each_channel() -> None:
    model = _network()
    wq = waveq.attach(model, bits=3, total_steps=40, forward="float", quantizer="wrpn", granularity="channel")
    _train(model, wq, 40)
    bounds = wq._layers["2"].state.bound
    assert bounds.shape == (8,)
    original = model[2].parametrizations.weight.original.detach()
    assert bool((original.flatten(1).abs().amax(dim=1) <= bounds + 1e-6).all())
    assert float(bounds.max() / bounds.min()) > 20
    with wq.rounded():
        inside = model[2].weight.detach().clone()
    wq.finalize()
    assert torch.equal(model[2].weight, inside)
    assert max(row.unique().numel() for row in inside.flatten(1)) <= 7


def test_a_fitted_range_is_the_best_of_each_channel_alone() -> None:
    from waveq.method.float_road import find_bound

    layer = _uneven(nn.Linear(50, 3, bias=False))
    rows = [nn.Linear(50, 1, bias=False) for _ in range(3)]
    for alone, row in zip(rows, layer.weight.detach(), strict=True):
        alone.weight.data = row[None]
    found = []
    for module in (layer, *rows):
        wq = waveq.attach(nn.Sequential(module), bits=2, quantizer="wrpn", scale="max", granularity="channel")
        found.append(find_bound(wq._layers["0"]))
    torch.testing.assert_close(found[0], torch.cat(found[1:]))


def test_lsq_shortens_each_channel_s_range_with_its_bits() -> None:
    weight = _uneven(nn.Linear(40, 5)).weight.detach()
    together = make_quantizer("lsq", weight, granularity="channel")
    alone = [make_quantizer("lsq", row) for row in weight]
    for each, part in ((together, weight), *zip(alone, weight, strict=True)):
        each.follow_bits(part, 8, 3)
    torch.testing.assert_close(together.step.detach(), torch.stack([each.step.detach() for each in alone]))  # type: ignore[operator, arg-type]
    for each, part in ((together, weight), *zip(alone, weight, strict=True)):
        each.restart(part, 2)
    torch.testing.assert_close(together.step.detach(), torch.stack([each.step.detach() for each in alone]))  # type: ignore[operator, arg-type]


# ---------------------------------------------------------------------- processes


def _after_three_steps(quantizer: str, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
    """All parameters after three steps on a part of each batch."""
    model = _network()
    wq = waveq.attach(model, bits=4, quantizer=quantizer, granularity="channel", total_steps=40)
    runs: Any = nn.parallel.DistributedDataParallel(model) if world > 1 else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        x, y = torch.randn(16, 1, 6, 6, generator=generator), torch.randint(4, (16,), generator=generator)
        loss = nn.functional.cross_entropy(runs(x[rank::world]), y[rank::world]) + wq.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        wq.step()
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def _rank(rank: int, folder: Path) -> None:
    found = {quantizer: _after_three_steps(quantizer, rank, 2) for quantizer in ("lsq", "wrpn")}
    torch.save(found, f"{folder}/{rank}.pt")


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    """To rounding, at first: over epochs a weight beside a threshold falls to the other side, and the runs part."""
    in_two_ranks(_rank, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for quantizer, theirs in first.items():
        alone = _after_three_steps(quantizer)
        assert any(name.endswith(".step") for name in alone) == (quantizer == "lsq")
        for name, value in alone.items():
            assert torch.equal(theirs[name], second[quantizer][name])
            torch.testing.assert_close(theirs[name], value, rtol=1e-5, atol=1e-6 * float(value.abs().max()))

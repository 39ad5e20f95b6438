"""Batch norm's statistics, estimated again."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import waveq
from waveq.method.batch_norm import reestimate_batch_norm
from waveq.train.config import parse_config
from waveq.train.materials import make_dataset, make_network
from waveq.train.run import train
from waveq.train.run_folder import load_weights
from waveq.train.stage import make_loader


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4, momentum=0.3),
        nn.Dropout(0.5),
        nn.Conv2d(4, 3, 1),
        nn.BatchNorm2d(3),
    )
    return nn.Sequential(*layers)


def batches(count: int = 4) -> list[Tensor]:
    return [3.0 + 2.0 * x for x in torch.randn(count, 8, 2, 6, 6, generator=torch.Generator().manual_seed(1))]


def test_it_is_the_average_over_batches_layer_by_layer() -> None:
    """The slow twin: both layers by hand, the second on what the first makes of a batch with its own statistics."""
    model, data = network(), batches()
    assert reestimate_batch_norm(model, data) == 2
    first = [model[0](x) for x in data]

    def of_a_batch(x: Tensor) -> tuple[Tensor, Tensor]:
        return x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3))

    second = []
    for x in first:
        mean, var = x.mean(dim=(0, 2, 3), keepdim=True), x.var(dim=(0, 2, 3), keepdim=True, correction=0)
        second.append(model[3]((x - mean) / (var + 1e-5).sqrt()))
    for norm, inputs in ((model[1], first), (model[4], second)):
        means, variances = zip(*(of_a_batch(x) for x in inputs), strict=True)
        torch.testing.assert_close(norm.running_mean, torch.stack(means).mean(0))
        torch.testing.assert_close(norm.running_var, torch.stack(variances).mean(0))
        assert norm.num_batches_tracked == len(data)


def test_all_else_is_put_back_and_dropout_draws_nothing() -> None:
    model = network()
    model[3].eval()
    modes = [module.training for module in model.modules()]
    weights = copy.deepcopy(dict(model.named_parameters()))
    random = torch.get_rng_state()
    reestimate_batch_norm(model, [(x, "label") for x in batches()])
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model.modules()] == modes
    assert (model[1].momentum, model[4].momentum) == (0.3, 0.1)
    assert all(torch.equal(parameter, weights[name]) for name, parameter in model.named_parameters())


def test_the_order_of_batches_and_the_past_do_not_matter() -> None:
    model, data = network(), batches()
    reestimate_batch_norm(model, data)
    first = copy.deepcopy(model.state_dict())
    model.train()
    model(torch.randn(8, 2, 6, 6) * 50)
    reestimate_batch_norm(model, reversed(data))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, first[name])


def test_without_batch_norm_no_batch_is_read() -> None:
    def never() -> object:
        raise AssertionError

    assert reestimate_batch_norm(nn.Linear(2, 2), iter(never, None)) == 0
    assert reestimate_batch_norm(nn.BatchNorm1d(2, track_running_stats=False), iter(never, None)) == 0


@pytest.mark.parametrize("bad", [[], [torch.zeros(8, 2, 6, 6), torch.zeros(8, 5, 6, 6)]])
def test_a_failure_leaves_the_statistics_as_they_were(bad: list[Tensor]) -> None:
    model = network()
    reestimate_batch_norm(model, batches())
    before = copy.deepcopy(model.state_dict())
    model[1].momentum = 0.2
    with pytest.raises((ValueError, RuntimeError)):
        reestimate_batch_norm(model, bad)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model[1].momentum == 0.2


def test_rounded_weights_get_their_own_statistics() -> None:
    model, data = network(), batches()
    reestimate_batch_norm(model, data)
    of_float = model[4].running_var.clone()
    wq = waveq.attach(model, bits=2, forward="float", total_steps=10)
    with wq.rounded():
        reestimate_batch_norm(model, data)
    inside = model[4].running_var.clone()
    assert not torch.allclose(inside, of_float, rtol=1e-3)
    wq.finalize()
    reestimate_batch_norm(model, data)
    torch.testing.assert_close(model[4].running_var, inside)


def of_norms(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in weights.items() if name.endswith(("running_mean", "running_var"))}


@pytest.mark.slow
def test_a_run_estimates_over_the_batches_that_its_config_says(tmp_path: Path) -> None:
    fields = {"model": "resnet20", "width": 0.25, "dataset": "digits", "bits": 2, "epochs": 1, "batch_size": 128}
    kept, new = (
        parse_config(
            {**fields, "reestimate_bn": count, "run_dir": tmp_path / str(count), "threads": 1, "progress": False}
        )
        for count in (0, 12)
    )
    for config in (kept, new):
        train(config, say=lambda _line: None)
    trained, final = load_weights(kept.folder / "wave" / "weights.pt"), load_weights(kept.folder / "weights.pt")
    assert all(torch.equal(value, of_norms(trained)[name]) for name, value in of_norms(final).items())
    dataset = make_dataset(new)
    network = make_network(new, dataset)
    network.load_state_dict(final)  # the same weights, rounded
    loader = make_loader(new, dataset, "batch norm")
    assert len(loader) < 12, "more than one pass"
    reestimate_batch_norm(network, itertools.islice(itertools.chain(loader, loader), 12))
    final = load_weights(new.folder / "weights.pt")
    assert of_norms(final)
    for name, value in of_norms(network.state_dict()).items():
        torch.testing.assert_close(final[name], value)
        assert not torch.equal(value, trained[name])

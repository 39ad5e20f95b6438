"""FSDP2: two processes that hold shards take the steps of two that hold whole weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import waveq
from tests.ranks import in_two_ranks

_RUNS: dict[str, dict[str, Any]] = {
    "lsq": {"quantizer": "lsq", "activation_bits": 4},
    "dorefa": {"quantizer": "dorefa", "scale": "max"},
    "wrpn": {"quantizer": "wrpn", "bits": 3},
    "midrise": {"quantizer": "midrise", "target": {"mean_bits": 3.5}},
    "paper": {"preset": "paper"},
}
_STEPS = 12


def network() -> nn.Sequential:
    """Rows that two processes cannot share evenly, a convolution, and a layer of one row for two."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Flatten(), nn.Sequential(nn.Linear(80, 7), nn.ReLU()), nn.Linear(7, 3)
    ).double()


def trained(options: dict[str, Any], rank: int, *, sharded: bool) -> dict[str, Any]:
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
    from torch.distributed.fsdp import fully_shard

    model = network()
    wq = waveq.attach(model, total_steps=_STEPS, **options)
    if sharded:
        fully_shard(model[3], ignored_params=wq.scales())
        fully_shard(model, ignored_params=wq.scales())
        runs: nn.Module = model
    else:
        runs = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    penalties = []
    for step in range(_STEPS):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(8, 1, 6, 6, generator=generator, dtype=torch.float64)
        y = torch.randint(3, (8,), generator=generator)
        optimizer.zero_grad()
        penalty = wq.penalty() if step % 2 else None  # before the forward pass, and after it
        loss = nn.functional.cross_entropy(runs(x[rank::2]), y[rank::2])
        penalty = wq.penalty() if penalty is None else penalty
        (loss + penalty).backward()
        optimizer.step()
        wq.step()
        penalties.append(float(penalty.detach()))
    with torch.no_grad():
        seen = model.eval()(torch.ones(2, 1, 6, 6, dtype=torch.float64))
    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    return {
        "state": {name: value for name, value in state.items() if isinstance(value, torch.Tensor)},
        "policy": dict(wq.policy()),
        "scales": dict(wq.policy().scales),
        "wave": wq.wave(),
        "penalties": penalties,
        "seen": seen,
        "refused": _refused(wq) if sharded else "",
    }


def _refused(wq: waveq.WaveQ) -> str:
    try:
        wq.finalize()
    except RuntimeError as error:
        return str(error)
    return ""


def _rank(rank: int, folder: Path) -> None:
    for name, options in _RUNS.items():
        for sharded in (False, True):
            torch.save(trained(options, rank, sharded=sharded), f"{folder}/{name}-{sharded}-{rank}.pt")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_shards_take_the_steps_of_whole_weights(tmp_path: Path) -> None:
    in_two_ranks(_rank, tmp_path)
    for name, options in _RUNS.items():
        whole, shards, others = (torch.load(tmp_path / f"{name}-{run}.pt") for run in ("False-0", "True-0", "True-1"))
        assert "full_state_dict" in shards["refused"]
        assert shards["penalties"][:10] == pytest.approx(whole["penalties"][:10], rel=1e-6)
        torch.testing.assert_close(shards["state"], others["state"], rtol=0, atol=0)
        if name == "paper":  # whose wave takes differences of the last bit apart, tenfold a step
            continue
        assert shards["policy"] == whole["policy"] == others["policy"]
        for part in ("penalties", "scales", "wave", "seen", "state"):
            torch.testing.assert_close(shards[part], whole[part], rtol=1e-6, atol=1e-8)
        twin = network()
        wq = waveq.attach(twin, total_steps=_STEPS, **options)
        twin.load_state_dict(shards["state"], strict=False)
        wq.finalize()
        assert twin[4].weight.unique().numel() <= 2 ** shards["policy"]["4"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"quantizer": "lsq", "granularity": "channel"}, "granularity='channel'"),
        ({"forward": "float", "bits": 3}, 'forward="float"'),
        ({"quantizer": "dsq", "bits": 3}, "quantizer='dsq'"),
    ],
)
def test_what_needs_whole_weights_is_refused_by_name(one_rank: None, options: dict[str, Any], named: str) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = network()
    wq = waveq.attach(model, total_steps=9, **options)
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)), ignored_params=wq.scales())
    with pytest.raises(TypeError, match=re.escape(named) + " with sharded weights.*shard the plain network"):
        model(torch.ones(2, 1, 6, 6, dtype=torch.float64))


def test_scales_that_are_sharded_too_are_refused(one_rank: None) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = network()
    wq = waveq.attach(model, quantizer="dorefa", bits=3)
    wq._all[0].state.register_parameter("beside", nn.Parameter(torch.ones(2)))  # LSQ's, single numbers, torch refuses
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    with pytest.raises(TypeError, match=r"ignored_params=wq\.scales\(\)"):
        wq.penalty()

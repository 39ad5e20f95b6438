"""What the pages' blocks of Python take for granted: a small network, its data, prices of its bits, by their names."""

from __future__ import annotations

import copy
import itertools
import re
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["finalised_state", "given"]


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(4, 6, 3, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(3)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(6 * 9, 3)

    def forward(self, x: torch.Tensor) -> Any:
        return self.fc(self.flatten(self.pool(self.conv2(self.relu(self.norm(self.conv1(x)))))))


def given(code: str) -> dict[str, Any]:
    """Names for one block, made anew: nothing that an earlier block did to a model is left.

    Args:
        code: the block; where it begins with a handle `wq`, the model is attached and has made a step.
    """
    import pareto
    import stripes_sim
    import waveq
    from waveq import allocate
    from waveq.allocate.losstables import hessian_traces, measured_table

    torch.manual_seed(0)
    model = _Net()
    size = int((re.findall(r"\(3, (\d+), \d+\)", code) or [8])[0])
    images, labels = torch.randn(12, 3, size, size), torch.arange(12) % 3
    loader = list(zip(images.split(4), labels.split(4), strict=True))
    names = ["conv1", "conv2", "fc"]
    layers = stripes_sim.trace(model, input_shape=(3, size, size))
    table = stripes_sim.cost_table(layers, stripes_sim.Stripes(), bits=range(2, 9))
    losses = {name: {bits: 2.0**-bits for bits in range(2, 9)} for name in names}
    space = pareto.DesignSpace(dict.fromkeys(names, (2, 4, 8)))
    if "experts" in code:
        model.embed, model.layers = nn.Embedding(4, 2), nn.ModuleList([_Experts()])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    task_loss = F.cross_entropy(model(images), labels)
    used = re.search(r"\bwq\b( =)?", code)
    wq = None
    if used is not None and used[1] is None:
        wq = waveq.attach(model, total_steps=40)
        task_loss = F.cross_entropy(model(images), labels)
        (task_loss + wq.penalty()).backward()
        optimizer.step()
        wq.step()
        wq.freeze()
        task_loss = F.cross_entropy(model(images), labels)
    averaged = copy.deepcopy(model)
    return {
        **{each.__name__: each for each in (copy, itertools, pareto, stripes_sim, torch, waveq)},
        **{"F": F, "nn": nn, "np": np, "torchvision": _Torchvision, "allocate": allocate},
        "PolicyEvaluator": waveq.PolicyEvaluator,
        "attach": waveq.attach,
        "a": 0,
        "averaged": averaged,
        "b": 1,
        "batch": images,
        "batches": loader,
        "bits": (2, 4, 8),
        "budget": float(table.energy_pj[:, 3].sum()),
        "codes": np.ones((8, 3, 3, 3), dtype=np.int64),
        "conv1": nn.Conv2d(1, 16, 3),
        "conv2": nn.Conv2d(16, 4, 3),
        "cost_table": table.by_layer("energy_pj"),
        "costs": table.by_layer("energy_pj"),
        "data": loader,
        "detector": nn.Sequential(_First(), model),
        "epochs": 2,
        "epsilon": 0.01,
        "evaluate": lambda policies: -np.abs(policies.astype(float) - 4).sum(axis=1),
        "frame": space.frame(energy_pj=range(space.size)),
        "front": np.arange(3),
        "hardware": stripes_sim.Stripes(),
        "hessian_traces": hessian_traces,
        "image": images,
        "images": images,
        "input_bits": (4, 8),
        "labels": labels,
        "layers": layers,
        "loader": loader,
        "loss_table": losses,
        "losses": losses,
        "measured_table": measured_table,
        "model": model,
        "multiplications": dict.fromkeys(names, 100.0),
        "names": names,
        "optimizer": optimizer,
        "policies": space.policies(),
        "policy": waveq.Policy({"conv1": 4, "conv2": 3, "fc": 8}),
        "space": space,
        "steps": 40,
        "store": _Store() if "store.correct" in code else None,
        "table": table,
        "task_loss": task_loss,
        "test_data": loader,
        "trace": stripes_sim.trace,
        "train_data": loader,
        "weights": np.arange(4),
        "wq": wq,
        "x": images,
        "y": labels,
    }


class _Torchvision:
    """Weights that would be downloaded."""

    class models:  # noqa: N801
        @staticmethod
        def resnet18(*, weights: str) -> nn.Module:
            return _Net()


class _Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.Module()
        self.experts.up_proj = nn.Parameter(torch.randn(2, 4, 3))


def finalised_state() -> dict[str, Any]:
    """The state_dict of the network after a run with quantised inputs."""
    import waveq

    model = _Net()
    wq = waveq.attach(model, bits=4, activation_bits=8)
    model(torch.randn(4, 3, 8, 8))
    wq.finalize()
    return model.state_dict()


class _Store:
    def correct(self, policies: Any) -> Any:
        return np.random.default_rng(0).random((len(policies), 60)) < 0.8


class _First(nn.Module):
    def forward(self, images: list[torch.Tensor]) -> torch.Tensor:
        return images[0]

"""Networks, images and epochs of the experiments: one row a network for each budget.

``quick`` fits two CPU cores: fewer images, narrower networks. ``full`` takes the networks as published and all images;
it wants a GPU, except for SimpleNet-5 and LeNet. ``tiny`` takes seconds a training, on half of SimpleNet-5's filters or
on images that ship with a dependency (``--budget tiny --dataset digits --networks digitsnet``). All say in every result
what they were.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from benchmarks._names import unknown

__all__ = ["BUDGETS", "NETWORKS", "Budget", "Setting", "setting"]

Budget = Literal["tiny", "quick", "full"]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How a network is trained, in float and then with quantised weights.

    Attributes:
        network: its name in ``waveq.zoo``.
        channels: of the images, repeated or averaged where the dataset has others.
        size: side of the images in pixels, padded or resized.
        width: of the network, 1 as published.
        images: training images, the same ones for every seed; 0 takes all.
        test_images: the first ones of the test part; 0 takes all. Read once a job, after training.
        dataset: its name in ``waveq.zoo``.
        batch: images a step.
        pretrain_epochs: of the float network that every job of a seed starts from.
        epochs: of every job after that.
        pretrain_lr: its peak rate; both stages anneal along a cosine.
        lr: the jobs' peak rate.
        weight_decay: of SGD.
        momentum: of SGD.
        scale_rate: rate of what quantisers learn (LSQ's steps) as a share of the weights'. At the full rate that of a
            layer with few weights can cross zero: the one of 144 depthwise weights with 2 bits did in ten steps.
        init: a file of float weights that every seed starts from, as ``waveq train --init`` takes it; "" trains them.
        flip: mirror half of the training images left to right, anew in every epoch.
    """

    network: str
    channels: int
    size: int
    width: float
    images: int
    test_images: int
    dataset: str = "fashion-mnist"
    batch: int = 128
    pretrain_epochs: int
    epochs: int
    pretrain_lr: float = 0.05
    lr: float = 0.02
    weight_decay: float = 1e-4
    momentum: float = 0.9
    scale_rate: float = 1.0
    init: str = ""
    flip: bool = False


def _row(network: str, channels: int, size: int, width: float, images: int, pretrain: int, epochs: int) -> Setting:
    return Setting(
        network=network,
        channels=channels,
        size=size,
        width=width,
        images=images,
        test_images=0 if images == 0 else 5000,
        pretrain_epochs=pretrain,
        epochs=epochs,
        batch=128 if images == 0 else 64,
    )


_QUICK = {
    "simplenet5": _row("simplenet5", 1, 28, 1.0, 10_000, 6, 3),
    "lenet": _row("lenet", 1, 28, 0.5, 10_000, 4, 3),
    # lower rates than the others: without batch norm it collapsed at theirs, in float and with learned bits
    "svhn8": replace(_row("svhn8", 1, 32, 0.25, 4_000, 15, 2), pretrain_lr=0.02, lr=0.01),
    "vgg11": _row("vgg11", 1, 32, 0.125, 6_000, 6, 2),
    "resnet20": _row("resnet20", 1, 16, 0.5, 6_000, 5, 2),
    "mobilenet_v2": _row("mobilenet_v2", 1, 32, 0.25, 4_000, 5, 2),
    "resnet18": _row("resnet18", 3, 32, 1.0, 2_000, 2, 2),
    "alexnet": replace(_row("alexnet", 3, 64, 1.0, 1_000, 1, 1), batch=32, test_images=1000),
}
_FULL = {
    "simplenet5": _row("simplenet5", 1, 28, 1.0, 0, 10, 6),
    "lenet": _row("lenet", 1, 28, 1.0, 0, 10, 6),
    "svhn8": _row("svhn8", 3, 32, 1.0, 0, 20, 12),
    "vgg11": _row("vgg11", 3, 32, 1.0, 0, 20, 12),
    "resnet20": _row("resnet20", 3, 32, 1.0, 0, 20, 12),
    "mobilenet_v2": _row("mobilenet_v2", 3, 32, 0.5, 0, 20, 12),
    "resnet18": _row("resnet18", 3, 224, 1.0, 0, 20, 12),
    "alexnet": _row("alexnet", 3, 224, 1.0, 0, 20, 12),
}
_TINY = {
    "simplenet5": _row("simplenet5", 1, 28, 0.5, 6_000, 5, 4),
    "digitsnet": Setting(
        network="digitsnet",
        channels=1,
        size=8,
        width=0.5,
        images=512,
        test_images=100,
        batch=32,
        pretrain_epochs=4,
        epochs=2,
    ),
}
_ROWS: dict[str, dict[str, Setting]] = {"tiny": _TINY, "quick": _QUICK, "full": _FULL}
BUDGETS = tuple(_ROWS)
NETWORKS = tuple(_QUICK)


def setting(network: str, budget: Budget, *, dataset: str = "fashion-mnist") -> Setting:
    """The row of a network.

    Raises:
        ValueError: a network without a row.
    """
    rows = _ROWS[budget]
    if network not in rows:
        raise ValueError(f"--networks {network!r}: no setting{unknown(network, rows)}")
    return replace(rows[network], dataset=dataset)

"""Machines that look at values, on a network that is trained here for a second: what their papers measured beside it.

The papers took ImageNet networks, whose trained weights and images are not at hand; so this is another network, on
handwritten digits at 8 bits, convolutions alone. The ratios say what the machines do, not whether they reach a figure.
"""

from __future__ import annotations

from typing import Any

from stripes_sim import Captured, DaDianNao, DynamicStripes, LayerShape, Pragmatic, Stripes, capture, trace
from stripes_sim._words import term_counts

__all__ = ["digits_network", "value_rows"]

_EPOCHS, _BATCH, _IMAGES, _BITS = 6, 64, 16, 8


def digits_network() -> tuple[list[LayerShape], Captured, float]:
    """Convolutions of a small trained network, 16 validation images through it, and its validation accuracy."""
    import torch
    from torch import nn

    from waveq.zoo.datasets.data import load_data

    data = load_data("digits")
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Flatten()),
        nn.Linear(64 * 16, 10),
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    images, labels = data.train.batch(torch.arange(len(data.train)))
    for _ in range(_EPOCHS):
        for taken in torch.randperm(len(images)).split(_BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images[taken]), labels[taken]).backward()
            optimizer.step()
    held_out, classes = data.validation.batch(torch.arange(len(data.validation)))
    with torch.no_grad():
        accuracy = float((net(held_out).argmax(1) == classes).float().mean())
    found = capture(net, held_out[:_IMAGES], activation_bits=_BITS, weight_bits=_BITS)
    # the first layer has one channel and leaves most lanes idle
    return [layer for layer in trace(net, (1, 8, 8)) if layer.is_spatial][1:], found, accuracy


def work_left_out(layers: list[LayerShape], found: Captured) -> float:
    """Products of bits over products of terms, both operands recoded: what Laconic does not have to do at best."""
    import torch

    bits = terms = 0.0
    for layer in layers:
        x, w = (term_counts(values[layer.name], 1, 16, booth=True) for values in (found.activations, found.weights))
        products = torch.nn.functional.conv2d(
            torch.from_numpy(x).double(), torch.from_numpy(w).double(), padding=layer.padding[0]
        )
        terms += float(products.sum())
        bits += found.samples * layer.macs * _BITS**2
    return bits / terms


def value_rows() -> list[dict[str, Any]]:
    """As `benchmarks.paper.machines.machine_rows`."""
    layers, found, accuracy = digits_network()
    activations = {layer.name: found.activations[layer.name] for layer in layers}
    parallel = DaDianNao().run(layers, 16, 16).compute_cycles
    stripes = Stripes(serial="activations").run(layers, _BITS, _BITS).compute_cycles
    machines = (DynamicStripes(), Pragmatic(), Pragmatic(column_registers=1), Pragmatic(column_registers=1, booth=True))
    dynamic, pragmatic, ahead, encoded = (
        hw.run(layers, _BITS, _BITS, activations=activations).compute_cycles for hw in machines
    )
    here = f"ours: a digits network of 8 bits, {accuracy:.0%} right"
    rows = [
        ("Dynamic Stripes", "speed-up over Stripes", stripes / dynamic, 1.41, "abstract of arXiv 1706.00504"),
        ("Pragmatic", "speed-up of PRA-2b over DaDianNao", parallel / pragmatic, 2.59, "Bit-Pragmatic, MICRO 2017"),
        ("Pragmatic", "the same, a register for each column", parallel / ahead, 3.06, "Bit-Pragmatic, MICRO 2017"),
        ("Pragmatic", "the same, activations recoded, too", parallel / encoded, 4.31, "Bit-Pragmatic, MICRO 2017"),
        ("Laconic", "bit products that are left out, times", work_left_out(layers, found), 40.0, "ISCA 2019, at least"),
        ("Laconic", "speed-up over the same wires", None, None, "15.4x in arXiv 1805.04513; its tile is not at hand"),
    ]
    return [
        {"machine": machine, "what": what, "ours": ours, "published": published,
         "source": source if ours is None else f"{source}, ImageNet networks; {here}"}
        for machine, what, ours, published, source in rows
    ]  # fmt: skip

"""One layer of a finished run on the weight-serial tile in Verilog: its integers, and what it meets in a test image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from waveq._names import suggestion
from waveq.train.trained_run import TrainedRun

if TYPE_CHECKING:
    from torch import Tensor, nn

    from stripes_sim import Accelerator, LayerShape
    from stripes_sim.rtl import RtlLayer

__all__ = ["first_rows", "layer_inputs", "run_rtl"]


def run_rtl(
    run: TrainedRun,
    layer: str,
    hardware: Accelerator,
    folder: Path,
    *,
    image: int = 0,
    output_rows: int | None = None,
) -> RtlLayer:
    """Write Verilog, testbench and integers of a layer of the run's policy.

    Weights are those of `waveq.integers`, without scale and offset; a grid without a zero (offset 1/2) needs half the
    sum of its activations added outside the tile. Inputs are those of the layer's own quantiser; inputs that are left
    in floating point are rounded to the bits that the accelerator prices them at, the largest ending the range.

    Args:
        run: a finished run.
        layer: one that the policy gives bits to.
        hardware: a machine with serial weights.
        folder: where everything is written.
        image: which test image.
        output_rows: of a convolution, the first so many rows of its output alone; by default all.

    Raises:
        ValueError: no such layer or image, or a layer or machine that the tile does not compute.
    """
    from stripes_sim.rtl import write_rtl
    from waveq.exporting.integers import integers

    if layer not in run.policy:
        raise ValueError(
            f"{run.path}: its policy gives no bits to layer {layer!r}{suggestion(layer, run.policy)} "
            f"(layers: {', '.join(run.policy)})"
        )
    shapes = [shape for shape in run.layers if shape.name == layer]
    if len(shapes) != 1:
        raise ValueError(f"layer {layer!r} is called in {len(shapes)} shapes; the tile computes one call of a layer")
    network = run.final_network()
    bits = run.activation_bits()[layer]
    codes = integers(network, run.policy)[layer].codes.numpy()
    activations = layer_inputs(network, layer, _image(run, image), bits)
    shape = shapes[0]
    activations = activations.reshape(
        (shape.in_channels, *shape.input_size) if shape.is_spatial else (-1, shape.in_channels)
    )
    if output_rows is not None:
        shape = first_rows(shape, output_rows)
        activations = activations[:, : shape.input_size[0]]
    return write_rtl(
        folder,
        shape,
        hardware,
        weights=codes,
        activations=activations,
        weight_bits=run.policy[layer],
        activation_bits=bits,
    )


def first_rows(layer: LayerShape, rows: int) -> LayerShape:
    """The convolution that makes the first ``rows`` rows of a convolution's output, from as much input as they meet.

    Raises:
        ValueError: no convolution.

    Example:
        >>> from stripes_sim import LayerShape
        >>> conv = LayerShape(name="c", kind="conv", in_channels=3, out_channels=8, kernel_size=3, input_size=(9, 9),
        ...                   padding=1)
        >>> first_rows(conv, 2).input_size, first_rows(conv, 2).output_size
        ((3, 9), (2, 9))
    """
    if layer.kind != "conv":
        raise ValueError(f"layer {layer.name!r} is no convolution: its output has no rows to take the first of")
    met = (min(rows, layer.output_size[0]) - 1) * layer.stride[0] + (layer.kernel_size[0] - 1) * layer.dilation[0] + 1
    inside = max(min(met - layer.padding_before[0], layer.input_size[0]), 1)
    axes = zip(layer.padding_before, layer.padded_size, layer.input_size, strict=True)
    (before, _), *others = [(pad, whole - size - pad) for pad, whole, size in axes]
    padding = [(before, max(met - before - inside, 0)), *others]
    return replace(
        layer,
        input_size=(inside, *layer.input_size[1:]),
        padding=tuple(side for pair in padding for side in pair),
        stored_before=0,
    )


def layer_inputs(network: nn.Module, layer: str, sample: Tensor, bits: int) -> npt.NDArray[np.int64]:
    """What a layer meets when the network gets ``sample``, as integers of ``bits``.

    Raises:
        ValueError: a layer that is no module of its own, is not called once, or whose inputs are on no even grid.
    """
    import torch

    from waveq.exporting.input_grids import input_grid
    from waveq.method.fixed_input import FIXED_INPUT

    module = dict(network.named_modules()).get(layer)
    if module is None:
        raise ValueError(f"layer {layer!r} is a weight inside another module; the tile takes layers that are modules")
    met: list[Tensor] = []

    def remember(_module: nn.Module, args: tuple[Any, ...]) -> None:
        met.append(args[0].detach())

    hook = module.register_forward_pre_hook(remember)
    try:
        with torch.no_grad():
            network(sample)
    finally:
        hook.remove()
    if len(met) != 1:
        raise ValueError(f"layer {layer!r} is called {len(met)} times; the tile computes one call of a layer")
    fixed = getattr(module, FIXED_INPUT, None)
    if fixed is not None:
        values, scale = fixed(met[0]).double(), input_grid(layer, fixed).scale
    else:
        values = met[0].double()
        scale = float(values.abs().max()) / (2 ** (bits - bool(values.min() < 0)) - 1) or 1.0
    codes: npt.NDArray[np.int64] = torch.round(values / scale).to(torch.int64).numpy()
    return codes


def _image(run: TrainedRun, number: int) -> Tensor:
    before = 0
    for images, _ in run.images("test"):
        if 0 <= number - before < len(images):
            return images[number - before :][:1]
        before += len(images)
    raise ValueError(f"image must be from 0 to {before - 1}, the test images of {run.path}, but it is {number}")

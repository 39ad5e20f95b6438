"""One layer of a finished run on the weight-serial tile in Verilog: its integers, and what it meets in a test image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from waveq._names import nearest
from waveq.train.trained_run import TrainedRun

if TYPE_CHECKING:
    from torch import Tensor, nn

    from stripes_sim import Accelerator
    from stripes_sim.rtl import RtlLayer

__all__ = ["layer_inputs", "run_rtl"]


def run_rtl(run: TrainedRun, layer: str, hardware: Accelerator, folder: Path, *, image: int = 0) -> RtlLayer:
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

    Raises:
        ValueError: no such layer or image, or a layer or machine that the tile does not compute.
    """
    from stripes_sim.rtl import write_rtl
    from waveq.exporting.integers import integers

    if layer not in run.policy:
        raise ValueError(
            f"{run.path}: its policy gives no bits to layer {layer!r}{nearest(layer, run.policy)} "
            f"(layers: {', '.join(run.policy)})"
        )
    shapes = [shape for shape in run.layers if shape.name == layer]
    if len(shapes) != 1:
        raise ValueError(f"layer {layer!r} is called in {len(shapes)} shapes; the tile computes one call of a layer")
    network = run.final_network()
    bits = run.activation_bits()[layer]
    codes = integers(network, run.policy)[layer].codes.numpy()
    activations = layer_inputs(network, layer, _image(run, image), bits)
    wanted = (shapes[0].in_channels, *shapes[0].input_size) if shapes[0].is_spatial else (-1, shapes[0].in_channels)
    return write_rtl(
        folder,
        shapes[0],
        hardware,
        weights=codes,
        activations=activations.reshape(wanted),
        weight_bits=run.policy[layer],
        activation_bits=bits,
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

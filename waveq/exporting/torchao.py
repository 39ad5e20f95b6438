"""torchao: a program of torch.export whose weights are int8 tensors that know how many bits they use."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from waveq._files import whole
from waveq.exporting.carriers import whole_codes
from waveq.exporting.held import held_layers
from waveq.exporting.input_grids import InputGrid, input_grid
from waveq.exporting.integers import Integers
from waveq.exporting.onnx_check import largest_difference, outputs_of_torch, require_close
from waveq.exporting.packages import load_package, quiet
from waveq.exporting.report import Exported, exported
from waveq.method.fixed_input import FIXED_INPUT, FixedInput
from waveq.policy import Policy

__all__ = ["POLICY_FILE", "write_torchao"]

KINDS = (nn.Linear, nn.Conv2d, nn.Embedding)  # for which torchao 0.18 has the operation with such a weight
POLICY_FILE = "policy.json"


def write_torchao(
    model: nn.Module, policy: Mapping[str, int], found: Mapping[str, Integers], path: Path, example: tuple[Tensor, ...]
) -> Exported:
    """Write the program; it is loaded again and compared with torch before it takes its place.

    Raises:
        ValueError: a network that ``torch.export`` does not take with any number of samples; layers of more than 8
            bits, or in float64; a program that computes something else.
    """
    quantization, utils = load_package("torchao.quantization"), load_package("torchao.utils")
    held, left = held_layers(model, found, KINDS, "'torchao'")
    copied = copy.deepcopy(model).cpu().eval()
    for name, each in held.items():
        layer = copied.get_submodule(name)
        layer.weight = nn.Parameter(_weight(quantization, name, each), requires_grad=False)
        # as torchao.utils.unwrap_tensor_subclass does for Linear: the program holds plain int8 tensors
        parametrize.register_parametrization(layer, "weight", utils.UnwrapTensorSubclass())
    for name, module in copied.named_modules():
        if isinstance(fixed := module._modules.get(FIXED_INPUT), FixedInput):
            module._modules[FIXED_INPUT] = _short(name, fixed)
    program = _program(copied, example)
    with whole(path) as draft:
        with draft.open("wb") as file, quiet():
            torch.export.save(program, file, extra_files={POLICY_FILE: _told(policy)})
        measured = _compare(draft, model, example)
        require_close(measured, quantised_inputs=False)
    told = {name: f"int{whole_codes(each)[2]} in int8" for name, each in held.items()}
    size = path.stat().st_size
    return exported("torchao", path, size, found, {name: told.get(name) or left[name] for name in found}, measured)


def _weight(quantization: Any, name: str, each: Integers) -> Tensor:
    """``IntxUnpackedToInt8Tensor`` of the codes.

    Raises:
        ValueError: in float64.
    """
    if each.dtype is torch.float64:
        raise ValueError(f"layer {name!r} is in float64, which target 'torchao' does not have; 'npz' holds it")
    codes, scale, bits = whole_codes(each)
    shape = [size if axis == each.axis else 1 for axis, size in enumerate(codes.shape)]
    scales = torch.from_numpy(scale).reshape(shape)
    made: Any = quantization.IntxUnpackedToInt8Tensor(
        torch.from_numpy(codes).to(torch.int8),
        scales,
        torch.zeros_like(scales, dtype=torch.int8),
        target_dtype=getattr(torch, f"int{bits}"),
        block_size=tuple(1 if axis == each.axis else size for axis, size in enumerate(codes.shape)),
        dtype=each.dtype,
        activation_quantization=None,
    )
    assert torch.equal(made.dequantize(), each.weight().cpu())  # one product, in float32
    weight: Tensor = made
    return weight


class _Levels(nn.Module):
    """A grid in four operations, where the quantiser of training has thirty, most of them for gradients."""

    scale: Tensor

    def __init__(self, grid: InputGrid) -> None:
        super().__init__()
        self.low, self.high = grid.low, grid.high
        self.register_buffer("scale", torch.tensor(grid.scale, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """Decided in float32, as in training."""
        wide = x if x.dtype is torch.float32 else x.float()
        found = torch.clamp(torch.round(wide / self.scale), self.low, self.high) * self.scale
        return found if x.dtype is torch.float32 else found.to(x.dtype)


@torch.no_grad()
def _short(layer: str, fixed: FixedInput) -> nn.Module:
    """The short form where it gives the same numbers to the last bit; else the quantiser itself."""
    try:
        grid = input_grid(layer, fixed)
    except ValueError:  # levels that are no multiples of a scale
        return fixed
    made = _Levels(grid)
    probe = torch.linspace(-1.5, 1.5, 2**12 + 1) * grid.scale * grid.high
    return made if torch.equal(made(probe), fixed(probe)) else fixed


def _program(model: nn.Module, example: tuple[Tensor, ...]) -> torch.export.ExportedProgram:
    """Without the places in source files, which are this machine's, and without the example, which is the user's.

    Raises:
        ValueError: not with any number of samples; the error behind it has torch's own words.
    """
    dynamic = tuple({0: torch.export.Dim.DYNAMIC} for _ in example)
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(model, example, dynamic_shapes=dynamic)
    except Exception as error:  # torch raises what it meets in the network
        told = str(error).strip().partition("\n")[0]
        raise ValueError(f"torch.export does not take this network with any number of samples: {told}") from error
    for module in program.graph_module.modules():
        for node in getattr(module, "graph", torch.fx.Graph()).nodes:
            node.meta.pop("stack_trace", None)
    program.example_inputs = None
    return program


def _told(policy: Mapping[str, int]) -> str:
    return json.dumps((policy if isinstance(policy, Policy) else Policy(policy)).to_json())


def _compare(file: Path, model: nn.Module, example: tuple[Tensor, ...]) -> tuple[float, float]:
    with quiet():
        loaded = torch.export.load(file)
    expected = outputs_of_torch(model, example)
    return largest_difference(expected, outputs_of_torch(loaded.module(), example))

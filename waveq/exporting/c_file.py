"""C: one header with packed integers, scales and the network's steps, and a program that runs it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from waveq._files import whole
from waveq.exporting.c_check import find_compiler, outputs_of_program
from waveq.exporting.c_constants import identifier
from waveq.exporting.c_graph import network_steps
from waveq.exporting.c_source import header_text, program_text
from waveq.exporting.integers import Integers
from waveq.exporting.onnx_check import largest_difference, outputs_of_torch, require_close
from waveq.exporting.onnx_file import initializer_names
from waveq.exporting.report import Exported, exported

__all__ = ["write_c"]


def write_c(model: nn.Module, found: Mapping[str, Integers], path: Path, example: tuple[Tensor, ...]) -> Exported:
    """Write the header and beside it the program, ``.c``; before that the program is compiled, run, and compared with
    torch, where there is a compiler.

    Raises:
        ValueError: a path that does not end in .h; an operation that C does not have; a network that is not in float32;
            the program computes something else, or cannot be compiled or run.
    """
    if path.suffix != ".h":
        raise ValueError(f"target 'c' writes a header, whose name ends in .h, not {path.name!r}")
    if len(example) != 1:
        raise ValueError(f"target 'c' takes networks with one input, not {len(example)}")
    tensors = _tensors(model)
    network = network_steps(model, example[0])
    used = {step.tensors["weight"] for step in network.steps if step.kind == "convolve"}
    keys = initializer_names(model, found, used)
    for layer, key in keys.items():
        if key not in used:
            raise ValueError(f"layer {layer!r}: its weight is not in the exported graph; is the layer called at all?")
    name, program = identifier(path.stem), path.with_suffix(".c")
    files = {
        path.name: header_text(network, {key: (layer, found[layer]) for layer, key in keys.items()}, tensors, name),
        program.name: program_text(name, path.name, program.name),
    }
    expected = [each.flatten(1) for each in outputs_of_torch(model, example)]
    difference, largest, note = _compare(files, program.name, expected, example[0])
    if difference is not None:
        require_close((difference, largest), any(step.grid for step in network.steps))
    with whole(path) as header, whole(program) as main:
        header.write_text(files[path.name], encoding="utf-8")
        main.write_text(files[program.name], encoding="utf-8")
    carriers = {layer: f"{each.bits} bits packed" for layer, each in found.items()}
    return exported("c", path, path.stat().st_size, found, carriers, (difference, largest), note)


def _compare(
    files: Mapping[str, str], program: str, expected: list[Tensor], example: Tensor
) -> tuple[float | None, float, str]:
    """The largest difference, the largest output of torch, and how that was found."""
    compiler = find_compiler()
    if compiler is None:
        largest = max(float(each.abs().max()) for each in expected)
        return None, largest, f"{program} was not compared with torch: no C compiler was found"
    found = outputs_of_program(compiler, files, program, example, expected[0].shape[1])
    return *largest_difference(expected, [found]), f"{program} beside it was compiled by {Path(compiler).name} and run"


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    # under every name: of those of one tensor the exported graph takes any
    tensors = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}
    for name, each in tensors.items():
        if each.is_floating_point() and each.dtype is not torch.float32:
            raise ValueError(
                f"target 'c' computes in float32, and {name!r} is {str(each.dtype).removeprefix('torch.')}"
            )
    return {name: each.detach().cpu() for name, each in tensors.items()}

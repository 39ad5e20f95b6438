"""A network as an ONNX graph in float32, with a marker wherever a layer quantises its input."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from waveq.exporting.input_grids import InputGrid, input_grid
from waveq.exporting.packages import load_package, quiet
from waveq.method.fixed_input import FIXED_INPUT, FixedInput

__all__ = ["MARKER", "OPSET", "marked_graph"]

OPSET = 18  # torch's exporter begins with it
MARKER = "waveq"
"""The domain of the markers; each has the attribute ``layer``."""


class _Marked(nn.Module):
    """Stands for an input quantiser while the graph is made."""

    def __init__(self, layer: str) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """A node that is replaced afterwards."""
        from torch.onnx import ops

        marked: Tensor = ops.symbolic(
            f"{MARKER}::Input", (x,), attrs={"layer": self.layer}, dtype=x.dtype, shape=x.shape, version=1
        )
        return marked


def marked_graph(model: nn.Module, example: tuple[Tensor, ...], *, any_batch: bool) -> tuple[Any, dict[str, InputGrid]]:
    """The graph, an ``onnx.ModelProto``, and the grids that its markers stand for, by layer.

    Args:
        model: finalised; unchanged. It is exported as it is in evaluation mode.
        example: its inputs.
        any_batch: whether the first axis of each may have any length afterwards.

    Raises:
        ValueError: inputs on a grid that is no multiple of a scale.
    """
    load_package("onnxscript")
    copied = copy.deepcopy(model).cpu().eval()
    grids: dict[str, InputGrid] = {}
    for name, module in list(copied.named_modules()):
        fixed = module._modules.get(FIXED_INPUT)
        if isinstance(fixed, FixedInput):
            grids[name] = input_grid(name, fixed)
            module._modules[FIXED_INPUT] = _Marked(name)
    with quiet(), torch.no_grad():
        # optimize=True would fold batch norm into the weights, which then lie on no grid
        program: Any = torch.onnx.export(
            copied,
            example,
            dynamo=True,
            optimize=False,
            opset_version=OPSET,
            dynamic_shapes=tuple({0: torch.export.Dim.AUTO} for _ in example) if any_batch else None,
            verbose=False,
        )
    return _plain(program.model_proto), grids


def _plain(graph: Any) -> Any:
    """Without what the exporter notes of every node: stack traces, with this machine's paths, fill more bytes than the
    weights of a small network."""
    noted = [graph.graph, *graph.graph.node, *graph.graph.value_info, *graph.graph.input, *graph.graph.output]
    for each in [*noted, *graph.graph.initializer]:
        del each.metadata_props[:]
        each.doc_string = ""
    return graph

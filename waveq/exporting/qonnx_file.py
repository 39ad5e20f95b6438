"""QONNX: float weights and inputs behind Quant nodes of any number of bits, which hls4ml and FINN read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from waveq._files import whole
from waveq.exporting.carriers import whole_codes
from waveq.exporting.input_grids import InputGrid
from waveq.exporting.integers import Integers
from waveq.exporting.onnx_check import largest_difference, outputs_of_torch, require_close
from waveq.exporting.onnx_file import channel_shape, describe, initializer_names, replace_markers, weight_place
from waveq.exporting.onnx_graph import marked_graph
from waveq.exporting.packages import load_package, quiet
from waveq.exporting.report import Exported, exported

__all__ = ["write_qonnx"]

SAMPLES = 4  # the executor takes its time
_DOMAIN = "qonnx.custom_op.general"


def write_qonnx(
    model: nn.Module, policy: Mapping[str, int], found: Mapping[str, Integers], path: Path, example: tuple[Tensor, ...]
) -> Exported:
    """Write the file, for one sample at a time, as its readers take it; before that its own executor is compared with
    torch, on ``SAMPLES`` samples.

    Raises:
        ValueError: the executor computes something else; inputs or scales that no Quant node has.
    """
    onnx, qonnx = load_package("onnx"), load_package("qonnx.core.modelwrapper")
    graph, grids = marked_graph(model, tuple(each[:1] for each in example), any_batch=False)
    replace_markers(graph.graph, grids, lambda marker, grid: [_quant_of_input(onnx, graph.graph, marker, grid)])
    names = initializer_names(model, found, {tensor.name for tensor in graph.graph.initializer})
    for name, each in found.items():
        _quantise_weight(onnx, graph.graph, name, names[name], each)
    describe(onnx, graph, policy)
    graph.opset_import.append(onnx.helper.make_opsetid(_DOMAIN, 1))
    shapes = load_package("qonnx.transformation.infer_shapes").InferShapes
    wrapped = qonnx.ModelWrapper(graph).transform(shapes())
    measured = _compare(wrapped, model, example)
    require_close(measured, bool(grids))
    data = wrapped.model.SerializeToString()
    with whole(path) as draft:
        draft.write_bytes(data)
    told = {name: f"{whole_codes(each)[2]} bits" for name, each in found.items()}
    return exported("qonnx", path, len(data), found, told, measured)


def _quantise_weight(onnx: Any, graph: Any, name: str, key: str, each: Integers) -> None:
    tensor = graph.initializer[weight_place(graph, name, key, each)]
    _, scale, bits = whole_codes(each)
    tensor.name = f"{key}_float"
    _numbers(onnx, graph, key, scale.reshape(channel_shape(each)), bits)
    graph.node.insert(0, _quant(onnx, tensor.name, key, key, signed=True, narrow=False))


def _quant_of_input(onnx: Any, graph: Any, marker: Any, grid: InputGrid) -> Any:
    (x,), (y,) = marker.input, marker.output
    _numbers(onnx, graph, y, np.array(grid.scale, np.float32), grid.bits)
    signed = grid.low < 0
    return _quant(onnx, x, y, y, signed=signed, narrow=signed and grid.low == -grid.high)


def _numbers(onnx: Any, graph: Any, key: str, scale: np.ndarray[Any, Any], bits: int) -> None:
    values = (("scale", scale), ("zero", np.array(0.0)), ("bits", np.array(float(bits))))
    for suffix, value in values:
        graph.initializer.append(onnx.numpy_helper.from_array(value.astype(np.float32), f"{key}_{suffix}"))


def _quant(onnx: Any, x: str, y: str, key: str, *, signed: bool, narrow: bool) -> Any:
    return onnx.helper.make_node(
        "Quant",
        [x, f"{key}_scale", f"{key}_zero", f"{key}_bits"],
        [y],
        name=f"{key}_quant",
        domain=_DOMAIN,
        signed=int(signed),
        narrow=int(narrow),
        rounding_mode="ROUND",
    )


def _compare(wrapped: Any, model: nn.Module, example: tuple[Tensor, ...]) -> tuple[float, float]:
    example = tuple(each[:SAMPLES] for each in example)
    execute = load_package("qonnx.core.onnx_exec").execute_onnx
    expected = outputs_of_torch(model, example)
    found = []
    for i in range(len(example[0])):
        feeds = {
            given.name: value[i : i + 1].numpy() for given, value in zip(wrapped.graph.input, example, strict=True)
        }
        with quiet():  # it doubts shapes that torch's exporter left open
            found.append(execute(wrapped, feeds))
    each = [torch.cat([torch.as_tensor(one[out.name]) for one in found]) for out in wrapped.graph.output]
    return largest_difference(expected, each)

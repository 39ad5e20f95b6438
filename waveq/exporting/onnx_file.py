"""ONNX: weights as INT2, INT4, INT8 behind DequantizeLinear, inputs clipped, QuantizeLinear, DequantizeLinear."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from waveq._files import whole
from waveq.exporting.carriers import carrier_for, carriers, raw_bytes, whole_codes
from waveq.exporting.input_grids import InputGrid
from waveq.exporting.integers import Integers
from waveq.exporting.onnx_check import compare, require_close
from waveq.exporting.onnx_graph import MARKER, OPSET, marked_graph
from waveq.exporting.packages import load_package
from waveq.exporting.report import Exported, exported
from waveq.method.sites import weight_sites
from waveq.policy import Policy

__all__ = [
    "TRANSPOSED",
    "channel_shape",
    "describe",
    "initializer_names",
    "replace_markers",
    "weight_place",
    "write_onnx",
]

TRANSPOSED = "_transposed"
"""Behind the name of a linear layer's weight that stands in the file as (inputs, outputs)."""


def write_onnx(
    model: nn.Module,
    policy: Mapping[str, int],
    found: Mapping[str, Integers],
    path: Path,
    example: tuple[Tensor, ...],
    opset: int | None,
) -> Exported:
    """Write the file; ONNX Runtime runs it and is compared with torch before it takes its place.

    Args:
        opset: None takes the first that has the smallest types for all layers.

    Raises:
        ValueError: an opset below 18, or one without a type for a layer's bits; a layer whose scales no axis counts;
            ONNX Runtime computes something else.
    """
    onnx, runtime = load_package("onnx"), load_package("onnxruntime")
    if opset is not None and opset < OPSET:
        raise ValueError(f"opset must be {OPSET} or more, which torch's exporter begins with, not {opset}")
    types = carriers(found, opset)
    graph, grids = marked_graph(model, example, any_batch=True)
    if opset is None:
        opset = max(OPSET, *(each.opset for each in types.values()))
    replace_markers(graph.graph, grids, lambda marker, grid: _quantise(onnx, graph.graph, marker, grid))
    names = initializer_names(model, found, {tensor.name for tensor in graph.graph.initializer})
    for name, each in found.items():
        _replace_weight(onnx, graph.graph, name, names[name], each, opset)
    describe(onnx, graph, policy)
    _raise_opset(onnx, graph, opset)
    onnx.checker.check_model(graph)
    data = graph.SerializeToString()
    measured = compare(runtime, data, model, example)
    require_close(measured, bool(grids))
    with whole(path) as draft:
        draft.write_bytes(data)
    named = {name: carrier.name(signed=True).lower() for name, carrier in types.items()}
    return exported("onnx", path, len(data), found, named, measured)


def initializer_names(model: nn.Module, found: Mapping[str, Integers], present: Container[str]) -> dict[str, str]:
    """What torch's exporter calls the layers' weights: of several names of one tensor it keeps one.

    Args:
        present: the names in the exported graph.
    """
    sites, names = weight_sites(model, bits=found), {}
    for name in found:
        key = name if sites[name].tensor != "weight" else f"{name}.weight" if name else "weight"
        if key not in present:
            weight = getattr(sites[name].module, sites[name].tensor)
            same = (other for other, each in model.named_parameters(remove_duplicate=False) if each is weight)
            key = next((other for other in same if other in present), key)
        names[name] = key
    return names


def weight_place(graph: Any, name: str, key: str, each: Integers) -> int:
    """Where a layer's weight is among the graph's tensors.

    Raises:
        ValueError: nowhere; or it has scales that no axis counts.
    """
    if each.outputs is not None and each.outputs.groups > 1:
        raise ValueError(
            f"layer {name!r} is a transposed convolution in groups with a scale for each channel: no axis of its "
            "weight counts the channels, which ONNX needs; train it with granularity 'layer'"
        )
    for place, tensor in enumerate(graph.initializer):
        if tensor.name == key:
            return place
    raise ValueError(f"layer {name!r}: its weight is not in the exported graph; is the layer called at all?")


def channel_shape(each: Integers) -> list[int]:
    """The shape in which a layer's scales broadcast to its weight."""
    return [] if each.axis is None else [-1 if axis == each.axis else 1 for axis in range(each.codes.ndim)]


def _replace_weight(onnx: Any, graph: Any, name: str, key: str, each: Integers, opset: int) -> None:
    """Instead of float weights their codes, and a node that gives the weights under their old name."""
    del graph.initializer[weight_place(graph, name, key, each)]
    codes, scale, bits = whole_codes(each)
    axis = {} if each.axis is None else {"axis": each.axis}
    given = _take_transpose(graph, key)
    if given != key:
        codes, axis = codes.T, {} if each.axis is None else {"axis": 1 - each.axis}
    carrier = carrier_for(bits, opset)
    kind = getattr(onnx.TensorProto, carrier.name(signed=True))
    for suffix, values in (("codes", codes), ("zero", np.zeros_like(codes, shape=scale.shape))):
        made = onnx.TensorProto(name=f"{key}_{suffix}", data_type=kind, raw_data=raw_bytes(values, carrier))
        made.dims.extend(values.shape)
        graph.initializer.append(made)
    graph.initializer.append(onnx.numpy_helper.from_array(scale, f"{key}_scale"))
    node = onnx.helper.make_node(
        "DequantizeLinear",
        [f"{key}_codes", f"{key}_scale", f"{key}_zero"],
        [given],
        name=f"{key}_dequantize",
        **axis,
    )
    graph.node.insert(0, node)


def _take_transpose(graph: Any, key: str) -> str:
    """What the graph calls a weight from now on: where a transposition alone reads it, the transposed weight, and the
    transposition is gone.

    ONNX Runtime 1.32 moves one before the codes, and then does not load codes of 2 bits.
    """
    readers = [node for node in graph.node if key in node.input]
    if len(readers) != 1 or readers[0].op_type != "Transpose":
        return key
    (transpose,) = readers
    if [list(each.ints) for each in transpose.attribute if each.name == "perm"] != [[1, 0]]:
        return key
    given = f"{key}{TRANSPOSED}"
    for node in graph.node:
        for place, read in enumerate(node.input):
            if read == transpose.output[0]:
                node.input[place] = given
    graph.node.remove(transpose)
    return given


def replace_markers(
    graph: Any, grids: Mapping[str, InputGrid], nodes_for: Callable[[Any, InputGrid], Sequence[Any]]
) -> None:
    """Put the nodes that quantise an input in the place of each marker."""
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        if node.domain != MARKER:
            graph.node.append(node)
            continue
        layer = next(each.s for each in node.attribute if each.name == "layer").decode()
        graph.node.extend(nodes_for(node, grids[layer]))


def _quantise(onnx: Any, graph: Any, marker: Any, grid: InputGrid) -> list[Any]:
    """Max and Min, QuantizeLinear, DequantizeLinear.

    Eight bits carry any grid, Max and Min say which: inputs are stored nowhere. One Clip would be shorter, but ONNX
    Runtime 1.32 loads none before a QuantizeLinear of 2 or 4 bits, and before one of 8 bits it rounds the bias of the
    layer above to multiples of s_x s_w, which at 4 bits moved outputs by 6 %.
    """
    kind = onnx.TensorProto.INT8 if grid.low < 0 else onnx.TensorProto.UINT8
    (x,), (y,) = marker.input, marker.output
    scale = np.float32(grid.scale)
    for suffix, value in (("low", scale * grid.low), ("high", scale * grid.high), ("scale", scale)):
        graph.initializer.append(onnx.numpy_helper.from_array(np.array(value, np.float32), f"{y}_{suffix}"))
    graph.initializer.append(onnx.TensorProto(name=f"{y}_zero", data_type=kind, raw_data=bytes(1)))
    make = onnx.helper.make_node
    return [
        make("Max", [x, f"{y}_low"], [f"{y}_above"], name=f"{y}_max"),
        make("Min", [f"{y}_above", f"{y}_high"], [f"{y}_clipped"], name=f"{y}_min"),
        make("QuantizeLinear", [f"{y}_clipped", f"{y}_scale", f"{y}_zero"], [f"{y}_codes"], name=f"{y}_quantize"),
        make("DequantizeLinear", [f"{y}_codes", f"{y}_scale", f"{y}_zero"], [y], name=f"{y}_dequantize"),
    ]


def _raise_opset(onnx: Any, graph: Any, opset: int) -> None:
    """Say that the graph is of a later opset: its operators mean the same there, which the check with ONNX Runtime
    holds for each file."""
    for each in graph.opset_import:
        if each.domain == "":
            each.version = opset
    graph.ir_version = max(graph.ir_version, onnx.helper.find_min_ir_version_for(graph.opset_import))


def describe(onnx: Any, graph: Any, policy: Mapping[str, int]) -> None:
    """Bits, the policy and versions, in the metadata; no word of the markers."""
    kept = [each for each in graph.opset_import if each.domain != MARKER]
    del graph.opset_import[:]
    graph.opset_import.extend(kept)
    graph.producer_name, graph.producer_version = "waveq", version("waveq")
    whole_policy = policy.to_json() if isinstance(policy, Policy) else {"bits": dict(policy)}
    told = {
        "waveq.bits": json.dumps(dict(policy)),
        "waveq.policy": json.dumps(whole_policy),
        "waveq.versions": json.dumps({"waveq": version("waveq"), "torch": torch.__version__, "onnx": onnx.__version__}),
    }
    onnx.helper.set_model_props(graph, told)

"""Workloads from ONNX files, without the onnx package: convolutions, matrix products and lookups of the main graph.

Shapes are read, not inferred: exporters of torch and onnx.shape_inference write them, with a fixed batch. Weights are
the initializers and what is computed from them alone (transposed, dequantised).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from stripes_sim._protobuf import fields, integers
from stripes_sim.layers import LayerShape

__all__ = ["read_onnx"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class _Node:
    """An operator: names of its operands and results, integer and text attributes."""

    kind: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]


def read_onnx(path: str | Path) -> list[LayerShape]:
    """The layers of an ``.onnx`` file, in the order of its nodes.

    A layer is named after its weight without ``.weight`` at the end; where the exporter renamed that, after the module
    in the name of its node, such as ``layer1.0.conv1`` in ``/layer1/layer1.0/conv1/Conv``.

    Raises:
        ValueError: the file cannot be read, is no ONNX model, or lacks a shape that a layer needs.
    """
    file = Path(path)
    try:
        model = fields(file.read_bytes())
        graph = fields(_bytes(model.get(7, [b""])[0]))
        nodes = [_node(_bytes(each)) for each in graph.get(1, [])]
        weights = dict(_initializer(_bytes(each)) for each in graph.get(5, []))
        shapes = dict(_typed(_bytes(each)) for key in (11, 12, 13) for each in graph.get(key, []))
    except OSError as error:
        raise ValueError(f"workload {file}: cannot be read ({error.strerror})") from None
    except (ValueError, UnicodeDecodeError, IndexError, TypeError) as error:
        raise ValueError(f"workload {file}: no ONNX model ({error})") from None
    if not nodes:
        raise ValueError(f"workload {file}: no nodes in it")
    layers = _Reader(file, weights, {**shapes, **weights}).layers(nodes)
    if not layers:
        raise ValueError(f"workload {file}: no convolution, matrix product or lookup in it")
    return layers


class _Reader:
    """Walks over the nodes; ``owners`` are weights by tensor, with the initializer that they come from."""

    def __init__(self, file: Path, weights: dict[str, Shape], shapes: dict[str, Shape]) -> None:
        self.file, self.shapes = file, shapes
        self.owners = {name: name for name in weights}
        self.found: dict[LayerShape, LayerShape] = {}

    def layers(self, nodes: Sequence[_Node]) -> list[LayerShape]:
        for node in nodes:
            make = _MAKERS.get(node.kind)
            if make is not None and self._is_layer(node):
                layer = make(self, node)
                once = replace(layer, copies=layer.matrices)
                known = self.found.get(once)
                self.found[once] = replace(known, copies=known.copies + layer.copies) if known else layer
            else:
                self._follow(node)
        return list(self.found.values())

    def _is_layer(self, node: _Node) -> bool:
        """Whether inputs of the model take part, in a table's lookup as its row numbers."""
        if node.kind == "Gather":
            table = node.inputs[0] in self.owners and len(self.shapes[node.inputs[0]]) == 2
            return table and node.inputs[1] not in self.owners and not node.attributes.get("axis")
        return not all(name in self.owners for name in node.inputs if name)

    def _follow(self, node: _Node) -> None:
        """What is computed from weights alone is a weight, named after the largest; a constant is none."""
        operands = [name for name in node.inputs if name]
        if operands and all(name in self.owners for name in operands):
            largest = max(operands, key=lambda name: prod(self.shapes.get(name, ())))
            self.owners.update(dict.fromkeys(node.outputs, self.owners[largest]))
            for name in node.outputs:
                if name not in self.shapes and node.kind in _SAME_SHAPE:
                    self.shapes[name] = self.shape(largest, node)
                elif name not in self.shapes and node.kind == "Transpose":
                    old = self.shape(largest, node)
                    order = node.attributes.get("perm", range(len(old))[::-1])
                    self.shapes[name] = tuple(old[axis] for axis in order)

    def shape(self, tensor: str, node: _Node) -> Shape:
        """Sizes of a tensor, all of them known."""
        sizes = self.shapes.get(tensor)
        if sizes is None or any(size < 1 for size in sizes):
            missing = "has no shape" if sizes is None else f"has open sizes {sizes}"
            raise ValueError(
                f"workload {self.file}: tensor {tensor!r} of node {node.name or node.kind!r} {missing}; export with "
                "fixed sizes, or write shapes with onnx.shape_inference.infer_shapes"
            )
        return sizes

    def name(self, tensor: str, node: _Node) -> str:
        """A layer's name."""
        owner = self.owners.get(tensor, "")
        if owner and not owner.startswith("onnx::"):
            return owner.removesuffix(".weight")
        return _module_name(node.name) or node.name or node.outputs[0]

    def convolution(self, node: _Node) -> LayerShape:
        x, kernel = self.shape(node.inputs[0], node), self.shape(node.inputs[1], node)
        groups, axes = node.attributes.get("group", 1), len(kernel) - 2
        transposed = node.kind == "ConvTranspose"
        if node.attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or "output_shape" in node.attributes:
            raise ValueError(f"workload {self.file}: node {node.name!r} leaves its padding open: export it with pads")
        pads = node.attributes.get("pads", [0] * 2 * axes)
        channels = (kernel[0], kernel[1] * groups) if transposed else (kernel[1] * groups, kernel[0])
        return LayerShape(
            name=self.name(node.inputs[1], node),
            kind="conv_transpose" if transposed else "conv",
            in_channels=channels[0],
            out_channels=channels[1],
            kernel_size=kernel[2:],
            input_size=x[2:],
            stride=tuple(node.attributes.get("strides", [1] * axes)),
            padding=tuple(pad for pair in zip(pads[:axes], pads[axes:], strict=True) for pad in pair),
            dilation=tuple(node.attributes.get("dilations", [1] * axes)),
            output_padding=tuple(node.attributes.get("output_padding", [0] * axes)) if transposed else (0,),
            groups=groups,
            copies=x[0],
        )

    def product(self, node: _Node) -> LayerShape:
        left, right = (self.shape(name, node) for name in node.inputs[:2])
        left = left[::-1] if node.attributes.get("transA") else left
        right = right[::-1] if node.attributes.get("transB") else right
        depth, columns = right[-2] if len(right) > 1 else right[0], right[-1] if len(right) > 1 else 1
        sizes: dict[str, Any] = {"in_channels": depth, "out_channels": columns}
        batch, rows = prod(left[:-2]), left[-2] if len(left) > 1 else 1
        if node.inputs[1] in self.owners:
            matrices = prod(right[:-2])
            sizes.update(kind="linear", tokens=rows * batch // matrices, copies=matrices, matrices=matrices)
            return LayerShape(name=self.name(node.inputs[1], node), **sizes)
        if node.inputs[0] in self.owners:
            sizes.update(kind="linear", out_channels=rows, tokens=columns * prod(right[:-2]))
            return LayerShape(name=self.name(node.inputs[0], node), **sizes)
        return LayerShape(name=node.name or node.outputs[0], kind="matmul", tokens=rows, copies=batch, **sizes)

    def lookup(self, node: _Node) -> LayerShape:
        table, ids = self.shape(node.inputs[0], node), self.shape(node.inputs[1], node)
        return LayerShape(
            name=self.name(node.inputs[0], node),
            kind="embedding",
            in_channels=table[0],
            out_channels=prod(table[1:]),
            tokens=prod(ids),
        )


_MAKERS: dict[str, Any] = {
    "Conv": _Reader.convolution,
    "ConvTranspose": _Reader.convolution,
    "Gemm": _Reader.product,
    "MatMul": _Reader.product,
    "Gather": _Reader.lookup,
}
_SAME_SHAPE = frozenset({"Identity", "Cast", "DequantizeLinear", "QuantizeLinear", "Clip", "Mul", "Add", "Div", "Sub"})


def _module_name(node: str) -> str:
    """The module that torch writes into a node's name; a scope that goes on with the last one's name replaces it."""
    path, last = "", None
    for scope in node.strip("/").split("/")[:-1]:
        if last is not None and scope.startswith(f"{last}."):
            path = path.removesuffix(last)
        path = f"{path}.{scope}" if path and not path.endswith(".") else path + scope
        last = scope
    return path


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError(f"a message is expected, not the number {value}")
    return value


def _text(values: list[int | bytes] | None) -> str:
    return _bytes(values[0]).decode() if values else ""


def _node(message: bytes) -> _Node:
    found = fields(message)
    attributes = dict(_attribute(_bytes(each)) for each in found.get(5, []))
    inputs, outputs = ([_bytes(each).decode() for each in found.get(number, [])] for number in (1, 2))
    return _Node(_text(found.get(4)), _text(found.get(3)), inputs, outputs, attributes)


def _attribute(message: bytes) -> tuple[str, Any]:
    found = fields(message)
    if 8 in found:
        return _text(found.get(1)), integers(found[8])
    if 3 in found:
        return _text(found.get(1)), integers(found[3])[0]
    return _text(found.get(1)), _text(found.get(4)) if 4 in found else None


def _initializer(message: bytes) -> tuple[str, Shape]:
    found = fields(message)
    return _text(found.get(8)), tuple(integers(found.get(1, [])))


def _typed(message: bytes) -> tuple[str, Shape]:
    """Name and sizes of a ValueInfoProto; an open size is 0."""
    found = fields(message)
    kind = fields(_bytes(found.get(2, [b""])[0]))
    tensor = fields(_bytes(kind.get(1, [b""])[0]))
    shape = fields(_bytes(tensor.get(2, [b""])[0]))
    sizes = [fields(_bytes(each)).get(1, [0])[0] for each in shape.get(1, [])]
    return _text(found.get(1)), tuple(size for size in sizes if isinstance(size, int))

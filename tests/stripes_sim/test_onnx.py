"""ONNX files, written here byte by byte: what is read, how layers are named, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stripes_sim import LayerShape, read_workload
from stripes_sim._protobuf import fields, integers


def varint(number: int) -> bytes:
    number %= 2**64
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def attribute(name: str, value: int | list[int] | str) -> bytes:
    body = field(1, name)
    if isinstance(value, list):
        return body + b"".join(field(8, each) for each in value)
    return body + (field(3, value) if isinstance(value, int) else field(4, value))


def node(kind: str, inputs: list[str], output: str, name: str = "", **attributes) -> bytes:
    body = b"".join(field(1, each) for each in inputs) + field(2, output) + field(3, name) + field(4, kind)
    return field(1, body + b"".join(field(5, attribute(key, value)) for key, value in attributes.items()))


def weight(name: str, *sizes: int) -> bytes:
    packed = b"".join(varint(size) for size in sizes)
    return field(5, field(1, packed) + field(8, name))


def typed(name: str, *sizes: int | str) -> bytes:
    dims = b"".join(field(1, field(1, size) if isinstance(size, int) else field(2, size)) for size in sizes)
    return field(13, field(1, name) + field(2, field(1, field(1, 1) + field(2, dims))))


def saved(folder: Path, *parts: bytes) -> Path:
    file = folder / "net.onnx"
    file.write_bytes(field(1, 9) + field(2, "here") + field(7, b"".join(parts)))
    return file


def test_every_kind_of_layer(tmp_path: Path) -> None:
    file = saved(
        tmp_path,
        typed("x", 1, 4, 9, 9),
        weight("onnx::Conv_7", 8, 2, 3, 3),
        node("Conv", ["x", "onnx::Conv_7", "b"], "c", "/net/net.0/Conv", group=2, strides=[2, 2], pads=[1, 1, 0, 0]),
        typed("c", 1, 8, 4, 4),
        weight("up.weight", 8, 3, 3, 3),
        node("ConvTranspose", ["c", "up.weight"], "u", strides=[2, 2], output_padding=[1, 1], dilations=[1, 1]),
        node("Flatten", ["u"], "f"),
        typed("f", 1, 243),
        weight("fc.weight", 5, 243),
        node("Gemm", ["f", "fc.weight", "b"], "g", transB=1),
        weight("words", 20, 6),
        typed("ids", 1, 7),
        node("Gather", ["words", "ids"], "w"),
        typed("w", 1, 7, 6),
        # the head is the transposed table, as tied weights are exported
        node("Transpose", ["words"], "t", perm=[1, 0]),
        node("MatMul", ["w", "t"], "h", "/head/MatMul"),
        typed("q", 1, 2, 7, 3),
        typed("k", 1, 2, 3, 7),
        node("MatMul", ["q", "k"], "s", "/attention/MatMul"),
    )
    conv, up, fc, words, head, scores = read_workload(file)
    assert conv == LayerShape(
        name="net.0",
        kind="conv",
        in_channels=4,
        out_channels=8,
        kernel_size=3,
        input_size=(9, 9),
        stride=2,
        padding=(1, 0, 1, 0),
        groups=2,
    )
    assert (up.name, up.kind, up.in_channels, up.out_channels, up.output_size) == (
        "up", "conv_transpose", 8, 3, (10, 10),
    )  # fmt: skip
    assert fc == LayerShape(name="fc", kind="linear", in_channels=243, out_channels=5)
    assert words == LayerShape(name="words", kind="embedding", in_channels=20, out_channels=6, tokens=7)
    assert head == LayerShape(name="words", kind="linear", in_channels=6, out_channels=20, tokens=7)
    assert scores == LayerShape(
        name="/attention/MatMul", kind="matmul", in_channels=3, out_channels=7, tokens=7, copies=2
    )


def test_a_weight_that_is_used_twice_is_one_layer_and_a_stack_has_its_matrices(tmp_path: Path) -> None:
    file = saved(
        tmp_path,
        typed("x", 1, 5, 4),
        weight("w", 4, 4),
        node("DequantizeLinear", ["w"], "d"),
        node("MatMul", ["x", "d"], "y"),
        typed("y", 1, 5, 4),
        node("MatMul", ["y", "d"], "z"),
        typed("z", 3, 5, 4),
        weight("stack", 3, 4, 2),
        node("MatMul", ["z", "stack"], "e"),
    )
    shared, stack = read_workload(file)
    assert (shared.name, shared.copies, shared.tokens) == ("w", 2, 5)
    assert (stack.name, stack.copies, stack.matrices, stack.tokens) == ("stack", 3, 3, 5)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "no nodes in it"),
        ([node("Relu", ["x"], "y")], "no convolution, matrix product or lookup in it"),
        ([weight("w", 2, 2), node("MatMul", ["x", "w"], "y", "n")], "tensor 'x' of node 'n' has no shape; export with"),
        (
            [typed("x", "batch", 2), weight("w", 2, 2), node("MatMul", ["x", "w"], "y", "n")],
            "tensor 'x' of node 'n' has open sizes (0, 2)",
        ),
        (
            [typed("x", 1, 2, 4), weight("w", 2, 2, 3), node("Conv", ["x", "w"], "y", "n", auto_pad="SAME_UPPER")],
            "node 'n' leaves its padding open",
        ),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, parts: list[bytes], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        read_workload(saved(tmp_path, *parts))


def test_other_files_are_refused(tmp_path: Path) -> None:
    for name, content in (("a", b"\x0f"), ("b", b"\x3a\x7fshort"), ("c", b"\x80"), ("d", b"\x38\x05")):
        (tmp_path / f"{name}.onnx").write_bytes(content)
        with pytest.raises(ValueError, match=r"no ONNX model|no nodes in it"):
            read_workload(tmp_path / f"{name}.onnx")
    with pytest.raises(ValueError, match="cannot be read"):
        read_workload(tmp_path / "none.onnx")


def test_numbers_of_the_wire_format() -> None:
    assert fields(field(3, 300) + field(3, -1)) == {3: [300, 2**64 - 1]}
    assert integers([field(0, 5)[1:], 2**64 - 1]) == [5, -1]
    assert fields(b"\x0d\x00\x00\x80\x3f\x11" + bytes(8)) == {1: [b"\x00\x00\x80\x3f"], 2: [bytes(8)]}


def test_a_weight_on_the_left_and_a_lookup_along_another_axis(tmp_path: Path) -> None:
    file = saved(
        tmp_path,
        typed("x", 4, 9),
        weight("fc.weight", 6, 4),
        node("MatMul", ["fc.weight", "x"], "y"),
        weight("table", 5, 3),
        typed("i", 2),
        node("Gather", ["table", "i"], "g", axis=1),  # picks columns: no lookup of rows
    )
    (layer,) = read_workload(file)
    assert layer == LayerShape(name="fc", kind="linear", in_channels=4, out_channels=6, tokens=9)

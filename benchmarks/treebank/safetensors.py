"""Weights in a safetensors file, with torch alone.

The format (https://github.com/huggingface/safetensors, README): eight bytes with the length of the header, a header in
JSON that gives each tensor's type, shape and first and last byte, then the bytes. Nothing in it is executed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from waveq._reading import parse_json

__all__ = ["parse_safetensors"]

_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def parse_safetensors(content: bytes, *, where: str) -> dict[str, Tensor]:
    """Tensors by name, with memory of their own.

    Args:
        content: of the file.
        where: the file, for errors.

    Raises:
        ValueError: truncated, or a tensor whose bytes do not fit its shape; names it.

    Example:
        >>> head = b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}'
        >>> parse_safetensors(len(head).to_bytes(8, "little") + head + bytes(8), where="a.safetensors")
        {'a': tensor([0., 0.])}
    """
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or len(content) < 8 + length:
        raise ValueError(f"{where}: truncated, or not a safetensors file")
    try:
        header = parse_json(content[8 : 8 + length].decode(), where=where)
    except UnicodeDecodeError:
        raise ValueError(f"{where}: not a safetensors file (its header is not text)") from None
    body = memoryview(content)[8 + length :]
    found = {}
    for name, told in header.items():
        if name == "__metadata__":
            continue
        try:
            dtype, shape, (first, last) = _TYPES[told["dtype"]], told["shape"], told["data_offsets"]
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{where}: tensor {name!r} is described as {told!r}") from None
        if not 0 <= first <= last <= len(body) or last - first != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{where}: tensor {name!r} has bytes {first} to {last} of {len(body)} for shape {shape}")
        held = bytearray(body[first:last])  # frombuffer takes no empty one
        found[name] = (torch.frombuffer(held, dtype=dtype) if held else torch.empty(0, dtype=dtype)).reshape(shape)
    return found

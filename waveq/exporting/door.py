"""``waveq.export``: one network, one policy, one file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from waveq._names import check_choice
from waveq.exporting.integers import integers
from waveq.exporting.report import Exported

__all__ = ["SUFFIXES", "Target", "export"]

Target = Literal["onnx", "qonnx", "npz", "hf", "torchao", "c"]
SUFFIXES: Mapping[str, str] = {
    "onnx": "onnx",
    "qonnx": "qonnx.onnx",
    "npz": "npz",
    "hf": "hf",
    "torchao": "pt2",
    "c": "h",
}


def export(
    model: nn.Module,
    policy: Mapping[str, int],
    path: Path | str,
    *,
    to: Target,
    sample: Tensor | tuple[Tensor, ...] | None = None,
    opset: int | None = None,
) -> Exported:
    """Write a finalised network with its weights as integers; docs/export.md says which target holds what.

    What was exported is compared with torch first: the file appears whole and right, or not at all.

    Args:
        model: after ``finalize()``, or plain with the weights of such a model; unchanged.
        policy: its bits, a ``Policy`` or a plain mapping.
        path: the file; for "hf" a folder that does not exist.
        to: "onnx" (ONNX Runtime and others run it), "qonnx" (Quant nodes, for hls4ml and FINN), "npz" (a NumPy archive,
            packed), "hf" (a folder for ``from_pretrained`` of transformers), "torchao" (a program of ``torch.export``),
            "c" (a header, and a program beside it that runs the network).
        sample: inputs, for targets that compute: one tensor or several, samples along the first axis.
        opset: of ONNX; None takes the first that has the smallest integer types.

    Raises:
        ValueError: an unknown target; a policy of another model; weights that are no integers times a scale; a grid or
            an opset that the target does not have; outputs that differ from torch's.
        ImportError: a package of ``waveq[export]`` or ``waveq[hf]`` that the target needs is missing.
        OSError: the file cannot be written, or the folder exists.

    Example:
        >>> import tempfile, waveq
        >>> net = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> wq = waveq.attach(net, quantizer="wrpn", scale="max", bits={"0": 3, "2": 8}); wq.finalize()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     made = waveq.export(net, wq.policy(), f"{folder}/net.npz", to="npz")
        >>> made.packed_bytes, made.float_bytes, made.carriers["0"], made.difference
        (216, 2112, '3 bits packed', 0.0)
    """
    check_choice("to", to, get_args(Target))
    if opset is not None and to != "onnx":
        raise ValueError(f"opset is for target 'onnx', not for {to!r}")
    found = integers(model, policy)
    if to == "npz":
        from waveq.exporting.npz import write_npz

        return write_npz(model, found, Path(path))
    examples = _samples(to, sample)
    if to == "hf":
        from waveq.exporting.hugging_face import write_hugging_face

        return write_hugging_face(model, policy, found, Path(path), examples)
    if to == "torchao":
        from waveq.exporting.torchao import write_torchao

        return write_torchao(model, policy, found, Path(path), examples)
    if to == "c":
        from waveq.exporting.c_file import write_c

        return write_c(model, found, Path(path), examples)
    if to == "qonnx":
        from waveq.exporting.qonnx_file import write_qonnx

        return write_qonnx(model, policy, found, Path(path), examples)
    from waveq.exporting.onnx_file import write_onnx

    return write_onnx(model, policy, found, Path(path), examples, opset)


def _samples(to: str, sample: Tensor | tuple[Tensor, ...] | None) -> tuple[Tensor, ...]:
    given = (sample,) if isinstance(sample, Tensor) else sample
    if not given or not all(isinstance(each, Tensor) for each in given):
        raise ValueError(f"target {to!r} needs sample=, a tensor of inputs (or a tuple of them), not {sample!r}")
    if any(each.ndim == 0 or not len(each) for each in given):
        raise ValueError("sample must hold inputs along its first axis, one at least")
    # a length of one would be taken for fixed
    return tuple((torch.cat([each, each]) if len(each) == 1 else each).detach().cpu() for each in given)

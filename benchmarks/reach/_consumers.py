"""The programs for which waveq.export writes files: what they compute from a file, and which weights they see in it."""

from __future__ import annotations

import copy
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from waveq.exporting.c_check import find_compiler, outputs_of_program
from waveq.exporting.c_constants import identifier
from waveq.exporting.npz import read_npz
from waveq.exporting.onnx_file import TRANSPOSED
from waveq.exporting.packages import quiet

__all__ = ["CONSUMERS", "Consumer", "first_output"]


class Consumer(ABC):
    """Who reads the files of a target.

    Attributes:
        name: of the program, as the table has it.
        package: that must be installed.
        samples: it runs so many.
        reads: "all" networks, those "of transformers" alone, or "feed-forward" ones.
    """

    name: str
    package: str
    samples = 64
    reads: Literal["all", "of transformers", "feed-forward"] = "all"

    @abstractmethod
    def run(self, path: Path, model: Any, x: Tensor) -> Tensor:
        """What the program computes; the network is for those that hold no graph."""

    @abstractmethod
    def weights(self, path: Path, model: Any, layers: tuple[str, ...]) -> Mapping[str, Tensor]:
        """The weights that it sees, by layer."""


@torch.no_grad()
def first_output(model: nn.Module, x: Tensor) -> Tensor:
    """The first tensor that a network gives."""
    first: Tensor = pytree.tree_leaves(model(x))[0]
    return first


class OnnxRuntime(Consumer):
    """On the CPU; DequantizeLinear makes weights of codes."""

    name, package = "ONNX Runtime", "onnxruntime"

    def run(self, path: Path, model: Any, x: Tensor) -> Tensor:
        """See the class."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")  # docs/export.md says why
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        return torch.as_tensor(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])

    def weights(self, path: Path, model: Any, layers: tuple[str, ...]) -> dict[str, Tensor]:
        """See the class."""
        tensors, nodes = _graph(path)
        found = {}
        for node in nodes:
            if node.op_type == "DequantizeLinear" and node.input[0] in tensors:
                codes, scale = tensors[node.input[0]].astype(np.float32), tensors[node.input[1]]
                axis = next((each.i for each in node.attribute if each.name == "axis"), 0)
                shape = [-1 if scale.ndim and place == axis else 1 for place in range(codes.ndim)]
                name, weight = node.output[0], torch.from_numpy(codes * scale.reshape(shape))
                turned = name.endswith(TRANSPOSED)
                found[name.removesuffix(TRANSPOSED).removesuffix(".weight")] = weight.T if turned else weight
        return found


class QonnxExecutor(Consumer):
    """One sample at a time; Quant makes levels of float weights."""

    name, package, samples = "its executor", "qonnx", 4

    def run(self, path: Path, model: Any, x: Tensor) -> Tensor:
        """See the class."""
        from qonnx.core.modelwrapper import ModelWrapper
        from qonnx.core.onnx_exec import execute_onnx

        graph = ModelWrapper(str(path))
        asked, given = graph.graph.input[0].name, graph.graph.output[0].name
        with quiet():
            return torch.cat([torch.as_tensor(execute_onnx(graph, {asked: one.numpy()})[given]) for one in x.split(1)])

    def weights(self, path: Path, model: Any, layers: tuple[str, ...]) -> dict[str, Tensor]:
        """See the class."""
        from qonnx.custom_op.general.quant import quant

        tensors, nodes = _graph(path)
        found = {}
        for node in nodes:
            if node.op_type == "Quant" and node.input[0] in tensors:
                made = quant(*(tensors[name] for name in node.input), True, False, "ROUND")
                found[node.output[0].removesuffix(".weight")] = torch.from_numpy(np.asarray(made, np.float32))
        return found


class NumPy(Consumer):
    """The archive's weights in a network of torch."""

    name, package = "NumPy", "numpy"

    def run(self, path: Path, model: Any, x: Tensor) -> Tensor:
        """See the class."""
        filled = copy.deepcopy(model)
        with torch.no_grad():
            for name, weight in self.weights(path, model, ()).items():
                filled.get_submodule(name).weight.copy_(weight)
        return first_output(filled, x)

    def weights(self, path: Path, model: Any, layers: tuple[str, ...]) -> dict[str, Tensor]:
        """See the class."""
        return {name: each.weight() for name, each in read_npz(path).items()}


class FromPretrained(Consumer):
    """transformers with compressed-tensors; the first pass unpacks."""

    name, package = "from_pretrained", "compressed_tensors"
    reads = "of transformers"

    def run(self, path: Path, model: Any, x: Tensor) -> Tensor:
        """See the class."""
        with quiet():
            return first_output(type(model).from_pretrained(path, local_files_only=True), x)

    def weights(self, path: Path, model: Any, layers: tuple[str, ...]) -> dict[str, Tensor]:
        """See the class."""
        with quiet():
            loaded = type(model).from_pretrained(path, local_files_only=True)
            loaded(torch.zeros(1, 4, dtype=torch.long))
        return {name: loaded.get_submodule(name).weight for name in layers}


class ExportedProgram(Consumer):
    """torch.export's program with torchao's operators."""

    name, package = "torch.export.load", "torchao"

    def run(self, path: Path, model: Any, x: Tensor) -> Tensor:
        """See the class."""
        return first_output(self._program(path).module(), x)

    def weights(self, path: Path, model: Any, layers: tuple[str, ...]) -> dict[str, Tensor]:
        """See the class."""
        state, found = self._program(path).state_dict, {}
        for name in layers:
            codes, scale = (f"{name}.parametrizations.weight.original{i}" for i in (0, 1))
            found[name] = state[scale] * state[codes] if codes in state else state[f"{name}.weight"]
        return found

    @staticmethod
    def _program(path: Path) -> torch.export.ExportedProgram:
        with quiet():
            import torchao.quantization  # noqa: F401  # registers the operators

            return torch.export.load(path)


class CProgram(Consumer):
    """Compiled; its function for codes says which weights it sees."""

    name, package, samples = "its program, compiled", "numpy", 16
    reads = "feed-forward"

    def run(self, path: Path, model: Any, x: Tensor) -> Tensor:
        """See the class."""
        program = path.with_suffix(".c")
        files = {each.name: each.read_text() for each in (path, program)}
        return outputs_of_program(_compiler(), files, program.name, x, first_output(model, x[:1]).numel())

    def weights(self, path: Path, model: Any, layers: tuple[str, ...]) -> dict[str, Tensor]:
        """See the class."""
        header, dumps, shapes = path.read_text(), [], []
        for layer in layers:
            found = re.search(rf"waveq_weights (\w+) = \{{net_{identifier(layer)}_weight_codes,", header)
            assert found, f"{path} has no codes of {layer}"
            shapes.append(model.get_submodule(layer).weight.shape)
            dumps.append(f"    dump(&{found[1]}, {shapes[-1].numel()}, {shapes[-1][1:].numel()});\n")
        files = {path.name: header, "dump.c": _DUMP % (path.name, "".join(dumps))}
        count = sum(shape.numel() for shape in shapes)
        values = outputs_of_program(_compiler(), files, "dump.c", torch.zeros(1, 1), count)[0]
        parts = values.split([shape.numel() for shape in shapes])
        return {layer: part.view(shape) for layer, part, shape in zip(layers, parts, shapes, strict=True)}


_DUMP = """#include "%s"
#include <stdio.h>
static void dump(const waveq_weights *w, size_t count, size_t row)
{
    for (size_t i = 0; i < count; i++) {
        float weight = w->scale[i / row * (size_t)w->scale_stride] * (float)waveq_code(w, i);
        fwrite(&weight, sizeof weight, 1, stdout);
    }
}
int main(void)
{
%s    return 0;
}
"""


def _compiler() -> str:
    found = find_compiler()
    if found is None:
        raise ValueError("no C compiler was found")
    return found


def _graph(path: Path) -> tuple[dict[str, Any], Any]:
    """(the stored tensors by name, the nodes)."""
    import onnx

    graph = onnx.load(path).graph
    return {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}, graph.node


CONSUMERS: Mapping[str, Consumer] = {
    "onnx": OnnxRuntime(),
    "qonnx": QonnxExecutor(),
    "npz": NumPy(),
    "hf": FromPretrained(),
    "torchao": ExportedProgram(),
    "c": CProgram(),
}

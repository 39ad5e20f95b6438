"""The final network of a run in ONNX Runtime: its accuracy beside torch's, its bytes beside float32."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from waveq.exporting.door import SUFFIXES, export
from waveq.exporting.onnx_graph import marked_graph
from waveq.exporting.packages import load_package
from waveq.exporting.report import Exported
from waveq.train.trained_run import TrainedRun

__all__ = ["Deployed", "deploy"]


@dataclass(frozen=True)
class Deployed:
    """What came out.

    Attributes:
        exported: the file.
        float_file_bytes: what an ONNX file of the same network with float32 weights takes.
        images: number of test images.
        accuracy: share of them that ONNX Runtime classifies right with the file.
        torch_accuracy: share of them that torch classifies right with the network.
        same: number of them that both put into the same class.
    """

    exported: Exported
    float_file_bytes: int
    images: int
    accuracy: float
    torch_accuracy: float
    same: int

    def __str__(self) -> str:
        made = self.exported
        classes = "all" if self.same == self.images else f"{self.same:,} of"
        return (
            f"{made.path}: {made.file_bytes:,} bytes, {self.float_file_bytes:,} with float32 weights. ONNX Runtime: "
            f"{100 * self.accuracy:.2f} % on the test images, torch: {100 * self.torch_accuracy:.2f} %; "
            f"{classes} {self.images:,} in the same class."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "exported": {**asdict(self.exported), "path": str(self.exported.path)}}


@torch.no_grad()
def deploy(run: TrainedRun) -> Deployed:
    """Write RUN/model.onnx and classify all test images with it, by ONNX Runtime on the CPU.

    Raises:
        ValueError: a network or policy that ONNX cannot hold (docs/export.md).
        ImportError: a package of ``waveq[export]`` is missing.
    """
    runtime = load_package("onnxruntime")
    network, batches = run.final_network(), run.images("test")
    sample = next(iter(batches))[0]
    made = export(network, run.policy, run.path / f"model.{SUFFIXES['onnx']}", to="onnx", sample=sample)
    graph, _ = marked_graph(network, (sample,), any_batch=True)
    session = runtime.InferenceSession(made.path.read_bytes(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def classes(x: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: x.numpy()})[0]).argmax(dim=1)

    found = [(classes(x), network(x).argmax(dim=1), y) for x, y in batches]
    of_runtime, of_torch, labels = (torch.cat(each) for each in zip(*found, strict=True))
    return Deployed(
        exported=made,
        float_file_bytes=graph.ByteSize(),
        images=len(labels),
        accuracy=float((of_runtime == labels).double().mean()),
        torch_accuracy=float((of_torch == labels).double().mean()),
        same=int((of_runtime == of_torch).sum()),
    )

"""What the accuracies of a campaign depend on: the fingerprint of its store, and the versions that measured."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from waveq.codesign.protocol import Evaluation, Protocol, granularity_of, input_quantizer_of, scale_of
from waveq.train.trained_run import TrainedRun

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["fingerprint", "tensors_digest", "versions"]


def fingerprint(run: TrainedRun, evaluate: Evaluation, protocol: Protocol) -> dict[str, Any]:
    """Everything that the accuracies depend on: the tensors that are evaluated and trained on, and how."""
    from pareto import array_digest

    weights = {name: tensor.numpy() for name, tensor in run.float_network().state_dict().items()}
    return {
        "protocol": protocol.to_dict(),
        "network": run.config.model,
        "weights": array_digest(weights),
        "data": {
            "name": run.config.dataset,
            "images": len(evaluate.labels),
            "evaluated": tensors_digest(run.images(protocol.part)),
            "trained_on": tensors_digest(run.images("train")) if protocol.finetune_epochs else None,
        },
        "quantizer": run.config.quantizer,
        "scale": scale_of(run),
        "granularity": granularity_of(run),
        "skipped": list(run.policy.skipped),
        "activation_bits": dict(run.policy.activation_bits),
        "activation_quantizer": input_quantizer_of(run),
        "seed": run.config.seed if protocol.finetune_epochs else None,
    }


def tensors_digest(batches: Iterable[tuple[Tensor, Tensor]]) -> str:
    """A short hash of images and labels, batch by batch as a network takes them.

    Example:
        >>> import torch
        >>> x, y = torch.zeros(2, 1, 8, 8), torch.tensor([3, 4])
        >>> tensors_digest([(x, y)]) == tensors_digest([(x.clone(), y)])
        True
        >>> tensors_digest([(x, y)]) == tensors_digest([(x + 1e-6, y)])
        False
    """
    digest = hashlib.sha256()
    for batch in batches:
        for tensor in batch:
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().cpu().numpy().data)
    return digest.hexdigest()[:16]


def versions() -> dict[str, str]:
    """Python and the packages that decide numbers."""
    found = {"python": platform.python_version()}
    for name in ("waveq", "torch", "torchvision", "numpy", "numba"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found

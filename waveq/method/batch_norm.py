"""Batch norm's statistics, estimated again for the weights that a network ends up with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["reestimate_batch_norm"]


@torch.no_grad()
def reestimate_batch_norm(model: nn.Module, batches: Iterable[Any]) -> int:
    """Replace the running means and variances of all batch norm layers by plain averages over batches.

    Running statistics remember some ten steps. Quantised weights jump from level to level until the end, most
    of all in depthwise layers, and on the float road rounding moves them after the last step: the statistics are those
    of other weights than the final ones (Nagel et al. 2022, "Overcoming oscillations in quantization-aware training",
    arXiv 2203.11086, section 2.3.1, who average over training data after training). Call it after ``finalize``, or
    within ``with wq.rounded():``.

    Nothing else runs as in training: dropout is off, no weight changes, and every module's mode and momentum are put
    back. Under DistributedDataParallel pass the module inside (``ddp.module``) and the same batches on every rank, or
    call it on rank 0, whose buffers DDP hands to the others. SyncBatchNorm averages over the ranks by itself and so
    needs as many batches on each.

    Args:
        model: any module; without batch norm nothing is read and nothing happens.
        batches: inputs, or tuples that begin with them, as a loader gives them; moved to the model's device. Each
            should be as large as in training: the variance of a batch of a few is too small.

    Returns:
        How many batch norm layers have new statistics.

    Raises:
        ValueError: no batches. On this and any error of the model the statistics stay as they were.

    Example:
        >>> norm = nn.BatchNorm1d(1)
        >>> reestimate_batch_norm(norm, [torch.tensor([[0.0], [2.0]]), torch.tensor([[2.0], [6.0]])])
        1
        >>> norm.running_mean, norm.running_var
        (tensor([2.5000]), tensor([5.]))
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.running_mean is not None]
    if not norms:
        return 0
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    with _only_these_train(model, norms):
        count = 0
        for batch in batches:
            model((batch[0] if isinstance(batch, tuple | list) else batch).to(device))
            count += 1
        if count == 0:
            raise ValueError("batches is empty: there is nothing to estimate batch norm's statistics from")
    return len(norms)


@contextmanager
def _only_these_train(model: nn.Module, norms: list[_BatchNorm]) -> Iterator[None]:
    """Within, the norms average over all batches, and all else is as in evaluation; an error undoes what they did."""
    modes = [(module, module.training) for module in model.modules()]
    momenta = [norm.momentum for norm in norms]
    before = [[buffer.clone() for buffer in _statistics(norm)] for norm in norms]
    try:
        model.eval()
        for norm in norms:
            norm.train()
            norm.momentum = None  # torch: the plain average
            norm.reset_running_stats()
        yield
    except BaseException:
        for norm, values in zip(norms, before, strict=True):
            for buffer, value in zip(_statistics(norm), values, strict=True):
                buffer.copy_(value)
        raise
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, training in modes:
            module.training = training


def _statistics(norm: _BatchNorm) -> list[Tensor]:
    found = (norm.running_mean, norm.running_var, norm.num_batches_tracked)
    return [buffer for buffer in found if buffer is not None]

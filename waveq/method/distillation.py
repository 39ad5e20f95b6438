"""The loss of a quantised network that is taught by its float self.

G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", 2015, arXiv 1503.02531, section 2.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["TEMPERATURE", "WEIGHT", "distillation_loss"]

TEMPERATURE = 4.0
WEIGHT = 0.5


def distillation_loss(
    logits: Tensor, teacher_logits: Tensor, targets: Tensor, *, temperature: float = TEMPERATURE, weight: float = WEIGHT
) -> Tensor:
    """(1 - weight) CE(logits, targets) + weight T^2 KL(softmax(teacher / T) || softmax(logits / T)), means over batch.

    T^2 keeps the share of the teacher's gradient where it is when T changes (section 2 of the paper). The teacher is
    the float network as it was before ``attach``, in evaluation mode, and gets no gradient::

        teacher = copy.deepcopy(model).eval().requires_grad_(False)      # before attach
        loss = waveq.distillation_loss(model(x), teacher(x), y) + wq.penalty()

    Teacher and student see the same images, so that mixed ones (mixup, cutmix) with the targets that belong to them are
    right as they are.

    Args:
        logits: the student's, (N, C, ...), any float dtype; computed in float32 at least.
        teacher_logits: the same shape.
        targets: classes, int64 (N, ...), or shares of classes, float (N, C, ...).
        temperature: T, above 0.
        weight: of the teacher's part, 0 to 1; at 0 the targets alone count.

    Returns:
        0-dim, differentiable in ``logits`` alone.

    Raises:
        ValueError: logits of different shapes; a temperature or weight out of range.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[0.0, 0.0]])
        >>> teacher = torch.tensor([[2 * 1.0986123, 0.0]])  # 3 : 1 at T = 2
        >>> loss = distillation_loss(logits, teacher, torch.tensor([0]), temperature=2.0, weight=1.0)
        >>> round(float(loss), 4)  # 4 (3/4 ln(3/2) + 1/4 ln(1/2))
        0.5232
    """
    if logits.shape != teacher_logits.shape or logits.ndim < 2:
        raise ValueError(
            f"teacher_logits must have the shape of logits, (N, C, ...), not {tuple(teacher_logits.shape)} beside "
            f"{tuple(logits.shape)}: does the teacher know the same classes?"
        )
    if not temperature > 0.0:
        raise ValueError(f"temperature must be above 0, not {temperature!r}")
    if not 0.0 <= weight <= 1.0:
        raise ValueError(f"weight must lie between 0 and 1, not {weight!r}")
    wide = logits if logits.element_size() > 4 else logits.float()
    shares = targets.to(wide.dtype) if targets.is_floating_point() else targets
    given = F.cross_entropy(wide, shares)
    student = F.log_softmax(wide / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits.detach().to(wide.dtype) / temperature, dim=1)
    taught = F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1).mean()
    return (1.0 - weight) * given + weight * temperature**2 * taught

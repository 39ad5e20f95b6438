"""The float network's say in the loss: closed forms, gradients, and a training that stops and goes on."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import waveq


def logits(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_closed_form_for_two_classes() -> None:
    """Teacher 3 : 1 and student 1 : 1 at T = 2: KL = 3/4 ln(3/2) + 1/4 ln(1/2), times 4; the label costs ln 2."""
    student, teacher = torch.zeros(1, 2), torch.tensor([[2 * math.log(3), 0.0]])
    kl = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    for weight in (0.0, 0.3, 1.0):
        loss = waveq.distillation_loss(student, teacher, torch.tensor([0]), temperature=2.0, weight=weight)
        assert float(loss) == pytest.approx((1 - weight) * math.log(2) + weight * 4 * kl, rel=1e-6)


def test_a_student_like_its_teacher_pays_for_the_labels_alone() -> None:
    x, y = logits(0, 6, 5), torch.tensor([0, 1, 2, 3, 4, 0])
    loss = waveq.distillation_loss(x, x.clone(), y, weight=0.75)
    assert float(loss) == pytest.approx(0.25 * float(F.cross_entropy(x, y)))
    assert float(waveq.distillation_loss(x, x + 3.0, y, weight=1.0)) == pytest.approx(0.0, abs=1e-12)


def test_gradients() -> None:
    x, told, y = logits(1, 4, 3).requires_grad_(), logits(2, 4, 3), torch.tensor([0, 1, 2, 1])
    assert torch.autograd.gradcheck(lambda s: waveq.distillation_loss(s, told, y, temperature=3.0, weight=0.4), x)
    teacher = told.clone().requires_grad_()
    waveq.distillation_loss(x, teacher, y).backward()
    assert teacher.grad is None


def test_at_high_temperature_it_is_half_the_squared_distance_of_centred_logits() -> None:
    """Section 2.1 of the paper: the gradient tends to (z - v)/C for logits of zero mean."""
    x, told = (value - value.mean(1, keepdim=True) for value in (logits(3, 5, 4), logits(4, 5, 4)))
    loss = waveq.distillation_loss(x, told, torch.zeros(5, dtype=torch.long), temperature=1e4, weight=1.0)
    assert float(loss) == pytest.approx(float((x - told).square().sum(1).mean()) / (2 * 4), rel=1e-3)


def test_mixed_targets_are_mixtures_of_their_losses() -> None:
    x, told = logits(5, 4, 3), logits(6, 4, 3)
    one, other = torch.tensor([0, 1, 2, 0]), torch.tensor([2, 2, 1, 1])
    mixed = 0.7 * F.one_hot(one, 3) + 0.3 * F.one_hot(other, 3)
    parts = [waveq.distillation_loss(x, told, y) for y in (one, other)]
    torch.testing.assert_close(waveq.distillation_loss(x, told, mixed), 0.7 * parts[0] + 0.3 * parts[1])


def test_pixels_count_like_images() -> None:
    x, told, y = logits(7, 2, 3, 4), logits(8, 2, 3, 4), torch.tensor([[0, 1, 2, 0], [1, 1, 2, 2]])
    flat = [value.transpose(1, 2).reshape(8, 3) for value in (x, told)]
    torch.testing.assert_close(waveq.distillation_loss(x, told, y), waveq.distillation_loss(*flat, y.reshape(8)))


def test_half_precision_is_computed_wide() -> None:
    x, told, y = logits(9, 4, 3).bfloat16(), logits(10, 4, 3).bfloat16(), torch.tensor([0, 1, 2, 1])
    wide = waveq.distillation_loss(x.float(), told.float(), y)
    assert torch.equal(waveq.distillation_loss(x, told, y), wide)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"teacher_logits": torch.zeros(4, 2)}, r"teacher_logits.*\(4, 2\) beside \(4, 3\).*same classes"),
        ({"temperature": 0.0}, "temperature must be above 0, not 0.0"),
        ({"temperature": float("nan")}, "temperature must be above 0, not nan"),
        ({"weight": 1.5}, "weight must lie between 0 and 1, not 1.5"),
    ],
)
def test_bad_input(changes: dict[str, object], complaint: str) -> None:
    given = {"logits": torch.zeros(4, 3), "teacher_logits": torch.zeros(4, 3), "targets": torch.tensor([0, 1, 2, 1])}
    with pytest.raises(ValueError, match=complaint):
        waveq.distillation_loss(**(given | changes))  # type: ignore[arg-type]

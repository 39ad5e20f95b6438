"""What makes learned bits doubtful: one sentence for each thing that went wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from waveq.functional import BETA_MIN, magnitude_bits
from waveq.method.operands import operands_of
from waveq.method.progress import Progress
from waveq.method.settings import Settings
from waveq.method.settling import drift_of, start_of, stray_of

__all__ = ["BetaRecord", "diagnose", "diagnose_bits", "diagnose_loose_budget"]

_EDGE = 0.02  # closer to the lower clamp than this is collapse
_LOCK = 0.25  # bits travelled by less than this from the start is lock
_STRAY = 0.5  # bits; betas that are left so far from where they rest give other bits more often than not
_ALIKE = 0.1  # betas closer together than this have told the layers apart by nothing


@dataclass(frozen=True, kw_only=True)
class BetaRecord:
    """What became of one layer's beta.

    Attributes:
        start: where it began.
        end: where it ended.
        bits: the total bits that the layer got; 0 while they are learned.
        now: the total bits that the end gives, within the budget where one is set.
        later: the total bits that as many steps again as at the end of phase 2 would give at least (see ``settling``);
            where no drift is larger than chance they are the same.
        stray: how far it strayed at the end of phase 2, standard deviation in bits.
    """

    start: float
    end: float
    bits: int
    now: int = 0
    later: int = 0
    stray: float = 0.0


def diagnose_bits(progress: Progress, settings: Settings, *, unpriced: str = "", task_kept: bool = False) -> list[str]:
    """``diagnose`` for a run as it stands, frozen or not, within its budget or not.

    Args:
        progress: where the run stands.
        settings: what ``attach`` decided.
        unpriced: that the penalty took no part in training, where it did not; it explains all else.
        task_kept: see ``diagnose``.
    """
    if unpriced or not progress.learned:
        return [unpriced] if unpriced else []
    preset, budget, schedule = settings.preset, settings.budget, settings.schedule
    records = _records(progress, settings)
    used = 0.0 if budget is None else progress.cost() / budget.limit
    findings = diagnose(
        records,
        progress.phase2_steps,
        budget_is_used=used > 0.9,
        task_moves_beta=preset.task_moves_beta,
        task_kept=task_kept,
    )
    if budget is not None and not progress.learning and progress.dual < 0.0:
        findings += diagnose_loose_budget(records, f"{budget.objective} <= {budget.limit:g}")
    if progress.learning:
        findings.append(
            f"the bits are not frozen: step {progress.step} of {settings.total_steps}, phase {progress.phase}; phase 3 "
            f"begins at step {schedule.fall}."
        )
    elif budget is not None and used > 1.0 + 1e-6:
        findings.append(f"the budget {budget.objective} <= {budget.limit:g} was not met: {used * budget.limit:.4g}.")
    return findings


def _records(progress: Progress, settings: Settings) -> dict[str, BetaRecord]:
    operands = [operand for operand in operands_of(progress.running) if operand in progress.learned]
    ends = {operand.name: operand.beta for operand in operands}
    travels = {operand.name: operand.state.trend.tolist() for operand in operands}
    low, high = settings.beta_range
    start = start_of(budgeted=settings.budget is not None)
    later = {}
    for name, travel in travels.items():
        steps, settle = progress.phase2_steps, settings.preset.settle
        drift = drift_of(travel, steps, settle, start=start, layers=len(travels))
        later[name] = min(high, max(low, ends[name] + drift))
    hysteresis = progress.learned[0].state.hysteresis
    now, then = (_total_bits(betas, hysteresis, settings, progress) for betas in (ends, later))
    return {
        operand.name: BetaRecord(
            start=operand.state.first_beta,
            end=operand.beta,
            bits=operand.state.bits_now,
            now=now[operand.name],
            later=then[operand.name],
            stray=stray_of(travels[operand.name], progress.phase2_steps, start=start),
        )
        for operand in operands
    }


def _total_bits(
    betas: Mapping[str, float], hysteresis: float, settings: Settings, progress: Progress
) -> dict[str, int]:
    """What freezing makes of betas."""
    found = magnitude_bits(torch.tensor(list(betas.values())), hysteresis) + 1.0
    ceiled = {name: int(bits) for name, bits in zip(betas, found.tolist(), strict=True)}
    return ceiled if settings.budget is None else settings.budget.round(betas, ceiled, progress.preset_bits())


def diagnose_loose_budget(records: Mapping[str, BetaRecord], budget: str) -> list[str]:
    """Whether a budget that is used up only at a price below the schedule's own left all layers alike.

    Args:
        records: what became of each layer's beta.
        budget: its objective and limit, in words.
    """
    ends = [record.end for record in records.values()]
    bits = {record.bits for record in records.values()}
    if len(ends) < 2 or (max(ends) - min(ends) > _ALIKE and len(bits) > 1):
        return []
    got = " or ".join(map(str, sorted(bits)))
    return [
        f"all {len(ends)} layers ended alike, at {got} total bits: the target {budget} is looser than the point at "
        "which the bits would rest without one, and nothing was learned about which layer needs more. Set a tighter "
        "target, or preset the bits and save the search."
    ]


def diagnose(
    records: Mapping[str, BetaRecord],
    phase2_steps: int,
    *,
    budget_is_used: bool = False,
    task_moves_beta: bool = False,
    task_kept: bool = False,
) -> list[str]:
    """One sentence for each thing that makes the learned bits doubtful; empty when there is none.

    Args:
        records: what became of each layer's beta.
        phase2_steps: length of phase 2.
        budget_is_used: whether a budget is set and the bits come close to it. Then it is the reason for layers at
            either end of the range, which are no sign of collapse or lock.
        task_moves_beta: whether the task loss holds beta up. Then a layer at the lower limit is one that the task can
            do without more bits for; only when most layers are there is the price too high.
        task_kept: whether the network is known to be as good with these bits as it was in floating point. Then layers
            at the lower limit need no more bits, however many they are.

    Example:
        >>> diagnose({"conv1": BetaRecord(start=7.0, end=7.0, bits=8)}, 100)[0][:44]
        'beta did not move from 7 in: conv1. The weig'
    """
    collapsed = [name for name, r in records.items() if r.end <= BETA_MIN + _EDGE and not budget_is_used]
    if task_kept or (task_moves_beta and 2 * len(collapsed) <= len(records)):
        collapsed = []
    locked = [name for name, r in records.items() if abs(r.end - r.start) < _LOCK and not budget_is_used]
    cut = [name for name, r in records.items() if r.bits and r.end - (r.bits - 1) > 1.0 + _EDGE]
    moving = [name for name, r in records.items() if r.later != r.now]
    straying = [f"{name} (by {r.stray:.1f} bits)" for name, r in records.items() if r.stray > _STRAY]
    start = next(iter(records.values())).start if records else 0.0
    findings = [
        (collapsed, "beta collapsed to its lower limit in: {}. Lower lambda_beta, or set a target."),
        (
            locked,
            f"beta did not move from {start:g} in: {{}}. The weights clustered before the bits fell, or lambda_beta is "
            "too low: raise lambda_beta, or let phase 2 begin earlier.",
        ),
        (
            moving,
            "beta was still moving when the bits froze in: {}. As many steps again as at the end of phase 2 would "
            f"change {_listing([f'{name} from {records[name].now} to {records[name].later} bits' for name in moving])}."
            " Train longer, or raise beta_lr.",
        ),
        (
            straying,
            f"beta still went far at the end of phase 2, which had {phase2_steps} steps, in: {{}}. Another order of "
            "the same data would give these layers other bits more often than not: train longer.",
        ),
        (
            cut,
            "the budget was met by force: more than a bit was rounded down in: {}. Training had not got there: train "
            "longer, or raise beta_lr.",
        ),
    ]
    return [text.format(_listing(names)) for names, text in findings if names]


def _listing(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")

"""What makes learned bits doubtful: one sentence for each thing that went wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from waveq.functional import BETA_MIN
from waveq.method.progress import Progress
from waveq.method.settings import Settings

__all__ = ["BetaRecord", "diagnose", "diagnose_bits"]

_EDGE = 0.02  # closer to the lower clamp than this is collapse
_LOCK = 0.25  # bits travelled by less than this from the start is lock
_UNFINISHED = 0.5  # bits that another quarter of phase 2 would still have travelled


@dataclass(frozen=True, kw_only=True)
class BetaRecord:
    """One layer's beta: where it began and ended, how fast it still moved (bits a step), and the total bits it got."""

    start: float
    end: float
    trend: float
    bits: int


def diagnose_bits(progress: Progress, settings: Settings) -> list[str]:
    """``diagnose`` for a run as it stands, frozen or not, within its budget or not; empty where bits are preset.

    Args:
        progress: where the run stands.
        settings: what ``attach`` decided.
    """
    if not progress.learned:
        return []
    preset, budget, schedule = settings.preset, settings.budget, settings.schedule
    records = {
        layer.name: BetaRecord(
            start=preset.beta_init, end=layer.beta, trend=float(layer.state.trend), bits=layer.state.bits_now
        )
        for layer in progress.learned
        if layer in progress.running
    }
    used = 0.0 if budget is None else progress.cost() / budget.limit
    findings = diagnose(
        records, progress.phase2_steps, budget_is_used=used > 0.9, task_moves_beta=preset.task_moves_beta
    )
    if progress.learning:
        findings.append(
            f"the bits are not frozen: step {progress.step} of {settings.total_steps}, phase {progress.phase}; phase 3 "
            f"begins at step {schedule.fall}."
        )
    elif budget is not None and used > 1.0 + 1e-6:
        findings.append(f"the budget {budget.objective} <= {budget.limit:g} was not met: {used * budget.limit:.4g}.")
    return findings


def diagnose(
    records: Mapping[str, BetaRecord],
    phase2_steps: int,
    *,
    budget_is_used: bool = False,
    task_moves_beta: bool = False,
) -> list[str]:
    """One sentence for each thing that makes the learned bits doubtful; empty when there is none.

    Args:
        records: what became of each layer's beta.
        phase2_steps: length of phase 2.
        budget_is_used: whether a budget is set and the bits come close to it. Then it is the reason for layers at
            either end of the range, which are no sign of collapse or lock.
        task_moves_beta: whether the task loss holds beta up. Then a layer at the lower limit is one that the task can
            do without more bits for; only when most layers are there is the price too high.

    Example:
        >>> diagnose({"conv1": BetaRecord(start=7.0, end=7.0, trend=0.0, bits=8)}, 100)[0][:44]
        'beta did not move from 7 in: conv1. The weig'
    """
    collapsed = [name for name, r in records.items() if r.end <= BETA_MIN + _EDGE and not budget_is_used]
    if task_moves_beta and 2 * len(collapsed) <= len(records):
        collapsed = []
    locked = [name for name, r in records.items() if abs(r.end - r.start) < _LOCK and not budget_is_used]
    cut = [name for name, r in records.items() if r.bits and r.end - (r.bits - 1) > 1.0 + _EDGE]
    moving = [
        name
        for name, r in records.items()
        if r.end > BETA_MIN + _EDGE and abs(r.trend) * phase2_steps / 4 > _UNFINISHED
    ]
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
            "beta was still moving when the bits froze in: {}. Its value was set by time, not by balance: train "
            "longer, or raise beta_lr.",
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

"""What the strengths imply before training, and what went wrong with the bits afterwards."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from waveq.functional import BETA_MIN, equilibrium_beta

__all__ = ["BetaRecord", "diagnose", "forecast_sine", "forecast_task"]

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


def forecast_sine(
    lambda_w: float,
    lambda_beta: float,
    order: int,
    clamp: tuple[float, float],
    spread: Mapping[str, float],
    costs: Mapping[str, float],
) -> str:
    """The resting point of beta under the sine alone, and the layers too narrow for it to hold.

    Args:
        lambda_w: strength of the wave in phase 2.
        lambda_beta: price of one bit in phase 2.
        order: k of R_k.
        clamp: range of beta.
        spread: standard deviation of u by layer; the sine cannot hold a layer with lambda_beta > 0.5 std lambda_w.
        costs: relative cost of a bit by layer, which multiplies lambda_beta.

    Example:
        >>> print(forecast_sine(1.0, 0.05, 1, (1.0, 7.0), {"conv1": 0.3}, {"conv1": 1.0}))
        lambda_w 1 and lambda_beta 0.05 imply beta = 2.79, 4 total bits, in every layer (sine alone, spread weights).
    """
    rests = {}
    for name in spread:
        beta = equilibrium_beta(lambda_w, lambda_beta * costs[name], order=order)
        rests[name] = min(clamp[1], max(clamp[0], beta))
    told = {name: f"beta = {beta:.2f}, {math.ceil(beta) + 1} total bits" for name, beta in rests.items()}
    if len(set(told.values())) == 1:
        where = f"{next(iter(told.values()))}, in every layer"
    else:
        where = "; ".join(f"{name} {text}" for name, text in told.items())
    text = f"lambda_w {lambda_w:g} and lambda_beta {lambda_beta:g} imply {where} (sine alone, spread weights)."
    weak = [name for name, std in spread.items() if lambda_beta * costs[name] > 0.5 * std * lambda_w]
    if weak:
        text += (
            f" Expect collapse to {clamp[0] + 1:g} bits where the weights are too narrow for the sine to hold beta "
            f"(lambda_beta > 0.5 std(u) lambda_w): {', '.join(weak)}; lower lambda_beta."
        )
    return text


def forecast_task(lambda_beta: float, budget: str | None) -> str:
    """Where beta rests when the task loss moves it: the loss that a layer's rounding costs balances the bit's price.

    Rounding error shrinks as 4^-beta, so a layer whose rounding costs L nats pushes beta up with 2 ln2 L, and rests at
    L = lambda_beta c_i / (2 ln2).

    Example:
        >>> print(forecast_task(0.02, None))
        lambda_beta 0.02 lets the rounding of an average layer cost 0.0144 of task loss; bits settle where it does.
    """
    if budget is not None:
        return f"The price of a bit will be driven until the policy meets {budget}."
    return (
        f"lambda_beta {lambda_beta:g} lets the rounding of an average layer cost {lambda_beta / (2 * math.log(2)):.3g} "
        "of task loss; bits settle where it does."
    )


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

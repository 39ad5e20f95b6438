"""What the strengths imply for the bits, to read before training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from waveq.functional import equilibrium_beta
from waveq.method.settings import Settings, WaveLayer

__all__ = ["forecast", "forecast_sine", "forecast_task"]


@torch.no_grad()
def forecast(layers: Sequence[WaveLayer], settings: Settings) -> str:
    """The forecast for a run: by what moves its betas, at the strengths in the middle of phase 2."""
    learned = [layer for layer in layers if layer.state.learns]
    inputs = [layer for layer in layers if layer.state.inputs is not None and layer.state.inputs.learns]
    if not learned:
        text = f"Bits are preset: {', '.join(f'{layer.name} {layer.total_bits}' for layer in layers)}."
        return f"{text} {_of_inputs(inputs, settings)}" if inputs else text
    if inputs:
        return _of_inputs(inputs, settings)
    schedule, budget = settings.schedule, settings.budget
    lambda_w, lambda_beta = schedule((schedule.rise + (schedule.fall or schedule.rise)) // 2)
    if budget is not None:
        return forecast_task(lambda_beta, f"{budget.objective} <= {budget.limit:g}")
    if not settings.preset.sine_moves_beta:
        return forecast_task(lambda_beta, None)
    spread = {layer.name: float(layer.wave_input(settings.wave_on).std(correction=0)) for layer in learned}
    return forecast_sine(lambda_w, lambda_beta, settings.order, settings.beta_range, spread, settings.bit_costs)


def _of_inputs(inputs: Sequence[WaveLayer], settings: Settings) -> str:
    """Where inputs are learned, the task moves all betas."""
    schedule, budget = settings.schedule, settings.budget
    _, lambda_beta = schedule((schedule.rise + (schedule.fall or schedule.rise)) // 2)
    limit = None if budget is None else f"{budget.objective} <= {budget.limit:g}"
    return f"{forecast_task(lambda_beta, limit)} The bits of the inputs of {len(inputs)} layers are learned too."


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

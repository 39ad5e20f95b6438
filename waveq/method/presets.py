"""Three readings of the method, each with its differences named: as printed, as released, as we recommend it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from waveq._names import suggestion
from waveq.functional import BETA_MAX
from waveq.quantizers.base import ScaleMode

__all__ = ["PRESETS", "Preset", "get_preset"]


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Every choice on which the three readings differ.

    Attributes:
        name: how users ask for it.
        phases: where phase 2 and phase 3 begin, as shares of the run (three-phase schedule).
        wave_rise: where the wave on the weights rises, as a share of the run.
        settle: the share of phase 2, its end, over which beta's rate falls to 0, so that beta comes to rest.
        order: k of R_k (eq. 2.5).
        wave_on: which tensor the wave acts on: what the quantiser rounds, or the raw weights.
        scale: output scale of the quantised weights.
        lambda_w: strength of the wave on the weights; with ``balance`` a share, see there.
        balance: whether lambda_w is relative to the task: 1 makes the wave's gradient as long as the layer's own.
        pinning: on the float road, the strengths at which the wave begins and ends where its schedule is "rising".
        freezing: on the float road, the exponent of the course by which weights freeze; None where they do not.
        lambda_beta: price of one bit of an average layer, in units of the task loss.
        beta_init: where every beta starts.
        beta_max: upper clamp of beta.
        beta_lr: rate of beta's plain SGD; None derives it from the length of phase 2 (see ``WaveQ``).
        beta_momentum: momentum of that SGD.
        beta_weight_decay: decay of that SGD.
        sine_moves_beta: whether the sine term's gradient reaches beta.
        task_moves_beta: whether the task loss reaches beta through the grid's stretch c(beta).
        quantize_from_phase: the phase in which the forward pass begins to use quantised weights.
        hysteresis: b = ceil(beta - hysteresis) when the bits freeze.
        snap: whether frozen layers use all levels of their b bits (c = 1) or keep the stretched grid of their beta.
        ranges_from_data: whether inputs that DoReFa would clip to [0, 1] get a range from the first batch.
        differences: what a reader of the paper should know, one sentence each.
    """

    name: Literal["paper", "released", "recommended"]
    phases: tuple[float, float]
    wave_rise: float
    settle: float
    order: int
    wave_on: Literal["quantizer", "raw"]
    scale: ScaleMode
    lambda_w: float
    balance: bool
    pinning: tuple[float, float]
    freezing: float | None
    lambda_beta: float
    beta_init: float
    beta_max: float
    beta_lr: float | None
    beta_momentum: float
    beta_weight_decay: float
    sine_moves_beta: bool
    task_moves_beta: bool
    quantize_from_phase: Literal[1, 2, 3]
    hysteresis: float
    snap: bool
    ranges_from_data: bool
    differences: tuple[str, ...]


PRESETS: dict[str, Preset] = {
    "paper": Preset(
        name="paper",
        phases=(1 / 3, 3 / 4),  # Table 4's proportion 4:5:3
        wave_rise=1 / 3,
        settle=0.0,
        order=1,
        wave_on="quantizer",
        scale="none",
        lambda_w=1.0,
        balance=False,
        pinning=(0.01, 1.0),
        freezing=None,
        lambda_beta=0.05,
        beta_init=BETA_MAX,
        beta_max=BETA_MAX,
        beta_lr=None,
        beta_momentum=0.0,
        beta_weight_decay=0.0,
        sine_moves_beta=True,
        task_moves_beta=False,
        quantize_from_phase=1,
        hysteresis=0.0,
        snap=False,
        ranges_from_data=False,
        differences=(
            "The wave follows the quantiser's grid and acts on what the quantiser rounds; eq. 2.2 prints raw weights.",
            "Mean over a layer's weights instead of the printed sum.",
            "c = (2^b - 1)/(2^beta - 1) instead of the printed 2^(b/beta).",
            "beta has its own plain SGD step and stays within [1, 7]; the text says neither.",
        ),
    ),
    "released": Preset(
        name="released",
        phases=(0.2, 0.8),  # r = 0.2 T, d = 0.8 T in the scripts
        wave_rise=0.2,
        settle=0.0,
        order=1,
        wave_on="raw",
        scale="none",
        lambda_w=1.0,
        balance=False,
        pinning=(0.01, 1.0),
        freezing=None,
        lambda_beta=0.02,
        beta_init=8.0,
        beta_max=8.0,
        beta_lr=0.01,
        beta_momentum=0.9,
        beta_weight_decay=1e-4,
        sine_moves_beta=True,
        task_moves_beta=False,
        quantize_from_phase=3,
        hysteresis=0.0,
        snap=True,
        ranges_from_data=False,
        differences=(
            "The wave acts on raw weights, which do not line up with the levels of DoReFa's tanh.",
            "The forward pass stays in floating point until the bits are frozen.",
            "beta starts at 8 and takes the weights' momentum and decay (rate 0.01, the scripts' usual one).",
            "No scale anywhere: DoReFa's weights span [-1, 1] whatever the layer's weights were.",
            "beta is clamped to [1, 8] and frozen in phase 3, which the authors' scripts do by hand in a second run.",
        ),
    ),
    "recommended": Preset(
        name="recommended",
        phases=(0.05, 0.35),
        wave_rise=0.6,
        settle=0.5,
        order=1,
        wave_on="quantizer",
        scale="max",
        lambda_w=0.1,
        balance=True,
        pinning=(0.001, 10.0),
        freezing=0.5,
        lambda_beta=0.02,
        beta_init=BETA_MAX,
        beta_max=BETA_MAX,
        beta_lr=None,
        beta_momentum=0.0,
        beta_weight_decay=0.0,
        sine_moves_beta=False,
        task_moves_beta=True,
        quantize_from_phase=2,
        hysteresis=0.05,
        snap=True,
        ranges_from_data=True,
        differences=(
            "Bits are learned early, from 5 % to 35 % of the run, and beta's rate falls to 0 before they freeze: two "
            "thirds of the run are left to the weights, and the wave rises only at 60 %.",
            "The task loss moves beta through the stretch of the grid; the sine acts on the weights alone.",
            "The wave's strength is a share of the task gradient, layer by layer, so that no strength is set by hand.",
            "Weights and inputs are quantised by LSQ: levels are whole multiples of a learned step, zero included. The "
            "paper and its code have DoReFa, whose levels have no zero.",
            "A method that has the choice scales its levels to the layer's own range (max|w|).",
            "The forward pass is quantised from phase 2 on, while bits are learned.",
            "b = ceil(beta - 0.05): 3.01 does not pay for a fourth bit.",
            "Frozen layers use every level that their bits pay for (c = 1) instead of the stretched grid of beta.",
            "DoReFa's input levels span a range found in the first batch instead of [0, 1].",
        ),
    ),
}


def get_preset(name: str) -> Preset:
    """The preset, or a ValueError with the nearest name.

    Example:
        >>> get_preset("paper").lambda_beta
        0.05
    """
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}{suggestion(name, PRESETS)} (known: {', '.join(PRESETS)})")
    return PRESETS[name]

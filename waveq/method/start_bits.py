"""Where learned bits begin: at the most there are, or where somebody puts them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from waveq._names import nearest
from waveq.functional import BETA_MIN
from waveq.method.presets import Preset
from waveq.policy import Policy

__all__ = ["StartingBetas", "resolve_start"]

_NEAR = 2.0  # bits that a beta may have to go from where somebody has put it


@dataclass(frozen=True)
class StartingBetas:
    """Where betas begin.

    Attributes:
        weights: by layer, of those whose bits are learned and of the others alike.
        inputs: by layer whose inputs' bits are learned.
        travel: how far a beta may have to go, in bits.
    """

    weights: Mapping[str, float]
    inputs: Mapping[str, float]
    travel: float


def resolve_start(
    start: Mapping[str, float] | float | None, chosen: Mapping[str, int], inputs: Mapping[str, int], preset: Preset
) -> StartingBetas:
    """Where betas begin: the preset's place, or the user's total bits less one.

    Raises:
        ValueError: there is nothing to learn, a layer that does not learn its bits, or bits out of range.
    """
    usual, travel = preset.beta_init, preset.beta_max - BETA_MIN
    learned = [name for name, bits in chosen.items() if not bits]
    learned_inputs = [name for name, bits in inputs.items() if not bits]
    betas, input_betas = dict.fromkeys(chosen, usual), dict.fromkeys(learned_inputs, usual)
    if start is None:
        return StartingBetas(betas, input_betas, travel)
    if not learned and not learned_inputs:
        raise ValueError('start_bits is where learned bits begin; with preset bits nothing is learned (bits="learn")')
    if isinstance(start, Mapping):
        of_inputs = start.activation_bits if isinstance(start, Policy) else {}
        if unknown := [name for name in start if name not in chosen]:
            raise ValueError(
                f"start_bits names {unknown[0]!r}, which is no quantised layer{nearest(unknown[0], chosen)}"
            )
    else:
        start, of_inputs = dict.fromkeys(learned, start), dict.fromkeys(learned_inputs, start)
    least, most = BETA_MIN + 1, preset.beta_max + 1
    for name, bits in (*start.items(), *of_inputs.items()):
        if not least <= bits <= most:
            raise ValueError(f"start_bits must be from {least:g} to {most:g} total bits, not {bits!r} (layer {name!r})")
    betas |= {name: float(bits) - 1.0 for name, bits in start.items() if name in learned}
    input_betas |= {name: float(bits) - 1.0 for name, bits in of_inputs.items() if name in learned_inputs}
    near = set(learned) <= set(start) and set(learned_inputs) <= set(of_inputs)
    return StartingBetas(betas, input_betas, min(_NEAR, travel) if near else travel)

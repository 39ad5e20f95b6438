"""Whether a checkpoint fits the way a model was attached: keys and shapes alone do not tell.

WRPN's checkpoint has DoReFa's keys, and the network computes something else. So every layer's ``_extra_state`` says how
it was attached (``WaveParametrization.get_extra_state``), and loading compares before it changes anything.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from waveq.method.fixed_input import FIXED_INPUT
from waveq.method.notes import read_note
from waveq.method.parametrization import WaveParametrization
from waveq.method.sites import site_name

__all__ = ["compare_checkpoint", "inputs_of", "steps_told"]

_VERSION = 1
Difference = tuple[str, object, object]


def compare_checkpoint(model: nn.Module, state_dict: Mapping[str, Any], prefix: str) -> None:
    """Compare a checkpoint with an attached model; whether the lengths of the runs differ is a warning.

    Args:
        model: as it is before loading.
        state_dict: what is to be loaded.
        prefix: of the model's keys in it.

    Raises:
        RuntimeError: a difference; names what differs, in which layers, and what to do.
    """
    found: dict[Difference, list[str]] = {}
    lengths: set[tuple[int, int, bool]] = set()
    for module, tensor, state in _attached(model):
        name = site_name(module, tensor)
        told = _told_of(state_dict, f"{prefix}{module}.", tensor)
        if told is None:
            continue
        for difference in _differences(state, told):
            found.setdefault(difference, []).append(name)
        steps, own = told.get("total_steps"), state.total_steps
        if state.attached_bits == 0 == told.get("bits") and steps and own and steps != own:
            lengths.add((steps, own, told["total_bits"] > 0))
    for steps, own, frozen in sorted(lengths)[-1:]:
        then = (
            "its bits are fixed already and stay as they are" if frozen else "its schedule goes on as that of this run"
        )
        warnings.warn(
            f"the checkpoint is of a run with total_steps={steps}, this one has total_steps={own}: {then}.",
            stacklevel=5,
        )
    if not found:
        return
    listed = "; ".join(
        f"{what} {told!r} there, {own!r} here (layer{'s' * (len(names) > 1)} {', '.join(names)})"
        for (what, told, own), names in found.items()
    )
    raise RuntimeError(
        f"the checkpoint does not fit the way this model was attached: {listed}. Attach as the checkpoint was. To "
        "take its numbers all the same, leave out its keys that end in '_extra_state'. Nothing was loaded."
    )


def inputs_of(state: WaveParametrization) -> tuple[str | None, int | str | None]:
    """Method and bits of a layer's inputs; "learn" where those are learned."""
    if state.activation is None:
        return None, None
    return state.activation.method, state.activation.bits if state.inputs is None else "learn"


def steps_told(state_dict: Mapping[str, Any]) -> int | None:
    """The ``total_steps`` of the run that a checkpoint is of; None where it says nothing of them."""
    notes = (read_note(value) for key, value in state_dict.items() if key.endswith(".0._extra_state"))
    told = (note.get("total_steps") for note in notes if note is not None)
    return next((steps for steps in told if steps), None)


def _attached(model: nn.Module) -> Iterator[tuple[str, str, WaveParametrization]]:
    """Each module's name, the tensor's in it, and its parametrisation."""
    for name, module in model.named_modules():
        chains = module._modules.get("parametrizations")
        for tensor, chain in () if chains is None else chains._modules.items():
            state = None if chain is None else chain._modules.get("0")
            if isinstance(state, WaveParametrization):
                yield name, tensor, state


def _told_of(state_dict: Mapping[str, Any], prefix: str, tensor: str) -> dict[str, Any] | None:
    """What a checkpoint says of a layer, with its present ``total_bits``; None where it says nothing."""
    fixed = read_note(state_dict.get(f"{prefix}{FIXED_INPUT}._extra_state"))
    if fixed is not None:
        return {"version": _VERSION, "inputs": fixed.get("method"), "input_bits": fixed.get("bits")}
    inner = f"{prefix}parametrizations.{tensor}.0."
    told, bits = read_note(state_dict.get(f"{inner}_extra_state")), state_dict.get(f"{inner}total_bits")
    if told is None or not isinstance(bits, Tensor):
        return None
    found = state_dict.get(f"{inner}inputs.total_bits")
    learned = {"found_bits": int(found)} if isinstance(found, Tensor) and int(found) else {}
    return {**told, "total_bits": int(bits), **learned}


def _differences(state: WaveParametrization, told: Mapping[str, Any]) -> Iterator[Difference]:
    if told.get("version") != _VERSION:
        yield "version of the checkpoint", told.get("version"), _VERSION
        return
    inputs = told.get("inputs"), told.get("input_bits")
    if inputs[1] == "learn" and state.inputs is None:  # goes on with the bits that were found
        inputs = inputs[0], told.get("found_bits", "learn")
    told = {"granularity": "layer", **told} if "scale" in told else told  # from before there was another one
    own = {
        "quantizer": state.quantizer.method,
        "scale": state.quantizer.scale,
        "granularity": state.quantizer.granularity,
    }
    for what, value in own.items():
        if what in told and told[what] != value:
            yield what, told[what], value
    for what, there, here in zip(("activation_quantizer", "activation_bits"), inputs, inputs_of(state), strict=True):
        if there != here:
            yield what, there, here
    if "bits" not in told:
        return
    if state.attached_bits == 0 and told["bits"] != 0:
        yield "bits", told["bits"], "learn"
    elif state.attached_bits != 0 and told["total_bits"] not in (0, state.attached_bits):
        yield "bits", told["total_bits"], state.attached_bits

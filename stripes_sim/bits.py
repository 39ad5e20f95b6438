"""Bits per layer, checked at the door: an int for all layers, or a mapping by layer name."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from stripes_sim.layers import LARGEST, LayerShape

__all__ = ["MAX_BITS", "MIN_BITS", "checked_batch", "nearest", "resolve_bits", "stationary_bits", "streamed_bits"]

MIN_BITS, MAX_BITS = 1, 16


def nearest(name: str, known: Sequence[str]) -> str:
    """``"; did you mean 'conv1'?"`` for the known name most like ``name``, or nothing.

    >>> nearest("cnov1", ["conv1", "fc"])
    "; did you mean 'conv1'?"
    """
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def resolve_bits(
    names: Sequence[str],
    bits: int | Mapping[str, int],
    *,
    argument: str,
    default_bits: int | None = None,
) -> npt.NDArray[np.int64]:
    """The bits of every layer in ``names``, an (L,) int64 array.

    Args:
        names: layer names, in order; a repeated name gets the same bits each time.
        bits: total stored bits (sign included), 1 to 16: one int for all, or a mapping by name. A mapping may have an
            attribute ``skipped``, names that it leaves in floating point on purpose: they count the full 16 bits.
        argument: what to call ``bits`` in a message.
        default_bits: bits of layers that the mapping leaves out; without it they are an error.

    Raises:
        TypeError: bits that are not integers.
        ValueError: bits outside 1..16, a layer left out, or a name that is no layer.

    >>> resolve_bits(["conv1", "fc"], {"conv1": 3, "fc": 8}, argument="weight_bits")
    array([3, 8])
    """
    if default_bits is not None:
        default_bits = _checked(default_bits, "default_bits", None)
    if not isinstance(bits, Mapping):
        return np.full(len(names), _checked(bits, argument, None), dtype=np.int64)
    known = dict.fromkeys(names)
    bits = _with_skipped(bits, known)
    unknown = [name for name in bits if name not in known]
    missing = [] if default_bits is not None else [name for name in known if name not in bits]
    if unknown:
        # a misspelt layer is both unknown and missing: its nearest name is what helps
        name = unknown[0]
        raise ValueError(
            f"{argument} names {_listed(unknown)}, which is no layer of this workload"
            f"{nearest(name, missing or [*known])} (layers: {_listed([*known])})"
        )
    if missing:
        raise ValueError(
            f"{argument} has no bits for layer {_listed(missing)}; add them, or give default_bits for layers left out"
        )
    return np.array(
        [_checked(bits[name], argument, name) if name in bits else default_bits for name in names],
        dtype=np.int64,
    )


def stationary_bits(
    layers: Sequence[LayerShape], bits: int | Mapping[str, int], *, default_bits: int | None = None
) -> npt.NDArray[np.int64]:
    """Weight bits of every layer, (L, 1) int64; 1 for layers without weights, which nobody looks at.

    Raises:
        TypeError, ValueError: as in `resolve_bits`.
    """
    weighted = [layer.name for layer in layers if layer.has_weights]
    resolved = resolve_bits(weighted, bits, argument="weight_bits", default_bits=default_bits)
    found = dict(zip(weighted, resolved.tolist(), strict=True))
    return np.array([[found.get(layer.name, 1)] for layer in layers], dtype=np.int64)


def streamed_bits(
    layers: Sequence[LayerShape], bits: int | Mapping[str, int], *, default_bits: int | None = None
) -> npt.NDArray[np.int64]:
    """Activation bits of every layer; those without weights (products, lookups) may be left out and stay at 16.

    Raises:
        TypeError, ValueError: as in `resolve_bits`.
    """
    if isinstance(bits, Mapping):
        stays = MAX_BITS if default_bits is None else default_bits
        bits = {**{layer.name: stays for layer in layers if not layer.has_weights}, **bits}
    return resolve_bits([layer.name for layer in layers], bits, argument="activation_bits", default_bits=default_bits)


def checked_batch(batch: object) -> int:
    """``batch`` as an int.

    Raises:
        ValueError: no whole number of samples, none at all, or more than 2^53.
    """
    if isinstance(batch, bool) or not hasattr(batch, "__index__") or batch.__index__() < 1:
        raise ValueError(f"batch must be a whole number of samples, at least 1, but it is {batch!r}")
    number = int(batch.__index__())
    if number > LARGEST:
        raise ValueError(f"batch must be at most 2^53 samples, but it is {number}")
    return number


def _with_skipped(bits: Mapping[str, int], known: Collection[str]) -> Mapping[str, int]:
    skipped = [name for name in getattr(bits, "skipped", ()) if name in known and name not in bits]
    return {**dict.fromkeys(skipped, MAX_BITS), **bits}


def _checked(value: object, argument: str, name: str | None) -> int:
    where = f"{argument} of layer {name!r}" if name else argument
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{where} must be an integer from {MIN_BITS} to {MAX_BITS}, but it is {value!r}")
    number = int(value.__index__())
    if not MIN_BITS <= number <= MAX_BITS:
        raise ValueError(f"{where} must be from {MIN_BITS} to {MAX_BITS}, but it is {number}")
    return number


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:8])
    return shown if len(names) <= 8 else f"{shown}, ... ({len(names)} in all)"

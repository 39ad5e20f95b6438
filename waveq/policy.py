"""A policy: how many bits each layer gets, with where they came from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from numbers import Integral, Real
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from waveq._bits import Granularity, check_activation_bits, check_total_bits
from waveq._files import write_json
from waveq._names import check_choice

__all__ = ["Policy"]

FORMAT = "waveq-policy/1"
COVERAGE = "coverage"  # the key in the provenance: what share of the weights the policy speaks of


class Policy(Mapping[str, int]):
    """Total stored weight bits (sign included) by layer name: an immutable mapping that saves and loads.

    It compares equal to any mapping with the same layers and bits.

    Args:
        bits: total bits by ``named_modules()`` name, 1 to 9.
        activation_bits: bits of the layers' inputs; a layer that is missing keeps its inputs in floating point.
        betas: the real magnitude bits that were learned.
        scales: distance between neighbouring levels in units of the weights, of layers that have one for all weights;
            a weight is ``scale`` times an integer (mid-tread grid) or half-integer (mid-rise grid).
        weight_counts: weights per layer, for sizes.
        skipped: layers left in floating point on purpose.
        quantizer: method that the bits were learned or meant for.
        granularity: what had a scale of its own there: "layer", or "channel", each output channel.
        provenance: anything that says where the policy came from (JSON values).

    Raises:
        ValueError: no layers, bits out of range, or an annotation for an unknown layer.

    Example:
        >>> policy = Policy({"conv1": 8, "fc": 3}, weight_counts={"conv1": 100, "fc": 900})
        >>> policy["fc"], policy.mean_bits, policy.weight_bytes
        (3, 5.5, 437.5)
        >>> policy == {"conv1": 8, "fc": 3}
        True
    """

    def __init__(
        self,
        bits: Mapping[str, int],
        *,
        activation_bits: Mapping[str, int] | None = None,
        betas: Mapping[str, float] | None = None,
        scales: Mapping[str, float] | None = None,
        weight_counts: Mapping[str, int] | None = None,
        skipped: tuple[str, ...] = (),
        quantizer: str | None = None,
        granularity: Granularity | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(bits, Mapping):
            raise TypeError(f"bits must be a mapping of layers to total bits, not {bits!r}")
        if not bits:
            raise ValueError("a policy needs at least one layer")
        self._bits = {str(name): check_total_bits(value, layer=str(name)) for name, value in bits.items()}
        self.activation_bits = self._annotation("activation_bits", activation_bits, _activation_bits)
        self.betas = self._annotation("betas", betas, _finite)
        self.scales = self._annotation("scales", scales, _finite)
        self.weight_counts = self._annotation("weight_counts", weight_counts, _count)
        self.skipped = tuple(skipped)
        self.quantizer = quantizer
        if granularity is not None:
            check_choice("granularity", granularity, get_args(Granularity))
        self.granularity = granularity
        self.provenance: Mapping[str, Any] = MappingProxyType(dict(provenance or {}))

    def _annotation(
        self, what: str, values: Mapping[str, Any] | None, check: Callable[[str, str, Any], Any]
    ) -> Mapping[str, Any]:
        unknown = sorted(set(values or {}) - set(self._bits))
        if unknown:
            raise ValueError(f"{what} names layers that the policy does not have: {', '.join(unknown)}")
        return MappingProxyType({name: check(what, name, value) for name, value in (values or {}).items()})

    def __reduce__(self) -> tuple[Any, ...]:
        return _from_json, (self.to_json(),)

    def __getitem__(self, name: str) -> int:
        return self._bits[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._bits)

    def __len__(self) -> int:
        return len(self._bits)

    def __repr__(self) -> str:
        inner = ", ".join(f"{name}: {bits}" for name, bits in self._bits.items())
        told = self.provenance.get(COVERAGE)
        share = told.get("share") if isinstance(told, Mapping) else None
        of = f" of {100 * share:.1f} % of the weights" if isinstance(share, float) else ""
        return f"Policy({inner}; mean {self.mean_bits:.2f} bits{of})"

    @property
    def mean_bits(self) -> float:
        """Mean over layers, each counting once, as the paper reports it."""
        return sum(self._bits.values()) / len(self._bits)

    @property
    def weight_bytes(self) -> float:
        """Bytes of all weights, packed.

        Raises:
            ValueError: the policy does not know its layers' weight counts.
        """
        if set(self.weight_counts) != set(self._bits):
            raise ValueError("this policy does not say how many weights each layer has (weight_counts)")
        return float(sum(bits * self.weight_counts[name] for name, bits in self._bits.items())) / 8

    def to_json(self) -> dict[str, Any]:
        """The policy as JSON values, the form of the file."""
        return {
            "format": FORMAT,
            "bits": dict(self._bits),
            "activation_bits": dict(self.activation_bits),
            "betas": dict(self.betas),
            "scales": dict(self.scales),
            "weight_counts": dict(self.weight_counts),
            "skipped": list(self.skipped),
            "quantizer": self.quantizer,
            "granularity": self.granularity,
            "provenance": dict(self.provenance),
        }

    def save(self, path: Path | str) -> None:
        """Write the policy as JSON; the file appears whole or not at all, missing folders are made.

        Raises:
            OSError: the file cannot be written.
        """
        write_json(path, self.to_json())

    @classmethod
    def load(cls, path: Path | str) -> Policy:
        """Read a saved policy, or a plain JSON object of layer names to bits.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not JSON, or a field that is wrong; the message names the file, the field and what was expected.
        """
        from waveq._policy_file import read_policy_file

        fields = read_policy_file(Path(path))
        try:
            return cls(**fields)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def _from_json(fields: dict[str, Any]) -> Policy:
    return Policy(**{name: value for name, value in fields.items() if name != "format"})


def _activation_bits(_what: str, name: str, value: Any) -> int:
    return check_activation_bits(value, layer=name)


def _finite(what: str, name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise ValueError(f"{what}[{name!r}] must be a finite number, not {value!r}")
    return float(value)


def _count(what: str, name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 0:
        raise ValueError(f"{what}[{name!r}] must be a number of weights, not {value!r}")
    return int(value)

"""The design space: which bit widths each layer may take, and every policy that follows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pareto._check import nearest
from pareto._policies import MAX_BITS, Policies, policy_rows

__all__ = ["MAX_BITS", "DesignSpace", "Policies"]

_LARGEST_ARRAY = 2**31  # bytes that policies() agrees to build at once


class DesignSpace:
    """All policies that choose one bit width per layer.

    The order is that of nested loops, the last layer being the innermost: neighbours share their first
    layers, so an evaluator that walks in order can reuse everything before the layer that changed.

    Args:
        choices: layer name -> the bit widths (total stored bits, 1..32) that the layer may take.

    Raises:
        TypeError: `choices` is not a mapping, or a width is not an integer.
        ValueError: no layers, no widths, a width outside 1..32, or one given twice.

    >>> space = DesignSpace({"conv1": (2, 4, 8), "fc": (2, 3)})
    >>> len(space), space.names
    (6, ('conv1', 'fc'))
    >>> space.policies()[:3].tolist()
    [[2, 2], [2, 3], [4, 2]]
    >>> space[5]
    {'conv1': 8, 'fc': 3}
    >>> space.index({"conv1": 8, "fc": 3})
    5
    """

    def __init__(self, choices: Mapping[str, Sequence[int]]) -> None:
        if not isinstance(choices, Mapping):
            raise TypeError(f"choices must map layer names to bit widths, got {type(choices).__name__}")
        if not choices:
            raise ValueError("choices must name at least one layer, it is empty")
        self._choices = {name: _widths(name, widths) for name, widths in choices.items()}
        self._radices = tuple(len(widths) for widths in self._choices.values())

    @property
    def names(self) -> tuple[str, ...]:
        """Layer names, in the order of the columns of `policies()`."""
        return tuple(self._choices)

    @property
    def choices(self) -> dict[str, tuple[int, ...]]:
        """Layer name -> its bit widths, a copy."""
        return dict(self._choices)

    @property
    def size(self) -> int:
        """Number of policies; unlike `len()` it is not limited to 2**63 - 1."""
        return math.prod(self._radices)

    def __len__(self) -> int:
        return self.size

    def __repr__(self) -> str:
        return f"DesignSpace({self._choices!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DesignSpace) and list(self._choices.items()) == list(other._choices.items())

    def __hash__(self) -> int:
        return hash(tuple(self._choices.items()))

    def __getitem__(self, index: int) -> dict[str, int]:
        """The policy at `index` of the enumeration, negative from the end; IndexError beyond it."""
        if not -self.size <= index < self.size:
            raise IndexError(f"policy {index} of a design space of {self.size}")
        index %= self.size
        policy: dict[str, int] = {}
        for name in reversed(self.names):
            index, digit = divmod(index, len(self._choices[name]))
            policy[name] = self._choices[name][digit]
        return {name: policy[name] for name in self.names}

    def __contains__(self, policy: object) -> bool:
        try:
            self.index(policy)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return False
        return True

    def index(self, policy: Mapping[str, int] | Sequence[int]) -> int:
        """Where a policy (by name, or the bits in layer order) stands in the enumeration."""
        index = 0
        for name, bits in zip(self.names, self.row(policy), strict=True):
            index = index * len(self._choices[name]) + self._choices[name].index(int(bits))
        return index

    def row(self, policy: Mapping[str, int] | Sequence[int]) -> Policies:
        """A policy as the (L,) uint8 row of `policies()`; ValueError when it is not of this space."""
        bits = self.in_order("policy", policy) if isinstance(policy, Mapping) else list(policy)
        if len(bits) != len(self.names):
            raise ValueError(f"policy must have {len(self.names)} layers, it has {len(bits)}")
        for name, width in zip(self.names, bits, strict=True):
            if width not in self._choices[name]:
                raise ValueError(f"policy gives layer {name!r} {width} bits, the space allows {self._choices[name]}")
        return np.array(bits, dtype=np.uint8)

    def in_order(self, argument: str, policy: Mapping[str, int]) -> list[int]:
        """The bits of a policy in the order of the layers, whether or not they are among the choices.

        ValueError, speaking of `argument`, for unknown and missing layers.

        >>> DesignSpace({"conv": (2, 3), "fc": (2, 3)}).in_order("policy", {"fc": 8, "conv": 2})
        [2, 8]
        """
        for name in policy:
            if name not in self._choices:
                raise ValueError(f"{argument} names layer {name!r}{nearest(name, self.names)}")
        for name in self.names:
            if name not in policy:
                raise ValueError(f"{argument} has no bits for layer {name!r}")
        return [policy[name] for name in self.names]

    def policies(self, start: int = 0, stop: int | None = None) -> Policies:
        """Policies `start` to `stop` (default: all) in order, as an array of shape (N, L), uint8.

        Raises ValueError where the array would exceed 2 GiB: walk such spaces with `chunks()`.
        """
        stop = self.size if stop is None else stop
        if not 0 <= start <= stop <= self.size:
            raise ValueError(f"start and stop must satisfy 0 <= start <= stop <= {self.size}, got {start} and {stop}")
        if (stop - start) * len(self.names) > _LARGEST_ARRAY:
            raise ValueError(
                f"{stop - start} policies of {len(self.names)} layers do not fit one array; "
                "use chunks(), sample(), or additive_frontier() for spaces of this size"
            )
        rows = stop - start
        out = np.empty((rows, len(self.names)), dtype=np.uint8)
        stride = 1
        for column in range(len(self.names) - 1, -1, -1):
            widths = np.array(self._choices[self.names[column]], dtype=np.uint8)
            # This digit changes every `stride` rows. Strides of deep networks pass 2**63, so they stay Python
            # integers.
            first, offset = divmod(start, stride)
            if stride >= rows:  # at most one change among these rows
                out[:, column] = widths[first % len(widths)]
                out[min(stride - offset, rows) :, column] = widths[(first + 1) % len(widths)]
            else:
                out[:, column] = widths[(first % len(widths) + (offset + np.arange(rows)) // stride) % len(widths)]
            stride *= len(widths)
        return out

    def chunks(self, rows: int = 65536) -> Iterator[Policies]:
        """All policies in order, in arrays of at most `rows` rows.

        >>> [chunk.shape for chunk in DesignSpace({"a": (2, 3), "b": (2, 3, 4)}).chunks(4)]
        [(4, 2), (2, 2)]
        """
        if rows < 1:
            raise ValueError(f"rows must be at least 1, got {rows}")
        for start in range(0, self.size, rows):
            yield self.policies(start, min(start + rows, self.size))

    def sample(self, count: int, *, seed: int) -> Policies:
        """`count` policies drawn independently and uniformly (repeats are possible), (count, L) uint8."""
        generator = np.random.default_rng(seed)
        columns = [np.array(widths, dtype=np.uint8) for widths in self._choices.values()]
        return np.stack([generator.choice(widths, size=count) for widths in columns], axis=1)

    def frame(self, policies: npt.ArrayLike | None = None, **metrics: npt.ArrayLike) -> pd.DataFrame:
        """A frame with one uint8 column per layer for `policies` (default: all) and one column per metric.

        >>> DesignSpace({"a": (2, 3)}).frame(energy_pj=[1.0, 1.5])
           a  energy_pj
        0  2        1.0
        1  3        1.5
        """
        rows = self.policies() if policies is None else policy_rows(policies, self.names)
        clash = next((name for name in metrics if name in self._choices), None)
        if clash is not None:
            raise ValueError(f"metric {clash!r} has the name of a layer")
        frame = pd.DataFrame(rows, columns=list(self.names))
        for name, values in metrics.items():
            frame[name] = np.asarray(values)
        return frame


def _widths(name: Any, widths: Any) -> tuple[int, ...]:
    if not isinstance(name, str):
        raise TypeError(f"layer names must be strings, got {name!r}")
    if isinstance(widths, (str, bytes)) or not hasattr(widths, "__iter__"):
        raise TypeError(f"layer {name!r} must have a sequence of bit widths, got {widths!r}")
    given = list(widths)
    for width in given:
        if isinstance(width, bool) or not isinstance(width, (int, np.integer)):
            raise TypeError(f"layer {name!r}: bit widths must be integers, got {width!r}")
        if not 1 <= width <= MAX_BITS:
            raise ValueError(f"layer {name!r}: bit widths lie in 1..{MAX_BITS}, got {width}")
    if not given:
        raise ValueError(f"layer {name!r} has no bit widths to choose from")
    if len(set(given)) != len(given):
        raise ValueError(f"layer {name!r} lists a bit width twice: {given}")
    return tuple(int(width) for width in given)

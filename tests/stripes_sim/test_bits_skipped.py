from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from stripes_sim import LayerShape, Stripes


class _Policy(Mapping[str, int]):
    """A mapping with an attribute, as a learned policy is one; stripes_sim knows no more of it."""

    def __init__(self, bits: dict[str, int], skipped: tuple[str, ...]) -> None:
        self.bits, self.skipped = bits, skipped

    def __getitem__(self, name: str) -> int:
        return self.bits[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.bits)

    def __len__(self) -> int:
        return len(self.bits)


LAYERS = [LayerShape(name=name, kind="linear", in_channels=64, out_channels=32) for name in ("a", "b", "c")]


def test_layers_skipped_on_purpose_count_sixteen_bits() -> None:
    result = Stripes().run(LAYERS, _Policy({"a": 3, "b": 4}, skipped=("c",)))
    assert list(result.frame["weight_bits"][:3]) == [3, 4, 16]


def test_layers_forgotten_are_still_an_error() -> None:
    with pytest.raises(ValueError, match="no bits for layer 'c'"):
        Stripes().run(LAYERS, _Policy({"a": 3, "b": 4}, skipped=()))

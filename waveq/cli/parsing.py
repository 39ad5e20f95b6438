"""What words of the command line mean: bits, objectives, grids, changes of a protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from waveq.codesign.protocol import Protocol

__all__ = [
    "changed_protocol",
    "check_numbers",
    "for_engine",
    "parse_bits",
    "parse_grid",
    "parse_integers",
    "parse_sense",
    "parse_shapes",
]


def check_numbers(options: Mapping[str, int | None], *, least: int = 1, most: int | None = None) -> None:
    """Refuse whole numbers that are out of range; None is an option that was not given.

    Example:
        >>> check_numbers({"batch": 0})
        Traceback (most recent call last):
        ...
        ValueError: --batch must be at least 1, but it is 0
    """
    for option, value in options.items():
        if value is not None and (value < least or (most is not None and value > most)):
            span = f"at least {least}" if most is None else f"from {least} to {most}"
            raise ValueError(f"--{option} must be {span}, but it is {value}")


def parse_bits(text: str, option: str = "--bits", *, most: int = 9) -> tuple[int, ...]:
    """Bit widths from "2,3,4" or "2-8", sorted.

    Example:
        >>> parse_bits("8,2-4")
        (2, 3, 4, 8)
    """
    found: set[int] = set()
    for piece in text.split(","):
        low, dash, high = piece.strip().partition("-")
        if not low.isdecimal() or (dash and not high.isdecimal()):
            raise ValueError(f"{option} must be numbers such as 2,3,4,8 or 2-8, not {text!r}")
        found.update(range(int(low), int(high if dash else low) + 1))
    if not found or not all(1 <= width <= most for width in found):
        raise ValueError(f"{option} must lie in 1..{most} (total bits, sign included), not {text!r}")
    return tuple(sorted(found))


def parse_integers(option: str, text: str) -> tuple[int, ...]:
    """Whole numbers from "-1,1"."""
    try:
        return tuple(int(piece) for piece in text.split(","))
    except ValueError:
        raise ValueError(f"{option} must be whole numbers such as -1,1, not {text!r}") from None


def parse_sense(text: str) -> dict[str, str]:
    """Objectives from "accuracy=max,energy_pj=min".

    Example:
        >>> parse_sense("accuracy=max, cycles=min")
        {'accuracy': 'max', 'cycles': 'min'}
    """
    chosen = {}
    for piece in text.split(","):
        name, sign, direction = (part.strip() for part in piece.partition("="))
        if not sign or direction not in ("max", "min") or not name:
            hint = next((f"; did you mean {word!r}?" for word in ("max", "min") if direction.lower()[:3] == word), "")
            raise ValueError(f"--sense must be COLUMN=max or COLUMN=min, comma-separated, not {piece.strip()!r}{hint}")
        chosen[name] = direction
    return chosen


def parse_shapes(entries: Sequence[str] | None) -> list[tuple[int, ...]]:
    """Shapes of a model's inputs, from ["3x224x224", "16"].

    Example:
        >>> parse_shapes(["3x224x224", "16"])
        [(3, 224, 224), (16,)]
    """
    shapes = []
    for entry in entries or ():
        sizes = entry.split("x")
        if not all(size.isdecimal() and int(size) > 0 for size in sizes):
            raise ValueError(f"--input-shape must be sizes such as 3x224x224, without the batch, not {entry!r}")
        shapes.append(tuple(int(size) for size in sizes))
    return shapes


def parse_grid(entries: list[str]) -> dict[str, list[int | float | str | bool]]:
    """Parameters and values from ["tiles=1,2,4", "storage=packed,padded"].

    Example:
        >>> parse_grid(["tiles=1,2", "clock_hz=5e8", "resident_weights=true,false"])
        {'tiles': [1, 2], 'clock_hz': [500000000.0], 'resident_weights': [True, False]}
    """
    grid: dict[str, list[int | float | str | bool]] = {}
    for entry in entries:
        name, sign, values = entry.partition("=")
        if not sign or not values:
            raise ValueError(f"--grid must be PARAMETER=VALUE,VALUE such as tiles=1,2,4, not {entry!r}")
        if name.strip() in grid:
            raise ValueError(f"--grid names {name.strip()} twice; all its values stand in one, {name.strip()}=1,2")
        grid[name.strip()] = [_value(value.strip()) for value in values.split(",")]
    return grid


def _value(text: str) -> int | float | str | bool:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def changed_protocol(base: Protocol | None, part: str | None, epochs: int | None, rate: float | None) -> Protocol:
    """A protocol with what was said on the command line changed."""
    from waveq.codesign.protocol import Protocol

    given = {"part": part, "finetune_epochs": epochs, "finetune_lr": rate}
    said = {name: value for name, value in given.items() if value is not None}
    changed = Protocol.from_dict({**(base or Protocol()).to_dict(), **said})
    if rate is not None and not changed.finetune_epochs:
        raise ValueError("--finetune-lr says nothing without fine-tuning: add --finetune-epochs or leave it out")
    return changed


def for_engine(engine: str, workers: int | None, address: str | None) -> dict[str, Any]:
    """The options of an engine that are given, refused where it has none of them.

    Raises:
        ValueError: an option of another engine.
    """
    options = {name: value for name, value in (("workers", workers), ("address", address)) if value}
    if engine == "serial" and options:
        raise ValueError(f"--{next(iter(options))} needs --engine processes or --engine ray")
    if engine == "processes" and "address" in options:
        raise ValueError("--address needs --engine ray")
    return options

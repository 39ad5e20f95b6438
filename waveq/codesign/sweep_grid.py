"""What a sweep trains: settings that all runs share, and axes of settings and machines; every combination is a run.

A run is known by a digest of all that decides what comes out of it. So the same run asked for by two grids, or by two
people at once, is one run.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from waveq._names import check_choice, nearest
from waveq.train.config import RUNTIME_FIELDS, TrainConfig, parse_config

if TYPE_CHECKING:
    from stripes_sim import Accelerator

__all__ = ["HARDWARE", "Point", "SweepGrid", "machine_parameters"]

HARDWARE = "hardware"
_USUAL_MACHINE = "stripes"


def machine_parameters() -> list[str]:
    """The parameters of an accelerator that an axis may vary; none is called as a field of a training run.

    Example:
        >>> "tiles" in machine_parameters(), set(machine_parameters()) & set(TrainConfig.model_fields)
        (True, set())
    """
    from stripes_sim import Accelerator

    return [field.name for field in fields(Accelerator) if field.name != "name"]


@dataclass(frozen=True, kw_only=True)
class Point:
    """One combination.

    Attributes:
        settings: its value of every axis.
        config: of the training, before a machine weighs the bits.
        machine: what prices the result.
        objective: the machine's cost that weighs bits while they are learned; None where nothing does.
    """

    settings: Mapping[str, Any]
    config: TrainConfig
    machine: Accelerator
    objective: str | None

    @cached_property
    def run_digest(self) -> str:
        """Of all that decides what training gives; points that differ in a machine that only prices share it."""
        # what is as usual is left out, so that a setting which a later version adds leaves the others' runs known
        told = self.config.model_dump(mode="json", exclude_defaults=True, exclude=set(RUNTIME_FIELDS))
        weighed = None if self.objective is None else [self.objective, self._described_machine()]
        return _digest([told, weighed])

    @cached_property
    def digest(self) -> str:
        """Of all that decides the point's results, 64 hexadecimal digits."""
        return _digest([self.run_digest, self._described_machine()])

    @property
    def run_name(self) -> str:
        """Of the run folder."""
        return f"{self.config.folder.name}-{self.run_digest[:12]}"

    def _described_machine(self) -> list[Any]:
        changed = {f.name: getattr(self.machine, f.name) for f in fields(self.machine) if f.name != "name"}
        usual = {f.name: f.default for f in fields(self.machine)}
        return [type(self.machine).__name__, {k: v for k, v in changed.items() if v != usual[k]}]

    def __str__(self) -> str:
        return ", ".join(f"{axis} {value}" for axis, value in self.settings.items()) or "the only run"


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class SweepGrid:
    """Every combination of the axes' values.

    Args:
        base: fields of `TrainConfig` that all runs share, as a recipe has them.
        axes: values by axis: a field of `TrainConfig` ("seed", "preset"), a part of one ("target.mean_bits"),
            "hardware" (machines by name or TOML file), or a parameter of the machine ("tiles").
        hardware: the machine, where no axis names one. Where neither it nor an axis says anything of machines, bits
            are learned without prices, and the results priced on Stripes.
        sources: what an error says that a field of ``base`` comes from, a file or an option; else "base".

    Raises:
        ValueError: an axis that is none, without values, or of what does not change results.

    Example:
        >>> grid = SweepGrid(base={"model": "lenet", "dataset": "digits"}, axes={"seed": [0, 1], "bits": [2, 4]})
        >>> [str(point) for point in grid.points()]
        ['seed 0, bits 2', 'seed 0, bits 4', 'seed 1, bits 2', 'seed 1, bits 4']
    """

    base: Mapping[str, Any]
    axes: Mapping[str, Sequence[Any]]
    hardware: str | None = None
    sources: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        known = [*(name for name in TrainConfig.model_fields if name not in RUNTIME_FIELDS), HARDWARE]
        parameters = machine_parameters()
        for axis, values in self.axes.items():
            field = axis.partition(".")[0]
            if field in RUNTIME_FIELDS:
                raise ValueError(f"grid: {axis} changes nothing that comes out of a run")
            if field not in known and axis not in parameters:
                raise ValueError(
                    f"grid: no setting and no parameter is called {axis!r}{nearest(axis, known + parameters)}"
                )
            if isinstance(values, str) or not isinstance(values, Sequence) or not values:
                raise ValueError(f"grid: {axis} must be a list of values, not {values!r}")

    def points(self) -> list[Point]:
        """All combinations, the last axis varying fastest; those that are one run on one machine once.

        Raises:
            ValueError: settings that no run can have; the message names the combination.
        """
        found: dict[str, Point] = {}
        for values in itertools.product(*self.axes.values()):
            point = self._point(dict(zip(self.axes, values, strict=True)))
            found.setdefault(point.digest, point)
        return list(found.values())

    def _point(self, settings: dict[str, Any]) -> Point:
        from stripes_sim import load_hardware

        where = ", ".join(f"{axis} {value}" for axis, value in settings.items()) or "sweep"
        varied = {axis.partition(".")[0] for axis in settings}
        sources = {name: (self.sources or {}).get(name, "base") for name in self.base if name not in varied}
        base, parameters, machine = dict(self.base), {}, self.hardware
        for axis, value in settings.items():
            field, dot, part = axis.partition(".")
            if axis == HARDWARE:
                machine = str(value)
            elif dot:
                base[field] = {**(base.get(field) or {}), part: value}
            elif field in TrainConfig.model_fields:
                base[field] = value
            else:
                parameters[axis] = value
        config = parse_config(base, where=where, sources=sources)
        _require_target(config, where, on_machine=machine is not None or bool(parameters))
        try:
            priced = replace(load_hardware(machine or _USUAL_MACHINE), **parameters)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: {error}") from None
        objective = _objective(config) if machine is not None or parameters else None
        return Point(settings=settings, config=config, machine=priced, objective=objective)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"base": dict(self.base), "axes": {k: list(v) for k, v in self.axes.items()}, "hardware": self.hardware}


def _require_target(config: TrainConfig, where: str, *, on_machine: bool) -> None:
    from stripes_sim.cost import OBJECTIVES

    for name in config.target or {}:
        check_choice(f"{where}: target", name, ("mean_bits", "bitops", *OBJECTIVES))
        if name in OBJECTIVES and not on_machine:
            raise ValueError(
                f"{where}: target {name} is a share of what 8 bits cost: say on which machine, hardware stripes"
            )


def _objective(config: TrainConfig) -> str | None:
    """What weighs the bits: the target's cost where it is one of a machine, else energy."""
    target = config.target or {}
    if not config.learns or "bitops" in target:
        return None
    return next((name for name in target if name != "mean_bits"), "energy_pj")


def read_sweep(path: Path) -> dict[str, Any]:
    """A TOML file with the tables ``[set]`` and ``[grid]`` and the names ``recipe`` and ``hardware``, each optional.

    Returns:
        recipe, hardware, set and grid; ``[grid.target] mean_bits = [3, 4]`` is the axis "target.mean_bits".

    Raises:
        ValueError: cannot be read, no TOML, another name; the message names the file.
    """
    import tomllib

    from waveq._reading import read_text

    try:
        data = tomllib.loads(read_text(path))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: not valid TOML ({error})") from None
    known: dict[str, Any] = {"recipe": None, HARDWARE: None, "set": {}, "grid": {}}
    for name, value in data.items():
        if name not in known:
            raise ValueError(f"{path}: unknown name {name!r}{nearest(name, known)}")
        wanted = dict if isinstance(known[name], dict) else str
        if not isinstance(value, wanted):
            raise ValueError(f"{path}: {name} must be a {'table' if wanted is dict else 'text'}, not {value!r}")
    axes: dict[str, Any] = {}
    for axis, values in data.get("grid", {}).items():
        inner = values.items() if isinstance(values, dict) else [("", values)]
        axes |= {f"{axis}.{part}" if part else axis: list_of for part, list_of in inner}
    return {**known, **data, "grid": axes}

"""One call for all formats: what a run was priced on, as files of other simulators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stripes_sim._files import write_text
from stripes_sim.bits import nearest
from stripes_sim.exports import accelergy, scalesim, timeloop, zigzag
from stripes_sim.exports.nests import Nest, nests
from stripes_sim.exports.yaml_text import yaml_text
from stripes_sim.result import Result

__all__ = ["FORMATS", "Exported", "export_workload"]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written.

    Attributes:
        folder: where.
        files: their names.
        left_out: layers that multiply nothing (lookups), which the other simulators have no name for.
    """

    folder: Path
    files: tuple[str, ...]
    left_out: tuple[str, ...]


def export_workload(result: Result, folder: str | Path, *, to: str) -> Exported:
    """Write layers, bits and mapping of a run for another simulator.

    ``"timeloop"``: problem, architecture and mapping for each layer; ``"zigzag"``: workload, mapping and accelerator;
    ``"scalesim"``: a topology; ``"accelergy"``: the energy constants as tables of its plug-in.

    Args:
        result: a run: its layers, bits, batch and machine are written.
        folder: made if missing; files of these names are overwritten.
        to: the format.

    Raises:
        ValueError: an unknown format, or a layer that it cannot hold.

    >>> import tempfile
    >>> from stripes_sim import LayerShape, Stripes
    >>> fc = LayerShape(name="fc", kind="linear", in_channels=512, out_channels=10)
    >>> with tempfile.TemporaryDirectory() as place:
    ...     export_workload(Stripes().run([fc], 4), place, to="scalesim").files
    ('topology.csv',)
    """
    if to not in FORMATS:
        raise ValueError(f"to must be one of {tuple(FORMATS)}, but it is {to!r}{nearest(to, tuple(FORMATS))}")
    found, idle = nests(result) if to != "accelergy" else ([], [])
    texts = FORMATS[to](result, found)
    for name, text in texts.items():
        write_text(Path(folder) / name, text)
    return Exported(folder=Path(folder), files=tuple(texts), left_out=tuple(idle))


def _timeloop(result: Result, found: list[Nest]) -> dict[str, str]:
    texts = {}
    digits = len(str(len(found) - 1))
    for number, nest in enumerate(found):
        name = "".join(sign if sign.isalnum() or sign in "._-" else "_" for sign in nest.name)
        data = {**timeloop.problem(nest), **timeloop.architecture(result.hardware, nest)}
        texts[f"{number:0{digits}}-{name}.yaml"] = yaml_text({**data, **timeloop.mapping(nest, result.hardware)})
    return texts


def _zigzag(result: Result, found: list[Nest]) -> dict[str, str]:
    weights = Counter(nest.weight_bits for nest in found).most_common(1)[0][0]
    inputs = Counter(nest.activation_bits for nest in found).most_common(1)[0][0]
    return {
        "workload.yaml": yaml_text(zigzag.workload(found)),
        "mapping.yaml": yaml_text(zigzag.mapping(found, result.hardware)),
        "accelerator.yaml": yaml_text(zigzag.accelerator(result.hardware, weights, inputs)),
    }


def _scalesim(_result: Result, found: list[Nest]) -> dict[str, str]:
    return {"topology.csv": scalesim.topology(found)}


def _accelergy(_result: Result, _found: list[Nest]) -> dict[str, str]:
    return accelergy.tables()


FORMATS: dict[str, Callable[[Result, list[Nest]], dict[str, str]]] = {
    "timeloop": _timeloop,
    "zigzag": _zigzag,
    "scalesim": _scalesim,
    "accelergy": _accelergy,
}

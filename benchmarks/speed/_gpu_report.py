"""What a run of ``python -m benchmarks gpu`` has found: parts, steps and penalties beside each other, the decision."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.speed.step import COMPILED, FUSED, METHODS

__all__ = ["decision", "report"]

Entries = Mapping[str, Mapping[str, Any]]
LEVEL = 0.03
"""Below this difference neither form is called faster: the one stays that needs no kernels of its own."""


def report(entries: Entries) -> str:
    """Tables and sentences for people."""
    blocks = [_parts(entries), _steps(entries), _penalties(entries)]
    return "\n\n".join([*(block for block in blocks if block), "\n".join(decision(entries))])


def decision(entries: Entries) -> list[str]:
    """Sentences: Triton's kernels beside torch.compile at each size, and which of them to keep.

    Steps decide, by the geometric mean over networks of whole optimizer steps; penalties are told beside.
    """
    told: list[str] = []
    faster: dict[str, list[float]] = {name: [] for name in COMPILED}
    for network, methods in _measured(entries, "networks"):
        fused = methods.get(FUSED, {})
        for name, row in ((name, methods[name]) for name in COMPILED if name in methods):
            if "wall_ratio" in row and "wall_ratio" in fused:
                faster[name].append(row["wall_ratio"] / fused["wall_ratio"])
                told.append(
                    f"{network}: a step takes {fused['wall_ratio']:.2f} of a plain one with the kernels, "
                    f"{row['wall_ratio']:.2f} with {_spoken(name)} (ready after {row['ready_s']:.0f} s): "
                    f"{faster[name][-1]:.2f} of the kernels'."
                )
            elif "why" in row:
                told.append(f"{network}: nothing with {_spoken(name)}: {row['why']}.")
    for size, row in _measured(entries, "rows"):
        if "wall_s" in row.get("fused", {}) and "wall_s" in row.get("compiled", {}):
            ratio = row["compiled"]["wall_s"] / row["fused"]["wall_s"]
            told.append(f"penalty of {size:,} weights: torch.compile takes {ratio:.2f} of the kernels' time.")
    return [*told, _sentence(entries, faster)]


def _sentence(entries: Entries, faster: Mapping[str, Sequence[float]]) -> str:
    whole = {name: math.exp(sum(map(math.log, each)) / len(each)) for name, each in faster.items() if each}
    if not whole:
        return "Undecided: no network has a step with both the kernels and torch.compile."
    most = max(len(faster[name]) for name in whole)  # a form that fails somewhere is no candidate
    best = min((name for name in whole if len(faster[name]) == most), key=whole.__getitem__)
    says = f"Over {most} network(s) a step with {_spoken(best)} takes {whole[best]:.2f} of one with the kernels"
    if entries.get("alike", {}).get("state") == "failed":
        return f"{says}, but the kernels do not train like the plain form ({entries['alike']['why']}): mend them first."
    if any(entry.get("device") == "cpu" for entry in entries.values()):
        return f"{says}: on a CPU, which decides nothing about Triton."
    if abs(whole[best] - 1) <= LEVEL:
        return f"{says}, which is no difference: keep torch.compile, delete waveq/_kernels/cuda."
    if whole[best] < 1:
        return f"{says}: keep {_spoken(best)}, delete waveq/_kernels/cuda."
    return f"{says}: keep Triton, delete the compiled form (benchmarks/speed/_compiled.py)."


def _spoken(name: str) -> str:
    return "torch.compile and CUDA graphs" if COMPILED[name] else "torch.compile"


def _parts(entries: Entries) -> str:
    lines = [f"{'part':<24} {'state':<12} {'seconds':>7}"]
    for name, entry in entries.items():
        lines.append(f"{name:<24} {entry['state']:<12} {entry.get('seconds', 0):7.0f}  {entry['why']}".rstrip())
    machines = sorted({entry["machine"] for entry in entries.values() if entry.get("machine")})
    return "\n".join([*lines, "on " + " and ".join(machines)] if machines else lines)


def _steps(entries: Entries) -> str:
    """Ratios to the plain step, with quartiles; a network's own columns, the peers' part first."""
    columns: dict[str, dict[str, str]] = {}
    for network, methods in _measured(entries, "networks"):
        cells = {name: _ratio(row) for name, row in methods.items()}
        columns[network] = {**cells, **columns.get(network, {})}
    if not columns:
        return ""
    lines = [" ".join([f"{'a step over the plain one':<25}", *(f"{name:>20}" for name in columns)])]
    for method in METHODS:
        cells_of = [column.get(method, "-") for column in columns.values()]
        lines.append(" ".join([f"{method:<25}", *(f"{cell:>20}" for cell in cells_of)]))
    return "\n".join(lines)


def _ratio(row: Mapping[str, Any]) -> str:
    if "why" in row:
        return "not installed" if row["why"] == "not installed" else "does not run"
    return "{:.2f} ({:.2f}-{:.2f})".format(row["wall_ratio"], *row["wall_ratio_quartiles"])


def _penalties(entries: Entries) -> str:
    rows = list(_measured(entries, "rows"))
    if not rows:
        return ""
    forms = ("copy", "plain", "fused", "compiled")
    lines = [" ".join([f"{'penalty, GB/s':<25}", *(f"{form:>20}" for form in forms)])]
    for size, row in rows:
        cells = [f"{row[form]['gb_per_s']:.3f}" if "gb_per_s" in row.get(form, {}) else "-" for form in forms]
        lines.append(" ".join([f"{f'{size:,} weights':<25}", *(f"{cell:>20}" for cell in cells)]))
    return "\n".join(lines)


def _measured(entries: Entries, key: str) -> Iterator[tuple[Any, Any]]:
    """("networks") a network and its methods, or ("rows") a size and its forms, of all parts that have any."""
    for entry in entries.values():
        found = entry.get("result", {}).get(key)
        if key == "networks" and found:
            yield from ((network, each["methods"]) for network, each in found.items())
        elif key == "rows" and isinstance(found, list) and found and "weights" in found[0]:
            yield from ((row["weights"], row) for row in found)

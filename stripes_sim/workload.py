"""Workloads as files: CSV for spreadsheets, JSON for tools, ONNX to read (`stripes_sim.onnx`); none needs torch.

One row (object) a layer, columns (keys) as the fields of `LayerShape`. Sizes over several axes are written ``3x3`` in
CSV and ``[3, 3]`` in JSON. Columns may be left out where `LayerShape` has a default; blank lines are skipped.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from stripes_sim._files import write_text
from stripes_sim._reading import parse_json, read_text, require_regular
from stripes_sim.bits import nearest
from stripes_sim.layers import LayerShape
from stripes_sim.onnx import read_onnx

__all__ = ["read_workload", "write_workload"]

_FIELDS = {field.name: field.default for field in fields(LayerShape)}
_TEXTS = ("name", "kind", "stored_as")
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_REQUIRED = ("name", "kind", "in_channels", "out_channels")


def read_workload(path: str | Path) -> list[LayerShape]:
    """The layers of a ``.csv``, ``.json`` or ``.onnx`` file.

    Raises:
        ValueError: the file cannot be read, has an unknown or missing column, or a value that is no size; the message
            names file, line, column and value.
    """
    file = Path(path)
    try:
        if file.suffix.lower() == ".onnx":
            require_regular(file)
            return read_onnx(file)
        text = read_text(file)
    except FileNotFoundError as error:
        raise ValueError(f"workload {file}: cannot be read ({error.strerror})") from None
    if file.suffix.lower() == ".json":
        rows = _json_rows(file, text)
    elif file.suffix.lower() == ".csv":
        rows = _csv_rows(file, text)
    else:
        raise ValueError(f"workload {file}: the name must end in .csv or .json, or in .onnx")
    if not rows:
        raise ValueError(f"workload {file}: no layers in it")
    return [_layer(place, row) for place, row in rows]


def write_workload(path: str | Path, layers: Sequence[LayerShape]) -> None:
    """Write layers to a ``.csv`` or ``.json`` file that `read_workload` gives back unchanged.

    In CSV a name that a spreadsheet would take for a formula has a ' before it.

    >>> import tempfile, pathlib
    >>> fc = LayerShape(name="fc", kind="linear", in_channels=512, out_channels=10)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder) / "net.csv"
    ...     write_workload(file, [fc])
    ...     read_workload(file) == [fc]
    True
    """
    file = Path(path)
    rows = [{key: getattr(layer, key) for key in _FIELDS} for layer in layers]
    if file.suffix.lower() == ".json":
        write_text(file, json.dumps([_compact(row) for row in rows], indent=1) + "\n")
    elif file.suffix.lower() == ".csv":
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, list(_FIELDS), lineterminator="\n")
        writer.writeheader()
        writer.writerows([{key: _cell(value) for key, value in row.items()} for row in rows])
        write_text(file, buffer.getvalue())
    else:
        raise ValueError(f"workload {file}: the name must end in .csv or .json")


def _csv_rows(file: Path, text: str) -> list[tuple[str, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    header = [name.strip() for name in reader.fieldnames or []]
    _check_columns(f"workload {file}, header", header)
    reader.fieldnames = header
    rows = []
    for row in _csv_lines(file, reader):
        place = f"workload {file}, line {reader.line_num}"
        if None in row:
            raise ValueError(f"{place}: more cells than the header has columns ({len(header)})")
        cells = {key: (value or "").strip() for key, value in row.items()}
        if any(cells.values()):
            rows.append((place, {key: _parsed(place, key, cell) for key, cell in cells.items() if cell}))
    return rows


def _csv_lines(file: Path, reader: csv.DictReader[str]) -> Iterator[dict[str, Any]]:
    try:
        yield from reader
    except csv.Error as error:
        raise ValueError(f"workload {file}, line {reader.line_num}: no CSV ({error})") from None


def _json_rows(file: Path, text: str) -> list[tuple[str, dict[str, Any]]]:
    data = parse_json(text, where=f"workload {file}")
    if not isinstance(data, list) or not all(isinstance(row, Mapping) for row in data):
        raise ValueError(f"workload {file}: must be a list of objects, one a layer")
    rows = [(f"workload {file}, layer {number}", dict(row)) for number, row in enumerate(data, start=1)]
    for place, row in rows:
        _check_columns(place, list(row))
    return [(place, {key: tuple(v) if isinstance(v, list) else v for key, v in row.items()}) for place, row in rows]


def _check_columns(place: str, columns: Sequence[str]) -> None:
    for column in columns:
        if columns.count(column) > 1:
            raise ValueError(f"{place}: the column {column!r} is given twice")
        if column not in _FIELDS:
            raise ValueError(
                f"{place}: unknown column {column!r}{nearest(column, [*_FIELDS])} (known: {', '.join(_FIELDS)})"
            )
    for column in _REQUIRED:
        if column not in columns:
            raise ValueError(f"{place}: column {column!r} is missing")


def _parsed(place: str, column: str, cell: str) -> Any:
    if column in _TEXTS:
        return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
    try:
        numbers = tuple(int(part) for part in cell.lower().split("x"))
    except ValueError:
        raise ValueError(f"{place}: {column} must be a whole number or sizes such as 3x3, but it is {cell!r}") from None
    return numbers if len(numbers) > 1 else numbers[0]


def _layer(place: str, row: dict[str, Any]) -> LayerShape:
    for column in _REQUIRED:
        if column not in row:
            raise ValueError(f"{place}: {column} is empty")
    try:
        return LayerShape(**row)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place}: {error}") from None


def _cell(value: Any) -> str:
    text = "x".join(str(number) for number in value) if isinstance(value, tuple) else str(value)
    return f"'{text}" if isinstance(value, str) and _FORMULA.match(text) else text


def _compact(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key in _REQUIRED or value != _FIELDS[key]}

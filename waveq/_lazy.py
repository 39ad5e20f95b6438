"""Names of a package that are loaded on first use, so that ``waveq --help`` does not wait for torch.

Where that fails because an extra is not installed, one sentence says which.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

__all__ = ["lazy_names", "missing_sentence", "needed_by", "pip_line"]

_EXTRAS = {
    "torch": "train",
    "lightning": "train",
    "tensorboard": "train",
    "scipy": "train",
    "torchvision": "vision",
    "onnx": "export",
    "onnxscript": "export",
    "onnxruntime": "export",
    "torchao": "export",
    "transformers": "hf",
    "accelerate": "hf",
    "compressed_tensors": "hf",
    "ray": "ray",
    "pyarrow": "parquet",
}
_ALSO = {"qonnx": "export"}  # in no extra, and of use beside one


def lazy_names(package: str, home: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` for a package's ``__init__`` (PEP 562).

    Args:
        package: its ``__name__``.
        home: each public name, and the module that holds it; a module of the package is its own home.

    ``__getattr__`` raises ModuleNotFoundError with the line for pip where an extra is missing.

    Example:
        >>> get, names = lazy_names("waveq", {"Policy": "waveq.policy"})
        >>> get("Policy").__name__, "Policy" in names()
        ('Policy', True)
    """

    def get(name: str) -> object:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with needed_by(f"{package}.{name}"):
            module = importlib.import_module(home[name])
        value = module if home[name] == f"{package}.{name}" else getattr(module, name)
        setattr(sys.modules[package], name, value)  # the next access does not come here
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home})

    return get, names


def pip_line(package: str) -> str | None:
    """What to call so that a package is there; None for one that no extra brings.

    Example:
        >>> pip_line("torch"), pip_line("qonnx"), pip_line("antigravity")
        ("pip install 'waveq[train]'", "pip install 'waveq[export]' qonnx", None)
    """
    if package in _ALSO:
        return f"pip install 'waveq[{_ALSO[package]}]' {package}"
    return f"pip install 'waveq[{_EXTRAS[package]}]'" if package in _EXTRAS else None


def missing_sentence(error: BaseException, what: str = "this") -> str | None:
    """The sentence for an import that failed because an extra is not installed; None for any other error.

    Args:
        error: what was raised.
        what: needs the package.

    Example:
        >>> missing_sentence(ModuleNotFoundError("No module named 'torch'", name="torch"), "waveq.attach")
        "waveq.attach needs torch, which is not installed: pip install 'waveq[train]'"
    """
    package = error.name if isinstance(error, ModuleNotFoundError) else None
    line = None if package is None else pip_line(package)
    return None if package is None or line is None else f"{what} needs {package}, which is not installed: {line}"


@contextmanager
def needed_by(what: str) -> Iterator[None]:
    """Within, an import that fails because an extra is not installed fails with the sentence.

    Raises:
        ModuleNotFoundError: with the line for pip; any other error comes through as it is.

    Example:
        >>> with needed_by("my.module"):
        ...     raise ModuleNotFoundError("No module named 'torch'", name="torch")
        Traceback (most recent call last):
        ModuleNotFoundError: my.module needs torch, which is not installed: pip install 'waveq[train]'
    """
    try:
        yield
    except ModuleNotFoundError as error:
        sentence = missing_sentence(error, what)
        if sentence is None:
            raise
        raise ModuleNotFoundError(sentence, name=error.name) from None

"""Packages that some targets need, loaded when they are asked for."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

from waveq._lazy import pip_line

__all__ = ["load_package", "quiet"]


def load_package(name: str) -> Any:
    """A package, or a module of one, of the extras ``waveq[export]`` and ``waveq[hf]``, or qonnx, in none of them.

    Raises:
        ImportError: not installed; the message says how.
    """
    try:
        with quiet():
            return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ImportError(f"this target needs the package {package.replace('_', '-')}: {pip_line(package)}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Exporters and loaders print, log, draw progress bars, and warn of themselves; what comes out is compared."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)

"""What words of the command line may say: types for ``argparse`` that name what was expected."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import torch

__all__ = ["device", "number", "stem", "whole"]


def whole(least: int) -> Callable[[str], int]:
    """A whole number from ``least`` on.

    Example:
        >>> whole(1)("0")
        Traceback (most recent call last):
        argparse.ArgumentTypeError: a whole number of at least 1 is expected, not '0'
    """

    def read(text: str) -> int:
        try:
            found = int(text)
        except ValueError:
            found = least - 1
        if found < least:
            raise argparse.ArgumentTypeError(f"a whole number of at least {least} is expected, not {text!r}")
        return found

    return read


def number(least: float = 0.0, below: float = math.inf) -> Callable[[str], float]:
    """A number from ``least`` on and below ``below``; NaN and infinities are none.

    Example:
        >>> number(0, 1)("1")
        Traceback (most recent call last):
        argparse.ArgumentTypeError: a number from 0 on and below 1 is expected, not '1'
    """

    def read(text: str) -> float:
        try:
            found = float(text)
        except ValueError:
            found = math.nan
        if not least <= found < below:
            end = "" if below == math.inf else f" and below {below:g}"
            raise argparse.ArgumentTypeError(f"a number from {least:g} on{end} is expected, not {text!r}")
        return found

    return read


def device(text: str) -> str:
    """A device of torch's that is there.

    Example:
        >>> device("cpu"), device("meta-physics")
        Traceback (most recent call last):
        argparse.ArgumentTypeError: 'meta-physics' is no device of torch's, such as cpu, cuda or cuda:1
    """
    try:
        kind = torch.device(text).type
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"{text!r} is no device of torch's, such as cpu, cuda or cuda:1") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError(f"{text!r}: torch finds no GPU here")
    return text


def stem(text: str) -> str:
    """A file's name without its ending.

    Example:
        >>> stem("a/b")
        Traceback (most recent call last):
        argparse.ArgumentTypeError: a file's name without folders is expected, not 'a/b'
    """
    if not text or text in (".", "..") or Path(text).name != text:
        raise argparse.ArgumentTypeError(f"a file's name without folders is expected, not {text!r}")
    return text

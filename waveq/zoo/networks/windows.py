"""How the side of an image shrinks through a network: what size of input a network can take."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Window", "output_size", "smallest_input"]


class Window(NamedTuple):
    """One sliding window (convolution or pooling), in pixels."""

    kernel: int
    stride: int = 1
    padding: int = 0


def output_size(size: int, windows: tuple[Window, ...]) -> int:
    """Side of the image after all windows; 0 when some window finds no place.

    One window gives floor((size + 2 padding - kernel) / stride) + 1, as torch's Conv2d and MaxPool2d do.

    Example:
        >>> output_size(32, (Window(5), Window(2, 2), Window(5), Window(2, 2)))
        5
    """
    for kernel, stride, padding in windows:
        size = (size + 2 * padding - kernel) // stride + 1
        if size < 1:
            return 0
    return size


def smallest_input(windows: tuple[Window, ...]) -> int:
    """The smallest side for which every window finds a place.

    Example:
        >>> smallest_input((Window(5), Window(2, 2), Window(5), Window(2, 2)))
        16
    """
    size = 1
    while output_size(size, windows) < 1:
        size += 1
    return size

"""A Gaussian process that guesses a metric from bit widths, and says how unsure it is.

Rasmussen and Williams, "Gaussian Processes for Machine Learning" (2006), equations 2.25, 2.26 and 5.8: a squared
exponential covariance with one length for each input, its variance and the noise. Lengths are chosen by the marginal
likelihood, one after the other, in steps of two: its maximum need not be exact, and no optimizer is needed.
"""

from __future__ import annotations

import numpy as np

from pareto._check import Floats
from pareto._jit import compiled

__all__ = ["Surrogate"]

_START = 0.7  # inverse length of every input before the likelihood has been asked
_BOUNDS = (0.03, 30.0)  # of an inverse length
_NOISE = (1e-5, 0.3)  # variance of the noise, as a share of the signal's
_SWEEPS = 2


class Surrogate:
    """The guess that follows from measured points.

    Args:
        inputs: (n, d) float64, of size one or so.
        values: (n,) float64 measurements, n >= 2.

    >>> points = np.linspace(0.0, 3.0, 7)[:, None]
    >>> mean, deviation = Surrogate(points, np.sin(points[:, 0])).predict(np.array([[1.25], [9.0]]))
    >>> bool(abs(mean[0] - np.sin(1.25)) < 0.01), bool(deviation[1] > 10 * deviation[0])
    (True, True)
    """

    def __init__(self, inputs: Floats, values: Floats) -> None:
        self._inputs = inputs
        self._mean, self._scale = float(values.mean()), float(values.std()) or 1.0
        standard = (values - self._mean) / self._scale
        self.inverse_lengths, self.noise = _most_likely(inputs, standard)
        scaled = inputs * self.inverse_lengths
        root = np.linalg.cholesky(_covariance(_distances(scaled, scaled)) + self.noise * np.eye(len(inputs)))
        self._inverse_root = np.linalg.inv(root)
        whitened = self._inverse_root @ standard
        self._weights = self._inverse_root.T @ whitened
        self._variance = float(whitened @ whitened) / len(values)

    def predict(self, inputs: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation (of the metric without its noise) at (m, d) inputs, each (m,)."""
        across = _covariance(_distances(inputs * self.inverse_lengths, self._inputs * self.inverse_lengths))
        left = np.maximum(1.0 - ((across @ self._inverse_root.T) ** 2).sum(axis=1), 1e-9)
        return self._mean + self._scale * (across @ self._weights), self._scale * np.sqrt(left * self._variance)


def _most_likely(inputs: Floats, values: Floats) -> tuple[Floats, float]:
    squares = [(column[:, None] - column[None, :]) ** 2 for column in inputs.T]
    inverse, noise = np.full(len(squares), _START), 1e-2
    distances = sum(_START**2 * square for square in squares)
    best = _log_likelihood(distances, noise, values)
    for _ in range(_SWEEPS):
        for number, square in enumerate(squares):
            here = inverse[number]
            for factor in (0.5, 2.0):
                length = float(np.clip(here * factor, *_BOUNDS))
                moved = distances + (length**2 - inverse[number] ** 2) * square
                if (found := _log_likelihood(moved, noise, values)) > best:
                    best, distances, inverse[number] = found, moved, length
        for factor in (0.25, 4.0):
            other = float(np.clip(noise * factor, *_NOISE))
            if (found := _log_likelihood(distances, other, values)) > best:
                best, noise = found, other
    return inverse, noise


def _log_likelihood(distances: Floats, noise: float, values: Floats) -> float:
    """Of unit-free values, the signal's variance being the one that fits best; a constant is left out."""
    try:
        root = np.asarray(np.linalg.cholesky(_covariance(distances) + noise * np.eye(len(values))), dtype=np.float64)
    except np.linalg.LinAlgError:  # no covariance to working precision
        return -np.inf
    whitened = _forward(root, values)
    return float(-0.5 * len(values) * np.log(whitened @ whitened) - np.log(np.diagonal(root)).sum())


def _distances(left: Floats, right: Floats) -> Floats:
    square: Floats = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1)[None, :] - 2.0 * left @ right.T
    return np.asarray(np.maximum(square, 0.0))


def _covariance(distances: Floats) -> Floats:
    return np.asarray(np.exp(-0.5 * distances), dtype=np.float64)


@compiled
def _forward(root: Floats, values: Floats) -> Floats:
    """Solve root @ x = values for a lower triangle."""
    out = values.copy()
    for row in range(len(values)):
        for column in range(row):
            out[row] -= root[row, column] * out[column]
        out[row] /= root[row, row]
    return out

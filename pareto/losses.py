"""Loss tables for the additive model, and how well that model predicts.

The model says: the loss of a policy is the sum over layers of what each layer's bits cost by themselves. Where it comes
from (a measurement, or a proxy that only sees weights) is up to the table; `prediction_quality` tells what it is worth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from pareto._check import Floats, nearest
from pareto._policies import policy_rows
from pareto.space import DesignSpace, Policies

__all__ = ["fit_additive", "measured_losses", "predict", "prediction_quality", "weight_errors"]


def measured_losses(
    reference: Mapping[str, int],
    evaluate: Callable[[Policies], npt.ArrayLike],
    space: DesignSpace,
) -> pd.DataFrame:
    """What each layer loses at each bit width while all others stay at the reference (one evaluation each).

    Args:
        reference: the policy that losses are counted from, usually the widest one (8 bits everywhere).
        evaluate: (n, L) uint8, columns in the order of `space.names`, -> (n,) scores of which more is better. It is
            called once, with the reference in row 0.
        space: which widths of which layers to try.

    Returns:
        A frame of layers by widths: score(reference) - score(changed), 0 at the reference's own width. NaN where
        a width is not one of the layer's choices.

    Raises:
        ValueError: a reference that does not name the layers, an `evaluate` of another shape or with NaN.

    >>> space = DesignSpace({"conv": (2, 8), "fc": (2, 8)})
    >>> measured_losses({"conv": 8, "fc": 8}, lambda rows: rows @ [1.0, 0.5], space)
             2    8
    layer
    conv   6.0  0.0
    fc     3.0  0.0
    """
    base = policy_rows([space.in_order("reference", reference)], space.names, "reference")[0]
    moves = [
        (row, width) for row, widths in enumerate(space.choices.values()) for width in widths if width != base[row]
    ]
    policies = np.tile(base, (1 + len(moves), 1))
    for number, (row, width) in enumerate(moves, start=1):
        policies[number, row] = width
    scores = np.asarray(evaluate(policies), dtype=np.float64)
    if scores.shape != (len(policies),) or np.isnan(scores).any():
        raise ValueError(f"evaluate must return {len(policies)} numbers without NaN, it returned shape {scores.shape}")
    table = _empty_table(space)
    for row, name in enumerate(space.names):
        if base[row] in space.choices[name]:
            table.loc[name, int(base[row])] = 0.0
    for (row, width), score in zip(moves, scores[1:], strict=True):
        table.loc[space.names[row], width] = scores[0] - score
    return table


def weight_errors(
    weights: Mapping[str, npt.ArrayLike],
    space: DesignSpace,
    *,
    relative: bool = False,
    rounded: Callable[[str, int], npt.ArrayLike] | None = None,
) -> pd.DataFrame:
    """Mean-squared error of rounding each layer's weights to B bits.

    Args:
        weights: layer -> its weights, any shape, finite.
        space: which widths of which layers.
        relative: divide by the mean square of the weights (noise over signal, comparable between layers).
        rounded: (layer, B) -> its rounded weights, same shape. Default: a symmetric, mid-tread grid of 2 bits or more,
            m / (2^(B-1) - 1) x max|w| for whole m; B counts the sign, and zero is a level.

    Returns:
        A frame of layers by widths, in squared weight units or without unit.

    Raises:
        ValueError: missing layers, 1-bit choices of the default grid, empty or non-finite weights.

    >>> weight_errors({"fc": [-1.0, 0.25, 1.0]}, DesignSpace({"fc": (2, 3)})).round(4)
                2       3
    layer
    fc     0.0208  0.0023
    """
    table = _empty_table(space)
    for name, widths in space.choices.items():
        if name not in weights:
            raise ValueError(f"weights lack layer {name!r}{nearest(name, weights)}")
        values = np.asarray(weights[name], dtype=np.float64).ravel()
        if not values.size or not np.isfinite(values).all():
            raise ValueError(f"weights[{name!r}] must be finite and not empty")
        power = float(np.mean(values**2)) if relative and values.any() else 1.0
        for width in widths:
            if rounded is None:
                closest = _on_symmetric_grid(name, values, width)
            else:
                closest = np.asarray(rounded(name, width), dtype=np.float64).ravel()
            table.loc[name, width] = float(np.mean((closest - values) ** 2)) / power
    return table


def _on_symmetric_grid(name: str, values: Floats, width: int) -> Floats:
    if width < 2:
        raise ValueError(f"layer {name!r}: the symmetric grid needs at least 2 bits, got {width}")
    scale = float(np.abs(values).max()) / (2 ** (width - 1) - 1) or 1.0
    return np.asarray(np.round(values / scale) * scale)


def fit_additive(frame: pd.DataFrame, layers: Sequence[str], metric: str) -> tuple[float, pd.DataFrame]:
    """The additive model that fits measured policies best, by least squares.

    metric = base - sum over layers of loss[layer, bits], each layer's loss being 0 at the widest width seen. Widths
    that no row tells apart get the smallest such losses (minimum-norm solution).

    Returns:
        base, in units of the metric, and the losses as a frame of layers by widths (NaN where never seen).

    >>> frame = pd.DataFrame({"conv": [2, 2, 8, 8], "fc": [2, 8, 2, 8], "accuracy": [70.0, 75, 85, 90]})
    >>> base, losses = fit_additive(frame, ["conv", "fc"], "accuracy")
    >>> round(base, 6), losses[2].round(6).tolist()
    (90.0, [15.0, 5.0])
    """
    for name in [*layers, metric]:
        if name not in frame.columns:
            raise ValueError(f"frame lacks column {name!r}{nearest(name, frame.columns)}")
    widths = policy_rows(frame[list(layers)], layers, "frame")
    space = DesignSpace({name: np.unique(widths[:, column]).tolist() for column, name in enumerate(layers)})
    places = [(name, width) for name in layers for width in space.choices[name][:-1]]
    design = np.ones((len(frame), 1 + len(places)))
    for column, (name, width) in enumerate(places, start=1):
        design[:, column] = -(frame[name].to_numpy() == width).astype(np.float64)
    solution = np.linalg.lstsq(design, frame[metric].to_numpy(dtype=np.float64), rcond=None)[0]
    table = _empty_table(space)
    for name in layers:
        table.loc[name, space.choices[name][-1]] = 0.0
    for (name, width), loss in zip(places, solution[1:], strict=True):
        table.loc[name, width] = loss
    return float(solution[0]), table


def predict(frame: pd.DataFrame, base: float, losses: pd.DataFrame) -> Floats:
    """base - sum of losses for each row of a frame with one column per layer; ValueError for widths never seen.

    >>> losses = pd.DataFrame({2: [20.0, 5.0], 8: [0.0, 0.0]}, index=["conv", "fc"])
    >>> predict(pd.DataFrame({"conv": [2, 8], "fc": [2, 2]}), 90.0, losses).tolist()
    [65.0, 85.0]
    """
    total = np.full(len(frame), float(base))
    for name in losses.index:
        if name not in frame.columns:
            raise ValueError(f"frame lacks column {name!r}{nearest(name, frame.columns)}")
        total -= frame[name].map(losses.loc[name]).to_numpy(dtype=np.float64)
    wrong = np.flatnonzero(np.isnan(total))
    if wrong.size:
        raise ValueError(f"frame: row {wrong[0]} has a bit width that the losses do not know")
    return total


def prediction_quality(measured: npt.ArrayLike, predicted: npt.ArrayLike) -> dict[str, float]:
    """How well predictions follow measurements.

    Returns:
        rmse (in the metric's unit), r2 (1 - residual over total variance: 0 is no better than the mean, negative is
        worse), spearman (rank correlation, ties sharing their mean rank), count.

    >>> prediction_quality([1.0, 2.0, 3.0], [1.0, 2.0, 4.0])["spearman"]
    1.0
    """
    left, right = np.asarray(measured, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if left.ndim != 1 or left.shape != right.shape or len(left) < 2:
        raise ValueError(f"measured and predicted must be equally long vectors, got {left.shape} and {right.shape}")
    residual = float(np.mean((left - right) ** 2))
    ranks = [pd.Series(values).rank().to_numpy() for values in (left, right)]
    spread = [float(rank.std()) for rank in ranks]
    covariance = float(np.mean((ranks[0] - ranks[0].mean()) * (ranks[1] - ranks[1].mean())))
    return {
        "rmse": residual**0.5,
        "r2": 1.0 - residual / float(left.var()) if left.var() > 0 else float("nan"),
        "spearman": round(covariance / (spread[0] * spread[1]), 12) if min(spread) > 0 else float("nan"),
        "count": float(len(left)),
    }


def _empty_table(space: DesignSpace) -> pd.DataFrame:
    widths = sorted({width for choices in space.choices.values() for width in choices})
    return pd.DataFrame(np.nan, index=pd.Index(space.names, name="layer"), columns=widths)

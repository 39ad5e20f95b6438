"""The fast paths that small sets never reach: windows, filters, buckets, sweep and recursion on thousands of rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pareto import is_efficient, rank
from tests import reference_pareto as slow

GENERATOR = np.random.default_rng(11)
TABLES = ("lenet_mnist", "simplenet5_cifar10", "resnet20_cifar10", "alexnet_imagenet100")


def sphere(rows, objectives):
    points = np.abs(GENERATOR.standard_normal((rows, objectives)))
    return -points / np.linalg.norm(points, axis=1, keepdims=True)


def staircase(rows, objectives):
    points = GENERATOR.random((rows, objectives))
    points[:, -1] = -points[:, -2]
    return points


def infinities(rows, objectives):
    points = GENERATOR.integers(0, 30, (rows, objectives)).astype(float)
    points[GENERATOR.random(points.shape) < 0.2] = np.inf
    points[GENERATOR.random(points.shape) < 0.001] = -np.inf
    return points


def skewed(rows, objectives):
    points = np.exp(30 * GENERATOR.standard_normal((rows, objectives)))
    points[:, 0] = -np.log(points[:, 1:]).sum(axis=1)
    return points


KINDS = {
    "few efficient": lambda rows, m: GENERATOR.random((rows, m)),
    "all efficient": sphere,
    "all efficient, one long staircase": staircase,
    "all equal": lambda rows, m: np.ones((rows, m)),
    "one column constant": lambda rows, m: np.column_stack([np.ones(rows), GENERATOR.random((rows, m - 1))]),
    "last column constant": lambda rows, m: np.column_stack([GENERATOR.random((rows, m - 1)), np.ones(rows)]),
    "many ties": lambda rows, m: GENERATOR.integers(0, 12, (rows, m)).astype(float),
    "ties on the front": lambda rows, m: np.round(sphere(rows, m), 1),
    "sorted rising": lambda rows, m: np.sort(GENERATOR.random((rows, m)), axis=0),
    "sorted against each other": lambda rows, m: np.sort(sphere(rows, m), axis=0)[:, ::1] * ([1] + [-1] * (m - 1)),
    "infinities": infinities,
    "skewed": skewed,
}


@pytest.fixture(params=["sorted at once", "cut into buckets"])
def two_objectives(request, monkeypatch):
    """Both ways of finishing with two objectives; buckets would need three million rows."""
    if request.param == "cut into buckets":
        monkeypatch.setattr("pareto._kernels_2d._DIRECT_ROWS", 5_000)
        monkeypatch.setattr("pareto._kernels_2d._BUCKET_ROWS", 2_000)


@pytest.fixture(params=["window", "no window"])
def window(request, monkeypatch):
    """Both ways of beginning; without it, so many rows are needed."""
    if request.param == "no window":
        monkeypatch.setattr("pareto._window._ROWS", 0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_large_sets_of_two_objectives(kind, two_objectives, window):
    equals_moocore(kind, 2, 30_000)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("objectives", "rows"), [(3, 20_000), (4, 20_000), (5, 6_000), (7, 3_000)])
def test_large_sets_of_more(kind, objectives, rows, window):
    equals_moocore(kind, objectives, rows)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("objectives", [2, 3, 4, 6])
def test_ranks_of_thousands_of_rows(kind, objectives):
    points = KINDS[kind](1_500, objectives)
    expected, left, number = np.full(len(points), -1), np.arange(len(points)), 0
    while len(left):  # the front of what is left, again and again
        efficient = is_efficient(points[left], sense=["min"] * objectives)
        expected[left[efficient]] = number
        left, number = left[~efficient], number + 1
    np.testing.assert_array_equal(rank(points, sense=["min"] * objectives), expected)


@pytest.mark.slow
@pytest.mark.parametrize("objectives", [2, 3])
def test_filters_on_all_threads(objectives, monkeypatch):
    monkeypatch.setattr("pareto._kernels_2d.WORTH_A_THREAD", 1_000)
    monkeypatch.setattr("pareto._kernels_nd.WORTH_A_THREAD", 1_000)
    equals_moocore("few efficient", objectives, 40_000)


def equals_moocore(kind, objectives, rows):
    moocore = pytest.importorskip("moocore", reason="moocore is not installed")
    points = KINDS[kind](rows, objectives)
    before = points.copy()
    points.setflags(write=False)
    mask = is_efficient(points, sense=["min"] * objectives)
    finite = np.clip(points, -1e300, 1e300)  # moocore 0.3 crashes on infinities; the order stays the same
    np.testing.assert_array_equal(mask, moocore.is_nondominated(finite, keep_weakly=True))
    flipped = np.asfortranarray(points * ([-1.0] + [1.0] * (objectives - 1)))
    np.testing.assert_array_equal(is_efficient(flipped, sense=["max"] + ["min"] * (objectives - 1)), mask)
    np.testing.assert_array_equal(points, before)


def test_two_objectives_equal_a_running_minimum(two_objectives):
    points = np.round(GENERATOR.random((60_000, 2)), 3)
    points[:, 1] += 2 * (1 - points[:, 0]) ** 2
    lowest_left = pd.Series(points[:, 1]).groupby(points[:, 0]).min().sort_index()
    before = lowest_left.cummin().shift(fill_value=np.inf)
    row_lowest, row_before = lowest_left[points[:, 0]].to_numpy(), before[points[:, 0]].to_numpy()
    expected = (points[:, 1] == row_lowest) & (points[:, 1] < row_before)
    np.testing.assert_array_equal(is_efficient(points, sense=("min", "min")), expected)


def test_order_of_rows_does_not_matter():
    points = np.round(sphere(30_000, 3), 2)
    order = GENERATOR.permutation(len(points))
    mask = is_efficient(points, sense=["min"] * 3)
    np.testing.assert_array_equal(is_efficient(points[order], sense=["min"] * 3), mask[order])


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_published_tables(shared_data, name):
    frame = pd.read_csv(shared_data / "design_spaces" / f"{name}.csv")
    layers = [column for column in frame.columns if column != "accuracy"]
    frame["mean_bits"] = frame[layers].mean(axis=1)
    frame["first_bits"] = frame[layers[0]]
    small = frame.iloc[:: max(1, len(frame) // 600)]
    for columns in (["accuracy", "mean_bits"], ["accuracy", "mean_bits", "first_bits"]):
        sense = ["max"] + ["min"] * (len(columns) - 1)
        signed = frame[columns].to_numpy() * ([-1.0] + [1.0] * (len(columns) - 1))
        mask = is_efficient(frame[columns], sense=sense)
        np.testing.assert_array_equal(
            is_efficient(small[columns], sense=sense), slow.is_efficient(small[columns].to_numpy(), sense)
        )
        moocore = pytest.importorskip("moocore", reason="moocore is not installed")
        np.testing.assert_array_equal(mask, moocore.is_nondominated(signed, keep_weakly=True))
        np.testing.assert_array_equal(rank(frame[columns], sense=sense) == 0, mask)

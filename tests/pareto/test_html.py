"""The page of a design space: what it holds, without a browser; what it shows and answers, in headless Chromium."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pareto import DesignSpace, frontier, plot_html
from pareto.html import cloud_data, page_text
from tests.browser import Browser, browser

SENSE = {"accuracy": "max", "energy_pj": "min"}
NAMES = ["</script><script>alert(1)</script>", "a\"b'c", "<!--é", "fc"]


def space(count: int, names: list[str]) -> pd.DataFrame:
    """Random policies whose accuracy and energy grow with their bits."""
    generator = np.random.default_rng(0)
    bits = np.clip(generator.integers(2, 9, (count, len(names))) + generator.integers(-3, 4, (count, 1)), 2, 8)
    frame = pd.DataFrame(bits.astype(np.uint8), columns=names)
    weights = generator.uniform(0.2, 2.0, len(names))
    accuracy = 75 - 30 * (2.0 ** (1 - bits) * weights).mean(axis=1) + generator.normal(0, 0.4, count)
    return frame.assign(accuracy=accuracy, energy_pj=3.3217 * (bits * weights).mean(axis=1))


def data_of(page: Path) -> dict[str, Any]:
    text = page.read_text(encoding="utf-8")
    return dict(json.loads(re.findall(r'<script id="data" type="application/json">(.*?)</script>', text, re.S)[0]))


@pytest.fixture
def frame() -> pd.DataFrame:
    return DesignSpace({"conv": (2, 3), "fc": (2, 3)}).frame(
        accuracy=[50.0, 80.0, 79.0, 90.0], energy_pj=[1.0, 2.0, 3.0, 4.0]
    )


def test_the_page_holds_every_policy(frame: pd.DataFrame, tmp_path: Path) -> None:
    mark = {"ours": {"conv": 3, "fc": 2}, "far": {"accuracy": 95, "energy_pj": 9}}
    front = frontier(frame, sense=SENSE)
    page = plot_html(frame, front, tmp_path / "deep" / "front.html", mark=mark, budgets=[3.5], title="a <b> & c")
    data = data_of(page)
    cloud = data["cloud"]
    assert (data["layers"], cloud["bits"]) == (["conv", "fc"], "22233233")
    assert cloud["columns"] == {"accuracy": [50, 80, 79, 90], "energy_pj": [1, 2, 3, 4]}
    assert (cloud["front"], cloud["uniform"], cloud["best"]) == ([0, 1, 3], [[2, 0], [3, 3]], [1])
    assert cloud["budgets"] == [3.5]
    assert [(point["label"], point["row"], point["efficient"]) for point in cloud["marks"]] == [
        ("ours", 2, False),
        ("far", None, True),
    ]
    assert data["policy"] == {"label": "ours", "values": {"accuracy": 79, "energy_pj": 3}, "bits": [3, 2]}
    text = page.read_text(encoding="utf-8")
    assert text.count("<title>a &lt;b&gt; &amp; c</title>") == 1
    assert '<html lang="en">' in text


def test_names_and_values_come_back(tmp_path: Path) -> None:
    frame = space(50, NAMES)
    page = plot_html(frame, frontier(frame, sense=SENSE), tmp_path / "page.html", layers=NAMES)
    data = data_of(page)
    assert data["layers"] == NAMES
    bits = np.array([int(digit, 36) for digit in data["cloud"]["bits"]]).reshape(-1, 4)
    np.testing.assert_array_equal(bits, frame[NAMES])
    np.testing.assert_allclose(data["cloud"]["columns"]["accuracy"], frame["accuracy"], rtol=1e-6)
    text = page.read_text(encoding="utf-8")
    assert "alert(1)</script>" not in text
    assert len(re.findall("<script", text)) == len(re.findall("</script", text)) == 2


def test_it_asks_for_nothing_and_is_small(tmp_path: Path) -> None:
    names = [f"layer{number // 3}.{number % 3}.conv{number}" for number in range(54)]
    frame = space(3000, names)
    page = plot_html(frame, frontier(frame, sense=SENSE), tmp_path / "page.html", layers=names)
    text = page.read_text(encoding="utf-8")
    assert len(text.encode()) < 400_000
    assert "default-src 'none'" in text
    assert re.findall(r"""https?:|\bsrc=|href="(?!data:)|@import|url\(""", text) == []


def test_what_is_not_finite_is_null(frame: pd.DataFrame) -> None:
    frame.loc[3, "accuracy"] = np.inf
    front = frontier(frame, sense=SENSE)
    data = cloud_data(frame, front)
    assert data["cloud"]["columns"]["accuracy"][3] is None
    assert "null" in page_text(data, title="", body=[], scripts=[])


def test_three_objectives_make_no_stairs(frame: pd.DataFrame) -> None:
    more = frame.assign(cycles=[4, 3, 2, 1])
    data = cloud_data(more, more, sense=SENSE | {"cycles": "min"})
    assert not data["cloud"]["stairs"]
    assert list(data["cloud"]["columns"]) == ["accuracy", "energy_pj", "cycles"]


def test_rows_are_found_by_their_labels(frame: pd.DataFrame) -> None:
    named = frame.set_axis(["a", "b", "c", "d"])
    front = frontier(named, sense=SENSE)
    assert cloud_data(named, front)["cloud"]["front"] == [0, 1, 3]
    with pytest.raises(ValueError, match="front has the row 'a', which the frame lacks"):
        cloud_data(frame, front)


def test_bits_that_are_none(frame: pd.DataFrame) -> None:
    half = frame.assign(fc=[2, 2.5, 3, 3])
    with pytest.raises(ValueError, match=r"column 'fc' has 2\.5 in row 1; expected whole bits, 0 to 35"):
        cloud_data(half, frontier(half, sense=SENSE), layers=["conv", "fc"])


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A cloud of 20,000 policies in a browser: one in its middle marked, a point beside it too, and one budget."""
    names = [*NAMES, *"ghijkl"]
    frame = space(20_000, names)
    page = plot_html(
        frame,
        frontier(frame, sense=SENSE),
        tmp_path_factory.mktemp("page") / "page.html",
        mark={"ours": frame.loc[7, names].to_dict(), "far": {"accuracy": 60.0, "energy_pj": 25.0}},
        budgets=[10.0],
        layers=names,
    )
    with browser() as opened:
        opened.open(page)
        yield opened


def ink(window: Browser, variable: str, place: str, reach: int) -> int:
    """How many pixels of the cloud's picture have a colour of the page, around a place of it."""
    window.settle()
    wanted = tuple(int(window.run(f"colour({variable!r})")[digit : digit + 2], 16) for digit in (1, 3, 5))
    left, top = (int(value) for value in window.run(place))
    part = window.pixels("#cloud canvas")[top - reach : top + reach, left - reach : left + reach]
    return int((part == wanted).all(axis=2).sum())


def point(window: Browser, place: str) -> tuple[float, float]:
    """A place of the cloud's picture as one of the window."""
    window.run("scrollTo(0, 0)")
    left, top = window.run(f"(([a, b], r) => [r.x + a, r.y + b])({place}, view.canvas.getBoundingClientRect())")
    return left, top


@pytest.mark.slow
def test_stars_and_budget_are_seen_above_20000_policies(window: Browser) -> None:
    window.run("setBudget(null)")
    for number in (0, 1):
        assert ink(window, f"mark-{number}", f"[x(marks[{number}].x), y(marks[{number}].y)]", reach=8) > 30
    assert ink(window, "budget", "[x(10), (box.top + box.bottom) / 2]", reach=20) > 30
    assert ink(window, "budget", "[x(14), (box.top + box.bottom) / 2]", reach=20) == 0
    assert window.requests == [window.run("location.href")]
    assert window.complaints == []


@pytest.mark.slow
def test_the_pointer_meets_a_star_before_what_lies_below_it(window: Browser) -> None:
    left, top = point(window, "[x(marks[0].x), y(marks[0].y)]")
    window.mouse("mouseMoved", left + 3, top)
    assert window.run("byId('tip').textContent").splitlines()[0] == "ours"
    assert "\n</script>…)</script>: " in window.run("byId('tip').textContent")
    window.mouse("mouseMoved", *point(window, "[x(25), y(60)]"))
    assert window.run("byId('tip').textContent") == "far\nEnergy (pJ) 25\nAccuracy (%) 60"


@pytest.mark.slow
def test_a_click_and_the_arrow_keys_choose(window: Browser) -> None:
    window.run("setBudget(null)")
    place = point(window, "[x(xs[cloud.front[3]]), y(ys[cloud.front[3]])]")
    for kind, pressed in (("mousePressed", True), ("mouseReleased", False)):
        window.mouse(kind, *place, pressed=pressed)
    assert window.run("chosen.row === cloud.front[3]")
    window.run("view.canvas.focus()")
    window.key("ArrowRight")
    assert window.run("chosen.row === cloud.front[4]")
    assert window.run("JSON.stringify(chosen.bits) === JSON.stringify(bitsOf(cloud.front[4]))")
    assert window.run("byId('chosen-name').textContent").endswith("on the frontier")
    window.run("byId('rows').focus()")
    window.key("ArrowUp")
    assert window.run("chosen.row === cloud.front[3]")


@pytest.mark.slow
def test_dragging_sets_a_budget_and_chooses_the_best_within_it(window: Browser) -> None:
    left, top = point(window, "[x(12), box.bottom - 10]")
    window.mouse("mousePressed", left + 80, top, pressed=True)
    for further in (60, 0):
        window.mouse("mouseMoved", left + further, top, pressed=True)
    window.mouse("mouseReleased", left, top)
    assert abs(window.run("budget") - 12) < 0.02
    assert window.run("chosen.row === xs.map((v, row) => row).filter(within).reduce((a, b) => ys[b] > ys[a] ? b : a)")
    assert ink(window, "budget", "[x(budget), (box.top + box.bottom) / 2]", reach=20) > 30
    inside = window.run("cloud.front.filter(within).length")
    assert window.run("byId('count').textContent") == f"{inside} rows within the budget"
    window.run("byId('no-budget').click()")
    assert window.run("[budget, byId('budget-value').textContent]") == [None, "none"]


@pytest.mark.slow
def test_heads_of_the_table_sort_it(window: Browser) -> None:
    window.run("setBudget(null); byId('which').value = 'all'; byId('which').dispatchEvent(new Event('change'))")
    first = "byId('policies').tBodies[0].rows[0].cells[0].textContent"
    for _ in range(2):
        window.run("document.querySelector('th[data-by=accuracy] button').click()")
    assert window.run("document.querySelector('th[data-by=accuracy]').ariaSort") == "descending"
    assert window.run(f"{first} === words(ys.reduce((a, b) => Math.max(a, b)))")
    assert window.run("byId('policies').tBodies[0].rows.length") == 100


@pytest.mark.slow
def test_the_chosen_policy_is_a_file(window: Browser) -> None:
    window.run("choose(11)")
    file = json.loads(window.run("policyFile(chosen)"))
    assert list(file) == [*NAMES, *"ghijkl"]
    assert file == dict(zip(file, window.run("bitsOf(11)"), strict=True))


@pytest.mark.slow
def test_phone_dark_and_paper(window: Browser) -> None:
    try:
        window.theme(dark=True)
        window.size(390, 844, phone=True)
        window.settle()
        assert window.run("document.documentElement.scrollWidth") == 390
        assert window.pixels("#cloud canvas")[0, 0].max() < 40
        window.run("dispatchEvent(new Event('beforeprint'))")
        assert window.pixels("#cloud canvas")[0, 0].min() == 255
        window.run("dispatchEvent(new Event('afterprint'))")
        assert window.pixels("#cloud canvas")[0, 0].max() < 40
        assert window.complaints == []
    finally:
        window.theme(dark=False)
        window.size(1200)

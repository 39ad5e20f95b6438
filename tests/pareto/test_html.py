from __future__ import annotations

import importlib.util
import json
import re
import sys

import pytest

from pareto import DesignSpace, frontier, plot_data, plot_html
from pareto.html import hover_texts

SENSE = {"accuracy": "max", "energy_pj": "min"}
needs_plotly = pytest.mark.skipif(
    importlib.util.find_spec("plotly") is None, reason="plotly is not installed (pip install 'waveq[html]')"
)


@pytest.fixture
def frame():
    return DesignSpace({"conv": (2, 3), "fc": (2, 3)}).frame(
        accuracy=[50.0, 80.0, 79.0, 90.0], energy_pj=[1.0, 2.0, 3.0, 4.0]
    )


def test_hovering_shows_the_bits_of_each_layer(frame):
    front = frontier(frame, sense=SENSE)
    data = plot_data(frame, front, mark={"ours": {"conv": 3, "fc": 2}, "far": {"accuracy": 95, "energy_pj": 9}})
    texts = dict(
        zip(zip(data["kind"], data["label"], data["x"], strict=True), hover_texts(data, frame, front), strict=True)
    )
    assert texts["policy", "", 3.0] == "accuracy 79<br>energy_pj 3<br>conv: 3<br>fc: 2"
    assert texts["front", "", 4.0] == "accuracy 90<br>energy_pj 4<br>conv: 3<br>fc: 3"
    assert texts["mark", "ours", 3.0] == "<b>ours</b><br>accuracy 79<br>energy_pj 3<br>conv: 3<br>fc: 2"
    assert texts["mark", "far", 9.0] == "<b>far</b><br>accuracy 95<br>energy_pj 9"


@pytest.mark.slow
@needs_plotly
def test_the_page_holds_every_point(frame, tmp_path):
    front = frontier(frame, sense=SENSE)
    target = plot_html(
        frame, front, tmp_path / "deep" / "front.html", mark={"ours": {"conv": 3, "fc": 2}}, budgets=[3.5], title="toy"
    )
    page = target.read_text(encoding="utf-8")
    assert "https://cdn.plot.ly" not in page.split("<body>")[1][:500]
    drawn = re.search(r"Plotly\.newPlot\(\s*\"[^\"]+\",\s*(\[.*?\]),\s*\{", page, re.S)
    traces = {trace.get("name"): trace for trace in json.loads(drawn.group(1))}
    assert traces["policies (4)"]["x"] == [1.0, 2.0, 3.0, 4.0]
    assert traces["frontier (3)"]["y"] == [50.0, 80.0, 90.0]
    assert traces["ours"]["text"] == ["<b>ours</b><br>accuracy 79<br>energy_pj 3<br>conv: 3<br>fc: 2"]
    assert traces["best within budget (1)"]["x"] == [2.0]


def test_missing_plotly_says_how_to_get_it(frame, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'waveq\[html\]'"):
        plot_html(frame, frontier(frame, sense=SENSE), tmp_path / "front.html")

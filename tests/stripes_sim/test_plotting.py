from __future__ import annotations

import pytest

from stripes_sim import LayerShape, Stripes, explore, plot_breakdown, plot_exploration
from stripes_sim.plotting import breakdown_data

NET = [
    LayerShape(name="a", kind="conv", in_channels=64, out_channels=64, kernel_size=3, input_size=(14, 14), padding=1),
    LayerShape(name="b", kind="linear", in_channels=512, out_channels=100),
]


def test_bars_are_the_parts_of_each_layer():
    result = Stripes().run(NET, 4)
    data = breakdown_data(result)
    assert list(data.index) == ["a", "b"]
    assert data.sum(axis=1).to_numpy() == pytest.approx(result.frame["energy_pj"].to_numpy() / 1e6)
    axes = plot_breakdown(result).axes[0]
    assert len(axes.patches) == 2 * 5
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["a (4)", "b (4)"]
    tops = [max(bar.get_y() + bar.get_height() for bar in axes.patches[layer::2]) for layer in range(2)]
    assert tops == pytest.approx(data.sum(axis=1).tolist())


def test_several_runs_stand_side_by_side():
    result = Stripes().run(NET, 4)
    axes = plot_breakdown({"16 bits": result.at(16), "policy": result}, title="saved").axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["16 bits", "policy"]
    assert axes.get_title() == "saved"


@pytest.mark.slow
def test_exploration_draws_every_machine(tmp_path):
    frame = explore(NET, [4, 8], {"tiles": (1, 2, 4)})
    figure = plot_exploration(frame, efficient=frame.iloc[[0, 2]])
    points = sum(len(collection.get_offsets()) for collection in figure.axes[0].collections)
    assert points == len(frame)
    figure.savefig(tmp_path / "explore.png")
    assert (tmp_path / "explore.png").stat().st_size > 5000
    with pytest.raises(ValueError, match="no column 'energy' to draw; did you mean 'energy_pj'"):
        plot_exploration(frame, y="energy")

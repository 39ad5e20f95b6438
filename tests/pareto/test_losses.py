from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pareto import (
    DesignSpace,
    additive_frontier,
    fit_additive,
    measured_losses,
    predict,
    prediction_quality,
    weight_errors,
)

SPACE = DesignSpace({"conv": (2, 4, 8), "fc": (3, 8)})


def test_measured_losses_change_one_layer_at_a_time():
    seen = []

    def evaluate(policies):
        seen.append(policies.copy())
        return 90.0 - 3.0 * (8 - policies[:, 0]) - 0.5 * (8 - policies[:, 1])

    table = measured_losses({"fc": 8, "conv": 8}, evaluate, SPACE)
    assert seen[0].tolist() == [[8, 8], [2, 8], [4, 8], [8, 3]]
    assert table.loc["conv", [2, 4, 8]].tolist() == [18.0, 12.0, 0.0]
    assert table.loc["fc", [3, 8]].tolist() == [2.5, 0.0]
    assert table.loc["fc", [2, 4]].isna().all()
    front = additive_frontier({"conv": {2: 2, 4: 4, 8: 8}, "fc": {3: 3, 8: 8}}, table)
    assert len(front) == 4  # conv 2 with fc 8 costs 10 and loses 18, conv 4 with fc 3 less of both


def test_weight_error_of_a_uniform_density_is_a_twelfth_of_the_step_squared():
    weights = np.linspace(-1, 1, 400_001)
    table = weight_errors({"fc": weights, "conv": 5 * weights}, SPACE)
    for name, scale in (("conv", 5.0), ("fc", 1.0)):
        for bits in SPACE.choices[name]:
            step = scale / (2 ** (bits - 1) - 1)
            assert table.loc[name, bits] == pytest.approx(step**2 / 12, rel=1e-3)
    relative = weight_errors({"fc": weights, "conv": 5 * weights}, SPACE, relative=True)
    assert relative.loc["conv", 8] == pytest.approx(relative.loc["fc", 8])
    assert weight_errors({"fc": [0.0], "conv": [0.0]}, SPACE, relative=True).fillna(0).to_numpy().max() == 0.0


def test_weights_may_be_rounded_by_a_grid_of_ones_own():
    given = {"conv": np.array([[0.5, 1.0], [2.0, 4.0]]), "fc": np.array([1.0, 3.0])}
    asked = []

    def rounded(name, bits):
        asked.append((name, bits))
        return given[name] + 1 / bits

    table = weight_errors(given, DesignSpace({"conv": (1, 2), "fc": (4,)}), rounded=rounded)
    assert asked == [("conv", 1), ("conv", 2), ("fc", 4)]
    assert table.loc["conv", [1, 2]].tolist() == [1.0, 0.25]
    assert table.loc["fc", 4] == 1 / 16


def test_fit_recovers_a_model_that_is_additive():
    generator = np.random.default_rng(0)
    true = pd.DataFrame({2: [9.0, 4.0, 7.0], 3: [2.0, 1.0, 3.0], 8: 0.0}, index=["a", "b", "c"])
    frame = pd.DataFrame(generator.choice([2, 3, 8], (60, 3)), columns=["a", "b", "c"])
    frame["accuracy"] = predict(frame, 91.0, true)
    base, losses = fit_additive(frame, ["a", "b", "c"], "accuracy")
    assert base == pytest.approx(91.0)
    np.testing.assert_allclose(losses.to_numpy(), true.to_numpy(), atol=1e-9)
    quality = prediction_quality(frame["accuracy"], predict(frame, base, losses))
    assert quality["r2"] == pytest.approx(1.0)


def test_quality_equals_scipy_with_ties():
    from scipy.stats import spearmanr

    generator = np.random.default_rng(3)
    measured, predicted = generator.integers(0, 9, 200), generator.integers(0, 9, 200)
    quality = prediction_quality(measured, predicted)
    assert quality["spearman"] == pytest.approx(spearmanr(measured, predicted).statistic)
    assert quality["rmse"] == pytest.approx(np.sqrt(np.mean((measured - predicted) ** 2.0)))
    assert prediction_quality(measured, np.full(200, measured.mean()))["r2"] == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("name", "least"), [("resnet20_cifar10", 0.6), ("simplenet5_cifar10", 0.75), ("lenet_mnist", 0.6)]
)
def test_ranks_of_held_out_published_policies(shared_data, name, least):
    frame = pd.read_csv(shared_data / "design_spaces" / f"{name}.csv").sample(frac=1, random_state=0)
    layers = [column for column in frame.columns if column != "accuracy"]
    half = len(frame) // 2
    base, losses = fit_additive(frame.iloc[:half], layers, "accuracy")
    quality = prediction_quality(frame["accuracy"].iloc[half:], predict(frame.iloc[half:], base, losses))
    assert quality["spearman"] > least


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="reference names layer 'con'; did you mean 'conv'"):
        measured_losses({"con": 8, "fc": 8}, lambda rows: rows[:, 0], SPACE)
    with pytest.raises(ValueError, match="evaluate must return 4 numbers"):
        measured_losses({"conv": 8, "fc": 8}, lambda rows: rows, SPACE)
    with pytest.raises(ValueError, match="weights lack layer 'fc'"):
        weight_errors({"conv": [1.0]}, SPACE)
    with pytest.raises(ValueError, match=r"weights\['conv'\] must be finite"):
        weight_errors({"conv": [np.nan], "fc": [1.0]}, SPACE)
    with pytest.raises(ValueError, match="at least 2 bits, got 1"):
        weight_errors({"conv": [1.0]}, DesignSpace({"conv": (1, 2)}))
    losses = pd.DataFrame({2: [1.0]}, index=["conv"])
    with pytest.raises(ValueError, match="row 1 has a bit width that the losses do not know"):
        predict(pd.DataFrame({"conv": [2, 5]}), 0.0, losses)
    with pytest.raises(ValueError, match="frame lacks column 'acc'"):
        fit_additive(pd.DataFrame({"conv": [2]}), ["conv"], "acc")
    with pytest.raises(ValueError, match="equally long vectors"):
        prediction_quality([1.0], [1.0, 2.0])

from __future__ import annotations

import dataclasses

import pytest

from waveq.functional import BETA_MAX
from waveq.method.options import usual_quantizer
from waveq.method.presets import PRESETS, get_preset
from waveq.quantizers.base import check_scale_mode


def test_the_three_readings() -> None:
    assert set(PRESETS) == {"paper", "released", "recommended"}
    assert all(preset.name == name for name, preset in PRESETS.items())


def test_paper_has_the_papers_numbers() -> None:
    paper = get_preset("paper")
    assert (paper.order, paper.lambda_w, paper.lambda_beta) == (1, 1.0, 0.05)  # R1, fig. 2e
    assert paper.phases == pytest.approx((4 / 12, 9 / 12))  # table 4's 4:5:3
    assert paper.sine_moves_beta
    assert not paper.task_moves_beta
    assert not paper.balance
    assert paper.scale == "none"  # DoReFa as published


def test_released_is_what_the_scripts_do() -> None:
    released = get_preset("released")
    assert (released.beta_init, released.wave_on, released.quantize_from_phase) == (8.0, "raw", 3)
    assert (released.beta_lr, released.beta_momentum, released.beta_weight_decay) == (0.01, 0.9, 1e-4)


def test_recommended_keeps_the_two_paths_apart() -> None:
    ours = get_preset("recommended")
    assert ours.task_moves_beta
    assert not ours.sine_moves_beta
    assert ours.balance
    assert ours.scale == "max"
    assert ours.hysteresis > 0


def test_only_recommended_leaves_the_quantizer_of_the_paper() -> None:
    usual = {name: usual_quantizer(name) for name in PRESETS}
    assert usual == {"paper": "dorefa", "released": "dorefa", "recommended": "lsq"}
    assert {usual_quantizer(name, "float") for name in PRESETS} == {"midrise"}


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_consistent_and_says_how_it_differs(name: str) -> None:
    preset = get_preset(name)
    check_scale_mode(preset.scale)
    assert preset.order in (0, 1, 2)
    assert BETA_MAX <= preset.beta_init <= preset.beta_max <= 8
    assert 0 < preset.phases[0] < preset.phases[1] < 1
    assert preset.lambda_beta > 0
    assert preset.differences
    assert all(sentence.endswith(".") for sentence in preset.differences)
    with pytest.raises(dataclasses.FrozenInstanceError):
        preset.order = 2  # type: ignore[misc]


def test_every_field_is_documented() -> None:
    fields = [field.name for field in dataclasses.fields(get_preset("paper"))]
    documented = type(get_preset("paper")).__doc__ or ""
    assert [name for name in fields if f"        {name}: " not in documented] == []


def test_unknown_preset() -> None:
    with pytest.raises(ValueError, match=r"unknown preset 'recomended'; did you mean 'recommended'\? \(known: paper,"):
        get_preset("recomended")

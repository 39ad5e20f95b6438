"""Errors about unknown names give the nearest one."""

from __future__ import annotations

import pytest

from waveq._names import by_name, check_choice, nearest


def test_the_nearest_name_or_all_of_them() -> None:
    assert nearest("cnov1", iter(["conv1", "fc"])) == "; did you mean 'conv1'?"
    assert nearest("head", ["conv1", "fc"]) == " (known: conv1, fc)"
    assert nearest(7, ["conv1", "fc"]) == " (known: conv1, fc)"


def test_a_choice_is_taken_or_refused_with_all_there_are() -> None:
    check_choice("part", "test", ("validation", "test"))
    with pytest.raises(ValueError, match=r"^part must be one of 'validation', 'test', not 3$"):
        check_choice("part", 3, ("validation", "test"))


def test_aliases_and_hyphens_lead_to_the_proper_name() -> None:
    known = {"vgg11_bn": 1, "lenet": 2}
    assert by_name("model", "VGG11-BN", known) == 1
    assert by_name("model", "LeNet5", known, {"lenet5": "lenet"}) == 2
    with pytest.raises(ValueError, match=r"did you mean 'lenet'\? \(known: vgg11_bn, lenet\)"):
        by_name("model", "lenet4", known, {"lenet5": "lenet"})

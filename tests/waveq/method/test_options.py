"""One record of options: ``attach``, the training config and the command line offer what it holds, or fail by name."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import math
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import pytest

import waveq
from tests.training import mlp
from waveq.cli.train import train as train_verb
from waveq.method.attachment import attach_method
from waveq.method.options import Method, option_help, option_names, takes_options
from waveq.train.config import METHOD_FIELDS, TrainConfig

OPTIONS = {option.name: option for option in dataclasses.fields(Method)}


def test_attach_has_every_option_as_a_typed_keyword_with_the_records_default_and_text() -> None:
    keywords = dict(inspect.signature(waveq.attach).parameters)
    del keywords["model"]
    assert {name: keyword.default for name, keyword in keywords.items()} == {
        name: option.default for name, option in OPTIONS.items()
    }
    annotations = waveq.attach.__annotations__
    assert all(annotations[name] == option.type for name, option in OPTIONS.items())
    told = " ".join(str(waveq.attach.__doc__).split())
    assert all(f"{name}: {option_help(name)}" in told for name in OPTIONS)
    assert max(map(len, str(waveq.attach.__doc__).splitlines())) <= 120
    assert "OPTIONS" not in told


def test_attach_is_the_record_applied() -> None:
    options: dict[str, Any] = {"bits": 3, "quantizer": "wrpn", "scale": "max", "first_last": 8, "lambda_w": 0.5}
    by_keywords, by_record = waveq.attach(mlp(), **options), attach_method(mlp(), Method(**options))
    assert by_keywords.settings.described == by_record.settings.described
    assert by_keywords.policy().to_json() == by_record.policy().to_json()


def test_every_option_reaches_the_record() -> None:
    """An option that ``attach`` took and forgot would be refused by nobody."""
    odd: dict[str, Any] = {name: object() for name in OPTIONS}
    seen = {}

    def note(_model: object, method: Method) -> None:
        seen.update(vars(method))

    checkless = {name for name, option in OPTIONS.items() if option.metadata["check"] is None}
    given = {name: odd[name] for name in checkless}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("waveq.method.attachment.attach_method", note)
        waveq.attach(mlp(), total_steps=7, forward="float", lambda_w=1, lambda_beta=2, beta_lr=3, **given)
    assert seen == given | {
        "total_steps": 7, "forward": "float", "lambda_w": 1.0, "lambda_beta": 2.0, "beta_lr": 3.0,
        "scale_rule": "exact", "activation_signed": None, "granularity": None, "freezing": None,
        "start_bits": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ({"total_steps": 0}, "total_steps must be a positive whole number of optimiser steps, not 0"),
        ({"lambda_w": -1.0}, "lambda_w must be a finite number >= 0, not -1.0"),
        ({"lambda_beta": True}, "lambda_beta must be a finite number >= 0, not True"),
        ({"beta_lr": math.nan}, "beta_lr must be a finite number >= 0, not nan"),
        ({"forward": "floats"}, "forward must be \"quantized\" or \"float\", not 'floats'; did you mean 'float'"),
        ({"freezing": 0.0}, 'freezing must be "off" or an exponent above 0, such as 0.5, not 0.0'),
        ({"freezing": "of"}, "freezing must be \"off\" or an exponent above 0, such as 0.5, not 'of'"),
        ({"forward": None}, 'forward must be "quantized" or "float", not None'),
        (
            {"activation_signed": "yes"},
            "activation_signed must be True, False or a mapping of layers to them, not 'yes'",
        ),
        ({"activation_signed": {"fc": 1}}, "activation_signed must be True, False or a mapping"),
        ({"scale_rule": None}, "scale_rule must be one of 'exact'"),
    ],
)
def test_values_that_are_wrong_by_themselves_are_refused(option: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Method(**option)


def test_the_record_is_frozen_and_copies() -> None:
    method = Method(bits=4)
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.bits = 3  # type: ignore[misc]
    assert copy.deepcopy(method) == method


def test_the_training_config_and_the_command_line_offer_the_options() -> None:
    assert set(OPTIONS) - set(METHOD_FIELDS) == {"total_steps", "scale_rule"}
    on_the_line = set(inspect.signature(train_verb).parameters)
    assert set(METHOD_FIELDS) - on_the_line == {"activation_signed", "layer_costs", "fit_range", "beta_lr"}
    assert on_the_line & set(OPTIONS) <= set(METHOD_FIELDS)
    # a config may say more of an option than nothing, where it says the same as the record's own default does
    differing = {name for name in METHOD_FIELDS if TrainConfig.model_fields[name].default != OPTIONS[name].default}
    assert differing == {"quantizer"}


def test_a_place_that_lacks_an_option_fails_by_its_name() -> None:
    names = [name for name in OPTIONS if name != "beta_lr"]
    with pytest.raises(TypeError, match="config lacks the option 'beta_lr' of"):
        option_names("config", names, instead={})
    assert option_names("config", [*names, "lr"], instead={"beta_lr": "lr"}) == tuple(names)
    for stale in ("bits", "colour"):
        with pytest.raises(TypeError, match=f"config makes an exception of '{stale}'"):
            option_names("config", names, instead={"beta_lr": "lr", stale: "nothing"})


def test_a_function_that_is_out_of_step_with_the_record_fails_by_name() -> None:
    keywords = inspect.signature(waveq.attach).parameters

    def made_of(parameters: Iterable[inspect.Parameter]) -> Any:
        def call() -> None: ...

        call.__signature__ = inspect.Signature(list(parameters))  # type: ignore[attr-defined]
        return call

    takes_options(made_of(keywords.values()))
    with pytest.raises(TypeError, match="lacks the option 'skip'"):
        takes_options(made_of(p for name, p in keywords.items() if name != "skip"))
    with pytest.raises(TypeError, match=r"call\(skip=None\) is no option of Method, or has another default"):
        takes_options(made_of(p.replace(default=None) if name == "skip" else p for name, p in keywords.items()))
    strange = inspect.Parameter("colour", inspect.Parameter.KEYWORD_ONLY, default="red")
    with pytest.raises(TypeError, match=r"call\(colour='red'\) is no option of Method"):
        takes_options(made_of([*keywords.values(), strange]))


@pytest.mark.slow
def test_reading_the_options_needs_no_torch() -> None:
    code = "import sys, waveq.method.options, waveq.train.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

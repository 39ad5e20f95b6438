"""Methods of others: the documentation's own example, its wave, and every door that a method goes through."""

from __future__ import annotations

import copy
import importlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import waveq
from tests.docs_blocks import first_python_block
from tests.training import batches, mlp, train
from waveq.evaluate import PolicyEvaluator
from waveq.functional import grid_levels, wave
from waveq.method.parametrization import parametrization_of
from waveq.quantizers import (
    ActivationQuantizer,
    DoReFaActivation,
    WeightQuantizer,
    activation_quantizer_names,
    make_quantizer,
    quantize_weight,
    quantizer_names,
    register,
)
from waveq.quantizers.dorefa import DoReFa
from waveq.quantizers.lsq import LSQ
from waveq.quantizers.wrpn import WRPN


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_new: Callable[[], None]) -> Any:
    """The class of docs/quantizers.md, from a file of its own outside the repository."""
    code = first_python_block("quantizers.md", "A new method")
    assert len(code.splitlines()) <= 30
    (tmp_path / "my_methods.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    return importlib.import_module("my_methods").ThreeSigma


class Plain(WRPN):
    """A class that nobody registers."""


def test_the_zeros_of_the_examples_wave_are_its_levels(example: Any) -> None:
    weight = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    for total_bits in example.bit_counts:
        method = make_quantizer(example, weight, total_bits=total_bits)
        beta, span = torch.tensor(float(total_bits - 1)), method.get_buffer("span")
        levels = grid_levels(total_bits, method.grid()).float() * span
        between = (levels[1:] + levels[:-1]) / 2
        sweep = torch.linspace(-2.0, 2.0, 5000) * span
        torch.testing.assert_close(method(sweep, beta).unique(), levels)

        def height(w: Tensor, method: Any = method, beta: Tensor = beta) -> Tensor:
            return wave(method.coordinate(w, beta), beta, grid=method.grid(), order=0)

        assert height(levels).max() < 1e-6
        assert height(between).min() > 1 - 1e-6
        for near, far in ((between - 1e-4 * span, levels[:-1]), (between + 1e-4 * span, levels[1:])):
            torch.testing.assert_close(method(near, beta), far)  # rounding changes on the crests


def test_the_examples_compiled_form_follows_from_its_levels(example: Any) -> None:
    model = mlp()
    plain = {name: model.get_submodule(name).weight.detach().clone() for name in ("0", "2", "4")}
    wq = waveq.attach(model, quantizer=example, bits=3, lambda_w=0.1)
    assert wq.penalty() > 0
    for name, weight in plain.items():
        layer = model.get_submodule(name)
        assert parametrization_of(layer).quantizer.compiles("forward")
        torch.testing.assert_close(layer.weight, quantize_weight(weight, 3, quantizer=example), rtol=1e-6, atol=0.0)


@pytest.mark.slow
def test_the_example_trains_learns_bits_and_travels_by_its_name(example: Any, tmp_path: Path) -> None:
    model = mlp()
    wq = waveq.attach(model, quantizer=example, total_steps=60)
    spans = [parametrization_of(model.get_submodule(name)).quantizer.span for name in wq.names]
    assert len({float(span) for span in spans}) == len(spans), "every layer starts from weights of its own"
    train(model, wq, torch.optim.SGD(model.parameters(), lr=0.05), batches(60))
    policy = wq.policy()
    assert policy.quantizer == "three-sigma"
    assert set(policy.values()) != {8}, "beta moved"
    policy.save(tmp_path / "policy.json")
    again = mlp()
    waveq.attach(again, bits=waveq.Policy.load(tmp_path / "policy.json"))
    assert isinstance(parametrization_of(again.get_submodule("0")).quantizer, example)
    wq.finalize()
    for name, bits in policy.items():
        assert len(model.get_submodule(name).weight.unique()) <= 2**bits - 1


def test_a_policy_of_a_method_that_is_not_registered_says_so(example: Any, as_new: Callable[[], None]) -> None:
    policy = waveq.attach(mlp(), quantizer=example, bits=3).policy()
    as_new()
    with pytest.raises(ValueError, match=r"unknown quantizer 'three-sigma' \(known: dorefa, .*wrpn\)"):
        waveq.attach(mlp(), bits=policy)
    assert waveq.attach(mlp(), bits=policy, quantizer=example).bits() == {"0": 3, "2": 3, "4": 3}
    with pytest.raises(ValueError, match="contradicts bits, a policy made with 'three-sigma'"):
        waveq.attach(mlp(), bits=policy, quantizer=Plain)


def test_registered_methods_are_in_the_hint(example: Any) -> None:
    with pytest.raises(ValueError, match=r"did you mean 'three-sigma'\? \(known: .*three-sigma"):
        waveq.attach(mlp(), quantizer="three-sigmas", bits=3)


def test_a_class_that_nobody_registered_is_taken_under_its_own_name() -> None:
    own, known = mlp(), mlp()
    wq = waveq.attach(own, quantizer=Plain, scale="max", bits=3)
    waveq.attach(known, quantizer="wrpn", scale="max", bits=3)
    assert wq.policy().quantizer == "plain"
    assert "plain" not in quantizer_names()
    torch.testing.assert_close(own(torch.ones(2, 6)), known(torch.ones(2, 6)))


def test_an_instance_is_copied_for_every_layer() -> None:
    pattern = WRPN(torch.ones(1), scale="max")
    model, known = mlp(), mlp()
    wq = waveq.attach(model, quantizer=pattern, bits=3)
    waveq.attach(known, quantizer="wrpn", scale="max", bits=3)
    made = [parametrization_of(model.get_submodule(name)).quantizer for name in wq.names]
    assert len({id(each) for each in [pattern, *made]}) == 4
    assert {each.scale for each in made} == {"max"}
    torch.testing.assert_close(model(torch.ones(2, 6)), known(torch.ones(2, 6)))


def test_an_instance_with_a_state_or_another_scale_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'lsq' holds step, .*, which started from the weights"):
        waveq.attach(mlp(), quantizer=LSQ(torch.ones(3)), bits=3)
    with pytest.raises(ValueError, match="was made with scale 'max', not 'none'"):
        waveq.attach(mlp(), quantizer=WRPN(torch.ones(1), scale="max"), scale="none", bits=3)


@pytest.mark.parametrize("wrong", [nn.Linear, nn.Linear(2, 2), 3, DoReFaActivation])
def test_what_is_no_weight_quantizer_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"a class derived from waveq\.quantizers\.WeightQuantizer"):
        waveq.attach(mlp(), quantizer=wrong, bits=3)


def test_a_class_cannot_pass_for_another_method() -> None:
    class Other(WRPN):
        method = "lsq"

    with pytest.raises(ValueError, match=r"Other calls itself 'lsq', which is waveq\.quantizers\.lsq\.LSQ"):
        waveq.attach(mlp(), quantizer=Other, bits=3)


@pytest.mark.usefixtures("as_new")
def test_register_is_a_function_and_a_decorator_for_weights_and_inputs() -> None:
    assert register("plain-wrpn", Plain) is Plain
    assert Plain.method == "plain-wrpn"

    @register("plain-wrpn")
    class Inputs(DoReFaActivation):
        """The two kinds have names of their own."""

    assert "plain-wrpn" in quantizer_names()
    assert "plain-wrpn" in activation_quantizer_names()
    model = mlp()
    waveq.attach(model, quantizer="plain-wrpn", bits=3, activation_bits=4, activation_quantizer="plain-wrpn")
    assert isinstance(parametrization_of(model.get_submodule("2")).activation, Inputs)
    assert issubclass(Inputs, ActivationQuantizer)


def test_wrong_registrations_are_refused() -> None:
    with pytest.raises(ValueError, match="quantizer 'dore-fa' is taken: 'dorefa' is"):
        register("dore-fa", Plain)
    with pytest.raises(ValueError, match=r"DoReFa is registered as 'dorefa' already; derive a class"):
        register("my-dorefa", DoReFa)
    with pytest.raises(TypeError, match="a class derived from WeightQuantizer or ActivationQuantizer"):
        register("linear", nn.Linear)  # type: ignore[type-var]
    assert Plain.method != "dore-fa"
    assert DoReFa.method == "dorefa"


def test_policies_are_evaluated_with_a_class_also_where_its_name_is_unknown(
    example: Any, as_new: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = batches(4)
    policies = [[2, 3, 4], [4, 4, 4]]
    known = PolicyEvaluator(mlp(), data, quantizer="three-sigma", scale="none")
    sent = pickle.dumps(known)
    assert known.quantizer == "three-sigma"
    expected = known.accuracy(policies)
    as_new()
    monkeypatch.syspath_prepend(str(tmp_path))  # what a process of its own would still have
    assert pickle.loads(sent).accuracy(policies).tolist() == expected.tolist()
    by_class = PolicyEvaluator(mlp(), data, quantizer=example, scale="none")
    assert by_class.accuracy(policies).tolist() == expected.tolist()


def test_names_of_classes_follow_from_the_class() -> None:
    class Mine(WeightQuantizer):
        pass

    class Yours(Mine):
        method = "yours"

    assert (Mine.method, Yours.method, type("Theirs", (Yours,), {}).method) == ("mine", "yours", "theirs")
    assert copy.deepcopy(WRPN(torch.ones(1))).method == "wrpn"

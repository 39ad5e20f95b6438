"""PolicyEvaluator against its slow twin, and what it refuses."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import waveq
from tests.reference_evaluate import predictions_of
from waveq import Policy, PolicyEvaluator
from waveq.evaluate.samples import EvaluationData
from waveq.zoo.networks.models import build


def images(count: int = 60, size: int = 16, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 1, size, size, generator=generator), torch.randint(10, (count,), generator=generator)


@pytest.fixture(scope="module")
def simplenet() -> nn.Module:
    torch.manual_seed(0)
    return build("simplenet5", in_channels=1, input_size=16)


def random_policies(count: int, layers: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 9, size=(count, layers)).astype(np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize(("quantizer", "scale"), [("dorefa", "max"), ("dorefa", "none"), ("wrpn", "max")])
def test_predictions_equal_the_slow_twin(simplenet: nn.Module, quantizer: str, scale: str) -> None:
    x, y = images()
    batches = [(x[:25], y[:25]), (x[25:], y[25:])]
    evaluator = PolicyEvaluator(simplenet, batches, quantizer=quantizer, scale=scale)
    policies = random_policies(12, 5)
    expected = predictions_of(simplenet, evaluator.names, policies, batches, quantizer=quantizer, scale=scale)
    assert np.array_equal(evaluator.predictions(policies), expected)
    assert np.array_equal(evaluator.accuracy(policies), (expected == y.numpy()).mean(axis=1))
    assert np.array_equal(evaluator.correct(policies[3]), expected[3] == y.numpy())


def test_every_form_of_a_policy_is_accepted(simplenet: nn.Module) -> None:
    evaluator = PolicyEvaluator(simplenet, images())
    bits = {"conv1": 8, "conv2": 3, "fc1": 2, "fc2": 4, "fc3": 5}
    row = np.array([[8, 3, 2, 4, 5]], dtype=np.uint8)
    for form in (bits, Policy(bits), [bits], [Policy(bits)], row, row[0], row.tolist(), torch.from_numpy(row)):
        assert evaluator.accuracy(form).tolist() == evaluator.accuracy(row).tolist()
    assert evaluator.accuracy(np.empty((0, 5), dtype=np.uint8)).shape == (0,)


def test_model_is_left_alone_and_later_training_does_not_reach_the_evaluator(simplenet: nn.Module) -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 14**2, 10)
    )
    before = copy.deepcopy(model.state_dict())
    evaluator = PolicyEvaluator(model, images())
    first = evaluator.accuracy(np.full((1, 2), 3, dtype=np.uint8))
    assert model.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    with torch.no_grad():
        model[0].weight.zero_()
    assert evaluator.accuracy(np.full((1, 2), 3, dtype=np.uint8)) == first


def test_activations_are_quantised_like_attach_does(simplenet: nn.Module) -> None:
    x, y = images()
    evaluator = PolicyEvaluator(simplenet, (x, y), quantizer="dorefa", activation_bits=3, activation_quantizer="dorefa")
    assert evaluator.activation_bits == {"conv2": 3, "fc1": 3, "fc2": 3, "fc3": 3}
    policies = random_policies(4, 5)
    settings = {"activation_bits": dict.fromkeys(["conv2", "fc1", "fc2", "fc3"], (3, False))}
    assert np.array_equal(
        evaluator.predictions(policies), predictions_of(simplenet, evaluator.names, policies, [(x, y)], **settings)
    )
    attached = copy.deepcopy(simplenet)
    row = dict(zip(evaluator.names, map(int, policies[0]), strict=True))
    waveq.attach(attached, bits=row, quantizer="dorefa", activation_bits=3, activation_quantizer="dorefa")
    with torch.no_grad():
        assert np.array_equal(evaluator.predictions(row)[0], attached.eval()(x).argmax(1).numpy())


def test_signed_inputs_keep_their_sign() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 4))
    x, y = torch.randn(40, 6), torch.randint(4, (40,))
    evaluator = PolicyEvaluator(
        model, (x, y), quantizer="dorefa", activation_bits={"2": 4}, activation_quantizer="dorefa"
    )
    policies = random_policies(3, 2)
    expected = predictions_of(model, evaluator.names, policies, [(x, y)], activation_bits={"2": (4, True)})
    assert np.array_equal(evaluator.predictions(policies), expected)


def test_data_are_read_in_one_order() -> None:
    x, y = images(20)
    loader = DataLoader(TensorDataset(x, y), batch_size=6, shuffle=True)
    held = EvaluationData(loader)
    assert [len(labels) for _, labels in held] == [6, 6, 6, 2]
    assert torch.cat([labels for _, labels in held]).equal(held.labels)
    with pytest.raises(ValueError, match="shuffle=False"):
        EvaluationData(loader, held_bytes=100)

    def once() -> Iterator[tuple[Tensor, Tensor]]:
        yield from [(x[:10], y[:10]), (x[10:], y[10:])]

    assert len(EvaluationData(once())) == 20
    with pytest.raises(ValueError, match="gives data once"):
        EvaluationData(once(), held_bytes=100)
    streamed = EvaluationData(DataLoader(TensorDataset(x, y), batch_size=6), held_bytes=100)
    assert torch.cat([part for part, _ in streamed]).equal(x)


def test_evaluator_travels_to_other_processes(simplenet: nn.Module) -> None:
    evaluator = PolicyEvaluator(simplenet, images(), quantizer="dorefa")
    policies = random_policies(3, 5)
    expected = evaluator.accuracy(policies)
    assert np.array_equal(pickle.loads(pickle.dumps(evaluator)).accuracy(policies), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quantizer": "dorafa"}, "did you mean 'dorefa'"),
        ({"scale": "maximum"}, "scale must be one of"),
        ({"skip": ("conv9",)}, "matches no layer"),
        ({"skip": ("*",)}, "nothing to quantise"),
        ({"activation_bits": {"conv": 4}}, "did you mean 'conv"),
        ({"activation_bits": 9}, "from 1 to 8"),
        ({"loader": []}, "no batch"),
        ({"loader": (torch.zeros(3, 1, 16, 16), torch.zeros(3))}, "class numbers"),
        ({"loader": (torch.zeros(3, 1, 16, 16), torch.zeros(4).long())}, "class numbers"),
    ],
)
def test_bad_arguments_are_named(simplenet: nn.Module, change: dict[str, object], message: str) -> None:
    arguments = {"loader": images(), **change}
    with pytest.raises(ValueError, match=message):
        PolicyEvaluator(simplenet, **arguments)  # type: ignore[arg-type]


def test_bad_loaders_are_named(simplenet: nn.Module) -> None:
    with pytest.raises(TypeError, match="loader must be an iterable"):
        PolicyEvaluator(simplenet, 5)
    with pytest.raises(TypeError, match="batch 0 must be a pair of tensors"):
        PolicyEvaluator(simplenet, [{"x": 1}])


@pytest.mark.parametrize(
    ("policies", "error", "message"),
    [
        ({"conv1": 8, "conv2": 3, "fc1": 2, "fc2": 4, "fc": 5}, ValueError, "names 'fc'.*did you mean"),
        ({"conv1": 8}, ValueError, "says nothing about: conv2, fc1, fc2, fc3"),
        (np.full((2, 4), 3, dtype=np.uint8), ValueError, r"shape \(N, 5\)"),
        (np.array([[3, 3, 3, 3, 3], [3, 0, 3, 3, 3]]), ValueError, "policy 1 gives layer 'conv2' 0 bits"),
        (np.full((2, 5), 3.0), TypeError, "whole numbers"),
    ],
)
def test_bad_policies_are_named(simplenet: nn.Module, policies: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        PolicyEvaluator(simplenet, images()).accuracy(policies)


def test_models_that_cannot_be_evaluated_are_refused(simplenet: nn.Module) -> None:
    attached = copy.deepcopy(simplenet)
    waveq.attach(attached, bits=4)
    with pytest.raises(ValueError, match="parametrised weight"):
        PolicyEvaluator(attached, images())
    broken = copy.deepcopy(simplenet)
    broken.fc1.weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="'fc1' hold NaN"):
        PolicyEvaluator(broken, images())
    with pytest.raises(TypeError, match=r"class scores of shape \(n, classes\)"):
        PolicyEvaluator(nn.Sequential(nn.Conv2d(1, 1, 1)), images()).accuracy([{"0": 3}])
    with pytest.raises(ValueError, match="takes one policy, not 2"):
        PolicyEvaluator(simplenet, images(), quantizer="dorefa").correct(random_policies(2, 5))

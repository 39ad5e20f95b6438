"""Shared prefixes give the plain loop's predictions, run each prefix once, and step aside where they cannot."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.reference_evaluate import predictions_of
from waveq import PolicyEvaluator
from waveq.evaluate.prefix import walk as _prefix_walk
from waveq.evaluate.prefix.ending import Ending
from waveq.evaluate.prefix.tape import Tape, record_tape
from waveq.evaluate.prefix.walk import PreparedWeights, grow_tree, walk
from waveq.evaluate.scores import count_hits, predicted_classes
from waveq.zoo.networks.models import build


class Branches(nn.Module):
    """Residual, in-place, functional and shared operations; a layer used twice, one never used."""

    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(3, 3)
        self.out = nn.Linear(12, 5)  # first in named_modules(), last in the network
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.left = nn.Conv2d(6, 6, 3, padding=1)
        self.right = nn.Conv2d(6, 6, 1)
        self.twice = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        y = self.left(x)
        y += self.right(x)
        y.relu_()
        z = (x + y).mean(dim=(2, 3))
        z = z + torch.tanh(self.twice(z))
        z = self.twice(z)
        return self.out(torch.cat([z, x.amax(dim=(2, 3))], dim=1))


def data(count: int = 50, size: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 1, size, size, generator=generator), torch.randint(5, (count,), generator=generator)


def batches(lengths: tuple[int, ...], size: int = 8) -> list[tuple[Tensor, Tensor]]:
    x, y = data(sum(lengths), size)
    return list(zip(x.split(lengths), y.split(lengths), strict=True))


def settled(model: nn.Module, size: int = 8) -> nn.Module:
    """Give batch norm statistics of its own."""
    with torch.no_grad():
        model.train()(data(64, size)[0])
    return model


def tape_of(evaluator: PolicyEvaluator, x: Tensor) -> Tape:
    weights = {name: evaluator._bank.float_weight(name) for name in evaluator.names}
    return record_tape(evaluator._model, weights, evaluator._bank.in_place, x)


def policies_for(layers: int, count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 5, size=(count, layers)).astype(np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("lengths", [(50,), (20, 20, 10), (7, 30, 13)])
def test_branches_equal_the_slow_twin(lengths: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model, loader = settled(Branches()), batches(lengths)
    evaluator = PolicyEvaluator(model, loader, quantizer="dorefa")
    policies = policies_for(6, 30)
    assert np.array_equal(evaluator.predictions(policies), predictions_of(model, evaluator.names, policies, loader))
    assert evaluator.plain_reason is None
    assert set(np.unique(evaluator.predictions(policies))) != {0}


@pytest.mark.slow
@pytest.mark.parametrize(("network", "size"), [("simplenet5", 16), ("resnet20", 16)])
def test_zoo_networks_equal_the_slow_twin(network: str, size: int) -> None:
    torch.manual_seed(0)
    model = settled(build(network, in_channels=1, input_size=size, width=0.5), size)
    loader = batches((24, 24), size)
    evaluator = PolicyEvaluator(model, loader, quantizer="dorefa", activation_bits=4, activation_quantizer="dorefa")
    signed = dict.fromkeys(evaluator.activation_bits, (4, False))
    policies = policies_for(len(evaluator.names), 12)
    expected = predictions_of(model, evaluator.names, policies, loader, activation_bits=signed)
    assert np.array_equal(evaluator.predictions(policies), expected)
    assert evaluator.plain_reason is None


def test_scores_are_equal_to_the_last_bit() -> None:
    torch.manual_seed(0)
    model = settled(Branches()).eval()
    x = data()[0]
    plain = PolicyEvaluator(model, data(), quantizer="dorefa", share_prefixes=False)
    policies = policies_for(6, 20)
    tape = tape_of(plain, x)
    tree = grow_tree(policies, tape.order)
    prepared = PreparedWeights(tape, lambda layer, bits: plain._bank.weight(plain.names[layer], bits), tree.rows)
    with torch.no_grad():
        shared = {index: scores.clone() for index, scores in walk(tape, tree, prepared, x)}
        alone = dict(plain._plain_scores(policies, x))
    assert shared.keys() == alone.keys()
    assert all(torch.equal(shared[index], alone[index]) for index in alone)


def test_layers_are_met_in_the_order_of_the_network() -> None:
    model = Branches().eval()
    evaluator = PolicyEvaluator(model, data(), quantizer="dorefa")
    tape = tape_of(evaluator, data(4)[0])
    assert [evaluator.names[layer] for layer in tape.order] == ["stem", "left", "right", "twice", "out"]


@pytest.mark.slow
@pytest.mark.parametrize("joined", [True, False])
def test_every_prefix_is_run_once(monkeypatch: pytest.MonkeyPatch, joined: bool) -> None:
    runs: list[str] = []
    run, scores = _prefix_walk._run, Ending.scores
    monkeypatch.setattr(_prefix_walk, "_run", lambda segment, values: (runs.append("segment"), run(segment, values)))
    monkeypatch.setattr(Ending, "scores", lambda *args: (runs.append("ending"), scores(*args))[1] if joined else None)
    evaluator = PolicyEvaluator(
        build("simplenet5", in_channels=1, input_size=16), batches((10,), 16), quantizer="dorefa"
    )
    space = np.array(list(itertools.product((2, 3, 8), repeat=5)), dtype=np.uint8)
    np.random.default_rng(0).shuffle(space)
    evaluator.accuracy(space[:8])  # records the tape
    runs.clear()
    evaluator.accuracy(space)
    (plan,) = evaluator._replay._plans.values()
    prefixes = 1 + 3 + 9 + 27 + 81  # the data, and what one to four layers have seen
    alone = 0 if joined and all(tape.ending._verdicts[len_, 3] for len_, tape in plan.tapes.items()) else 243
    assert runs.count("segment") == len(plan.parts) * (prefixes + alone)
    assert runs.count("ending") == (len(plan.parts) * 81 if joined else 0)


def test_last_layer_at_once_is_used_only_where_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    hidden, bias = torch.randn(64, 20), torch.randn(10)
    weights = {bits: torch.randn(10, 20).t() for bits in (2, 3, 5, 8)}
    for offset in (bias, None):
        ending = Ending("hidden", "weight", offset)
        parts = ending.scores(hidden, weights)
        alone = {bits: hidden @ w if offset is None else torch.addmm(offset, hidden, w) for bits, w in weights.items()}
        if parts is not None:
            assert all(torch.equal(parts[bits], alone[bits]) for bits in weights)
        assert ending._verdicts == {(64, 4): parts is not None}
    ending = Ending("hidden", "weight", bias)
    monkeypatch.setattr(Ending, "_alone", lambda *args: torch.zeros(64, 10))
    assert ending.scores(hidden, weights) is None
    assert ending.scores(hidden, weights) is None


@pytest.mark.slow
def test_a_policy_scores_the_same_in_any_company() -> None:
    torch.manual_seed(0)
    model = settled(Branches())
    policies = policies_for(6, 40)
    loader = batches((20, 20, 10))
    together = PolicyEvaluator(model, loader, quantizer="dorefa").predictions(policies)
    evaluator = PolicyEvaluator(model, loader, quantizer="dorefa")
    assert np.array_equal(evaluator.predictions(policies[:10]), together[:10])
    assert np.array_equal(evaluator.predictions(policies[3]), together[[3]])
    assert np.array_equal(evaluator.predictions(policies[::-1]), together[::-1])
    repeated = np.concatenate([policies[:5], policies[:5]])
    assert np.array_equal(evaluator.predictions(repeated), together[[0, 1, 2, 3, 4] * 2])


@pytest.mark.slow
def test_memory_bounds_the_samples_taken_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, policies, loader = settled(Branches()), policies_for(6, 10), batches((10,) * 5)
    roomy = PolicyEvaluator(model, loader, quantizer="dorefa")
    expected = roomy.predictions(policies)
    (plan,) = roomy._replay._plans.values()
    sample_bytes = next(iter(plan.tapes.values())).sample_bytes
    tight = PolicyEvaluator(model, loader, quantizer="dorefa", memory_bytes=11 * sample_bytes)
    with warnings.catch_warnings():
        # Where sums depend on where data lie in memory, no chunk that fits may agree: one by one, with the same answer.
        warnings.filterwarnings("ignore", message="policies are evaluated one by one")
        assert np.array_equal(tight.predictions(policies), expected)
    with monkeypatch.context() as patch:
        patch.setattr(type(tight._replay), "_agrees", lambda *_args: True)
        bounded = PolicyEvaluator(model, loader, quantizer="dorefa", memory_bytes=11 * sample_bytes)
        bounded.predictions(policies)
    (plan,) = bounded._replay._plans.values()
    assert max(plan.tapes) * plan.at_once <= 11
    with pytest.warns(UserWarning, match="memory_bytes=10 is less than one sample needs"):
        assert np.array_equal(
            PolicyEvaluator(model, loader, quantizer="dorefa", memory_bytes=10).predictions(policies), expected
        )


@pytest.mark.slow
def test_threads_do_not_change_the_answer_and_are_given_back() -> None:
    torch.manual_seed(0)
    model, policies = settled(Branches()), policies_for(6, 20)
    before = torch.get_num_threads()
    try:
        answers = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            answers.append(PolicyEvaluator(model, batches((30, 20)), quantizer="dorefa").accuracy(policies))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert all(np.array_equal(answer, answers[0]) for answer in answers)


class Moody(nn.Module):
    """Takes another way for other data."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return -y if float(y.sum()) > 0 else y


class Random(Moody):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(F.dropout(x, 0.5, training=True))


class Batchwise(Moody):
    """Not sample by sample: chunks would give other scores."""

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x - x.mean(dim=0))


@pytest.mark.parametrize("kind", [Moody, Random])
def test_models_without_a_tape_are_evaluated_plainly_with_a_warning(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model, x, y = kind(), torch.randn(30, 4), torch.randint(3, (30,))
    evaluator = PolicyEvaluator(model, (x, y), quantizer="dorefa")
    policies = policies_for(1, 10)
    with pytest.warns(UserWarning, match="prefixes cannot be shared"):
        found = evaluator.predictions(policies)
    assert evaluator.plain_reason
    if kind is Moody:
        assert np.array_equal(found, predictions_of(model, evaluator.names, policies, [(x, y)]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluator.accuracy(policies)  # said once


@pytest.mark.slow
def test_chunks_grow_until_scores_agree() -> None:
    torch.manual_seed(0)
    model, x, y = Batchwise(), torch.randn(3000, 4), torch.randint(3, (3000,))
    policies = policies_for(1, 10)
    evaluator = PolicyEvaluator(model, (x, y), quantizer="dorefa")
    assert np.array_equal(evaluator.predictions(policies), predictions_of(model, evaluator.names, policies, [(x, y)]))
    assert evaluator.plain_reason is None
    (plan,) = evaluator._replay._plans.values()
    assert list(plan.tapes) == [3000]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_compiled_argmax_equals_torch(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(-3, 4, (500, 7), generator=generator).to(dtype)
    scores[torch.rand(500, 7, generator=generator) < 0.1] = float("nan")
    scores[::9] = -float("inf")
    assert np.array_equal(predicted_classes(scores), scores.argmax(dim=1).numpy())
    assert np.array_equal(predicted_classes(scores[:, 2:]), scores[:, 2:].argmax(dim=1).numpy())
    labels = torch.randint(7, (500,), generator=generator)
    assert count_hits(scores, labels.numpy()) == int((scores.argmax(dim=1) == labels).sum())

"""Whatever attach quantises, policies can be evaluated, fine-tuned and allocated for: the same weights and inputs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import waveq
from waveq import Policy, PolicyEvaluator
from waveq.allocate import learned_step_bits, squared_errors
from waveq.allocate.losstables import curvature_table, hessian_traces, weight_error_table
from waveq.evaluate import PolicyFinetuner

GENERATOR = torch.Generator().manual_seed(0)
VECTORS, TOKENS = torch.randn(40, 6, 8, generator=GENERATOR), torch.randint(12, (40, 6), generator=GENERATOR)
LABELS = torch.randint(3, (40,), generator=GENERATOR)


class Classifier(nn.Module):
    """A body, the mean over its steps, a tanh (signed inputs) and a head."""

    def __init__(self, body: nn.Module, width: int) -> None:
        super().__init__()
        self.body, self.hidden, self.head = body, nn.Linear(width, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x, x, x) if isinstance(self.body, nn.MultiheadAttention) else self.body(x)
        y = y[0] if isinstance(y, tuple) else y
        return self.head(torch.tanh(self.hidden(y.mean(dim=1) if y.ndim > 2 else y)))  # type: ignore[no-any-return]


class LastStep(nn.Module):
    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        state = self.cell(x[:, -1])
        return state[0] if isinstance(state, tuple) else state  # type: ignore[no-any-return]


class Tied(nn.Module):
    """Two layers and, beside them, an embedding that share one weight."""

    def __init__(self, *, embedding: bool) -> None:
        super().__init__()
        self.table = nn.Embedding(12, 8)
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.head = nn.Linear(8, 12, bias=False)
        if embedding:
            self.head.weight = self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.second(torch.relu(self.first(self.table(x).mean(dim=1))))))  # type: ignore[no-any-return]


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.stack([torch.randn(8, 4), 100 * torch.randn(8, 4)]))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bti,eio->bto", x, self.up) / 100


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "linear": (lambda: Classifier(nn.Linear(8, 5), 5), ()),
    "attention": (lambda: Classifier(nn.MultiheadAttention(8, 2, batch_first=True), 8), ()),
    "encoder": (lambda: Classifier(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), 8), ()),
    "lstm": (lambda: Classifier(nn.LSTM(8, 5, batch_first=True), 5), ()),
    "gru": (lambda: Classifier(nn.GRU(8, 5, bidirectional=True, batch_first=True), 10), ()),
    "rnn": (lambda: Classifier(nn.RNN(8, 5, num_layers=2, batch_first=True), 5), ()),
    "lstm cell": (lambda: Classifier(LastStep(nn.LSTMCell(8, 5)), 5), ()),
    "gru cell": (lambda: Classifier(LastStep(nn.GRUCell(8, 5)), 5), ()),
    "tied layers": (lambda: Tied(embedding=False), ()),
    "tied embedding": (lambda: Tied(embedding=True), ()),
    "embedding": (lambda: Tied(embedding=False), ("table",)),
    "experts": (lambda: Classifier(Experts(), 4), ("body.up",)),
}


def case(name: str) -> tuple[nn.Module, tuple[Tensor, Tensor], dict[str, Any]]:
    torch.manual_seed(0)
    make, also = MODELS[name]
    model = make()
    return model, (TOKENS if isinstance(model, Tied) else VECTORS, LABELS), {"also": also}


def finalised(model: nn.Module, x: Tensor, **options: Any) -> tuple[nn.Module, Policy]:
    twin = copy.deepcopy(model)
    wq = waveq.attach(twin, **options)
    waveq.calibrate(twin, [x])
    wq.finalize()
    return twin.eval(), wq.policy()


@pytest.mark.slow
@pytest.mark.parametrize("quantizer", ["dorefa", "wrpn", "pact", "lsq", "lqnets", "dsq"])
@pytest.mark.parametrize("name", MODELS)
def test_a_policy_is_worth_what_its_finalised_network_is(name: str, quantizer: str) -> None:
    model, (x, y), options = case(name)
    options["quantizer"] = quantizer
    network, policy = finalised(model, x, bits=3, activation_bits=4, **options)
    with torch.no_grad():
        expected = network(x).argmax(dim=1).numpy()
    evaluator = PolicyEvaluator(model, (x, y), activation_bits=policy, **options)
    assert evaluator.names == tuple(policy)
    assert evaluator.activation_bits == dict(policy.activation_bits)
    assert np.array_equal(evaluator.predictions(policy)[0], expected)
    plain = dict(network.named_parameters(remove_duplicate=False))
    for layer, weight in evaluator._columns.weights.items():
        assert all(torch.equal(evaluator._bank.weight(layer, 3), plain[key]) for key in weight.keys)
    tuner = PolicyFinetuner(model, (x, y), (x, y), activation_bits=policy, lr=0.0, together=1, **options)
    assert np.array_equal(tuner.correct(policy)[0], expected == y.numpy())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:policies are evaluated one by one")  # fused kernels that sum by shape
@pytest.mark.parametrize("activation_bits", [None, 4])
@pytest.mark.parametrize("name", MODELS)
def test_shared_prefixes_change_nothing(name: str, activation_bits: int | None) -> None:
    model, data, options = case(name)
    options["quantizer"] = "dorefa"  # it has one bit, and policies below take it
    shared = PolicyEvaluator(model, data, activation_bits=activation_bits, **options)
    alone = PolicyEvaluator(model, data, activation_bits=activation_bits, share_prefixes=False, **options)
    rows = np.random.default_rng(0).integers(1, 9, size=(20, len(shared.names))).astype(np.uint8)
    assert np.array_equal(shared.predictions(rows), alone.predictions(rows))


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_bits_are_allocated_for_the_same_weights(name: str) -> None:
    model, (x, y), options = case(name)
    names = list(PolicyEvaluator(model, (x, y), **options).names)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    traces = hessian_traces(model, (x, y), probes=2, **options)
    assert list(traces) == names
    table = curvature_table(model, dict.fromkeys(traces, 1.0), (2, 8))
    assert list(table.index) == names
    assert (table[2] > table[8]).all()
    assert list(weight_error_table(model, (2, 8), **options).index) == names
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    costs = {key: {2: 2.0, 4: 4.0} for key in names}
    policy = learned_step_bits(model, costs, 3.0 * len(names), batches=[(x, y)] * 2)
    assert list(policy) == names
    assert [key for key, _ in model.named_parameters()] == [
        key for key in before if key in dict(model.named_parameters())
    ]
    copy.deepcopy(model)(x)


def test_inputs_get_the_ranges_that_calibration_finds_in_the_float_network() -> None:
    model, (x, y), _ = case("linear")
    evaluator = PolicyEvaluator(model, (x, y), quantizer="dorefa", activation_bits=4)
    seen: list[Tensor] = []
    model.head.register_forward_pre_hook(lambda _module, args: seen.append(args[0].detach()))
    model(x)
    quantizer = evaluator._model.head.waveq_restore_inputs
    assert quantizer.signed
    assert quantizer.quantizer.method == "range"
    assert float(quantizer.quantizer.range) == pytest.approx(float(seen[0].abs().max()), rel=0.2)
    assert not hasattr(model.head, "waveq_restore_inputs")


def test_each_method_brings_its_input_quantiser_and_its_scale() -> None:
    model, data, _ = case("linear")
    expected = {
        None: ("lsq", "learned"),
        "dorefa": ("range", "max"),
        "lsq": ("lsq", "learned"),
        "pact": ("pact", "max"),
    }
    for quantizer, (inputs, scale) in expected.items():
        evaluator = PolicyEvaluator(model, data, quantizer=quantizer, activation_bits=4)
        assert evaluator._model.head.waveq_restore_inputs.quantizer.method == inputs
        assert evaluator.scale == scale


def test_names_of_a_wrapped_model_are_understood() -> None:
    model, data, _ = case("tied layers")
    with pytest.warns(UserWarning, match="'module.head' is taken as 'head'"):
        evaluator = PolicyEvaluator(nn.DataParallel(model), data, skip=("module.head",))
    assert evaluator.names == ("first",)
    for name in ("first", "second", "module.first", "_orig_mod.second"):
        assert evaluator.accuracy({name: 3}) == evaluator.accuracy(np.array([[3]], dtype=np.uint8))


@pytest.mark.parametrize(
    ("options", "policy", "message"),
    [
        ({}, {"first": 3, "second": 4, "head": 2}, "layers that share the weight of 'first'"),
        ({}, {"first": 3, "head": 2, "table": 4}, "policy names 'table'.*also="),
        (
            {"quantizer": "lsq"},
            {"first": 1, "head": 2},
            "policy 0 gives layer 'first' 1 bits; quantizer 'lsq' has 2 to 9",
        ),
        ({}, Policy({"first": 3, "head": 2}, quantizer="wrpn"), "made for quantizer 'wrpn'.*quantizer='wrpn'"),
        ({}, Policy({"first": 3, "head": 2}, activation_bits={"head": 4}), "quantises inputs.*activation_bits=policy"),
    ],
)
def test_policies_that_do_not_fit_are_refused(options: dict[str, Any], policy: Any, message: str) -> None:
    model, data, _ = case("tied layers")
    for evaluator in (PolicyEvaluator(model, data, **options), PolicyFinetuner(model, data, data, **options)):
        with pytest.raises(ValueError, match=message):
            evaluator.accuracy(policy)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tied embedding", {"skip": ("first",)}, "nothing"),
        ("lstm", {"activation_bits": {"body.weight_ih_l0": 4}}, "whose inputs cannot be quantised"),
        ("attention", {"activation_bits": {"body.out_proj": 4}}, "whose inputs cannot be quantised"),
        (
            "linear",
            {"activation_bits": Policy({"head": 3}, activation_bits={"head": 4})},
            "does not say how the inputs",
        ),
        ("linear", {"quantizer": "lsq", "scale": "max"}, "scale must be one of 'learned' for quantizer 'lsq'"),
        ("linear", {"also": ("body.bias",)}, "also names 'body.bias', which is no embedding"),
        ("linear", {"activation_quantizer": "rnage", "activation_bits": 4}, "did you mean 'range'"),
    ],
)
def test_what_cannot_be_had_is_refused_before_any_work(name: str, options: dict[str, Any], message: str) -> None:
    model, data, _ = case(name)
    if message == "nothing":
        model.first.weight = nn.Parameter(model.first.weight.detach().clone())
        options, message = {"skip": ("first",)}, "hold"
        model.first.weight = model.second.weight
    for make in (
        lambda: PolicyEvaluator(model, data, **options),
        lambda: PolicyFinetuner(model, data, data, **options),
    ):
        with pytest.raises(ValueError, match=message):
            make()


def test_an_attached_model_is_no_float_model() -> None:
    model, data, _ = case("linear")
    waveq.attach(model, bits=3)
    with pytest.raises(ValueError, match="already has a parametrised weight"):
        PolicyEvaluator(model, data)


def test_names_of_tables_are_those_of_attach() -> None:
    model, _, _ = case("tied layers")
    assert squared_errors(model, {"second": [3]})["second"] == squared_errors(model, {"first": [3]})["first"]
    with pytest.raises(ValueError, match="one entry together, not 2: first, second"):
        squared_errors(model, {"first": [3], "second": [3]})
    with pytest.raises(ValueError, match=r"the model has no layer 'secund' to quantise.*did you mean 'second'"):
        squared_errors(model, {"secund": [3]})


def test_a_method_without_levels_for_all_bits_is_tuned_one_policy_at_a_time() -> None:
    model, data, _ = case("linear")
    tuner = PolicyFinetuner(model, data, data, quantizer="lqnets", together=4)
    with pytest.warns(UserWarning, match="one at a time: quantizer 'lqnets' has no levels for any number of bits"):
        tuner.accuracy(np.full((2, 3), 2, dtype=np.uint8))

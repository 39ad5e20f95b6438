"""A finalised layer's input quantiser goes wherever its network goes."""

from __future__ import annotations

import copy
import functools
import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import waveq
from waveq.method.fixed_input import FixedInput, drop_input, keep_input
from waveq.quantizers import ActivationQuantizer, activation_quantizer_names, make_activation_quantizer

METHODS = activation_quantizer_names()
own_warnings = pytest.mark.filterwarnings("ignore")  # of torch's compilers, on their own code


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.Tanh(), nn.ConvTranspose2d(6, 4, 2), nn.Flatten(),
        nn.Linear(100, 3),
    )  # fmt: skip


def images(count: int = 5) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(count))


def train(model: nn.Module, wq: waveq.WaveQ, steps: int = 3) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(steps):
        loss = model(images()).square().mean() + wq.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        wq.step()


@functools.cache
def finalised(method: str, bits: int = 3) -> nn.Sequential:
    """Do not change it."""
    model = network()
    wq = waveq.attach(model, quantizer="dorefa", bits=3, activation_bits=bits, activation_quantizer=method)
    train(model, wq)
    expected = model.eval()(images())
    wq.finalize()
    assert torch.equal(model(images()), expected)
    return model


@pytest.mark.slow
@own_warnings
@pytest.mark.parametrize("method", METHODS)
def test_a_model_that_was_compiled_before_keeps_its_input_quantisers(method: str) -> None:
    model = network()
    compiled = torch.compile(model, backend="eager")
    compiled(images())
    wq = waveq.attach(model, bits=3, activation_bits=2, activation_quantizer=method)
    train(model, wq)
    model.eval()
    wq.finalize()
    assert torch.equal(compiled(images()), model(images()))
    plain = network().eval()
    compiled = torch.compile(plain, backend="eager")
    compiled(images())
    waveq.restore_inputs(plain, model.state_dict())
    plain.load_state_dict(model.state_dict())
    assert torch.equal(compiled(images()), model(images()))


@pytest.mark.slow
@own_warnings
@pytest.mark.parametrize("bits", [3, 8])
@pytest.mark.parametrize("method", METHODS)
def test_scripts_and_traces_compute_the_same(method: str, bits: int) -> None:
    model = finalised(method, bits)
    for made in (torch.jit.trace(copy.deepcopy(model), images(2)), torch.jit.script(copy.deepcopy(model))):
        assert torch.equal(made(images()), model(images()))
        file = io.BytesIO()
        torch.jit.save(made, file)
        file.seek(0)
        assert torch.equal(torch.jit.load(file)(images()), model(images()))


@pytest.mark.slow
@own_warnings
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_exports_compute_the_same_for_any_batch(method: str, strict: bool) -> None:
    model = finalised(method)
    sizes = ({0: torch.export.Dim("batch", min=1, max=64)},)
    program = torch.export.export(model, (images(2),), dynamic_shapes=sizes, strict=strict)
    for count in (1, 5, 7):
        assert torch.equal(program.module()(images(count)), model(images(count)))


@pytest.mark.slow
@own_warnings
@pytest.mark.parametrize("method", METHODS)
def test_a_network_under_training_is_traced_as_it_is(method: str) -> None:
    model = network()
    train(model, waveq.attach(model, bits=3, activation_bits=3, activation_quantizer=method))
    model.eval()
    with torch.no_grad():
        traced = torch.jit.trace(model, images(2))
        torch.testing.assert_close(traced(images()), model(images()))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("signed", [False, True])
def test_the_stairs_of_a_script_are_the_formula_to_the_last_bit(method: str, signed: bool) -> None:
    for bits in (2, 3, 8):
        quantizer = make_activation_quantizer(method, bits)
        quantizer(torch.randn(200) + 0.3, signed=signed)
        fixed = FixedInput(bits, signed=signed, quantizer=quantizer)
        fixed.__prepare_scriptable__()
        near = torch.cat([fixed.thresholds.nextafter(torch.tensor(end)) for end in (-1e9, 1e9)])
        x = torch.cat([torch.linspace(-9, 9, 997), near, fixed.thresholds, torch.tensor([0.0, -0.0, 1e30, -1e30])])
        steps = fixed.levels[torch.bucketize(x, fixed.thresholds, right=True)]
        assert torch.equal(steps, fixed(x))
        assert len(fixed.levels) <= 2**bits


def test_what_is_no_staircase_cannot_be_scripted() -> None:
    class Mean(ActivationQuantizer):
        method = "mean"

        def quantize(self, x: Tensor, signed: bool) -> Tensor:
            return torch.round(x - x.mean())

    fixed = FixedInput(3, signed=True, quantizer=Mean(3))
    with pytest.raises(RuntimeError, match=r"'mean' is no staircase .*trace and torch\.export"):
        fixed.__prepare_scriptable__()


@pytest.mark.parametrize("method", METHODS)
def test_it_learns_no_more_and_adds_no_parameters(method: str) -> None:
    model = copy.deepcopy(finalised(method))
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in network().named_parameters()]
    before = copy.deepcopy(model.state_dict())
    model.train()(images(9)).sum().backward()
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())
    model.eval().requires_grad_(requires_grad=True)
    assert torch.equal(model(images()), finalised(method)(images()))


@pytest.mark.parametrize("method", METHODS)
def test_copies_and_pickles(method: str) -> None:
    model = finalised(method)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(images()), model(images()))
        assert isinstance(twin[2], nn.Conv2d)
        assert repr(twin) == repr(model)


def test_half_precision_leaves_the_range_alone() -> None:
    model = copy.deepcopy(finalised("lsq")).bfloat16()
    assert model[2].weight.dtype is torch.bfloat16
    assert model[2].waveq_restore_inputs.quantizer.step.dtype is torch.float32  # type: ignore[union-attr]
    assert model(images().bfloat16()).dtype is torch.bfloat16


def test_a_checkpoint_of_other_inputs_is_refused() -> None:
    model = copy.deepcopy(finalised("dorefa"))
    with pytest.raises(RuntimeError, match=r"by 'dorefa' to 8 bits, the model's by 'dorefa' to 3.*restore_inputs"):
        model.load_state_dict(finalised("dorefa", 8).state_dict())
    with pytest.raises(ValueError, match="holds no input quantisers"):
        waveq.restore_inputs(network(), network().state_dict())


def test_a_forward_that_somebody_has_taken_is_quantised_all_the_same() -> None:
    layer: Any = nn.Linear(4, 2)
    plain = copy.deepcopy(layer)
    own = layer.forward
    layer.forward = lambda *args, **kwargs: own(*args, **kwargs)
    fixed = FixedInput(2, signed=True)
    keep_input(layer, fixed)
    x = torch.randn(3, 4)
    assert torch.equal(layer(x), plain(fixed(x)))
    assert torch.equal(layer(input=x), plain(fixed(x)))
    drop_input(layer)
    assert torch.equal(layer(x), plain(x))


def test_layers_with_a_forward_of_their_own() -> None:
    class Mine(nn.Linear):
        def forward(self, input: Tensor, factor: float = 1.0) -> Tensor:  # noqa: A002
            return super().forward(input) * factor

    layer: Any = Mine(4, 2)
    plain = copy.deepcopy(layer)
    fixed = FixedInput(2, signed=True)
    keep_input(layer, fixed)
    x = torch.randn(3, 4)
    assert isinstance(layer, Mine)
    assert torch.equal(layer(input=x, factor=2.0), plain(fixed(x), 2.0))
    assert torch.equal(nn.Sequential(layer)(x), plain(fixed(x)))
    drop_input(layer)
    assert type(layer) is Mine
    assert torch.equal(layer(x), plain(x))


def test_attaching_again_replaces_it() -> None:
    model = copy.deepcopy(finalised("lsq"))
    wq = waveq.attach(model, bits=3, activation_bits=4)
    assert not any("waveq_restore_inputs" in name for name, _ in model.named_modules())
    wq.remove()
    assert [type(module) for module in model.modules()] == [type(module) for module in network().modules()]
    model = copy.deepcopy(finalised("lsq"))
    wq = waveq.attach(model, quantizer="dorefa", bits=3)  # says nothing of inputs: they stay as they are
    wq.finalize()
    assert torch.equal(model(images()), finalised("lsq")(images()))


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
def test_torchs_quick_encoder_does_not_pass_by_the_quantiser(padded: bool) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=12, batch_first=True)
    model, x = nn.TransformerEncoder(layer, 1), torch.randn(2, 5, 8)
    mask = torch.tensor([[False] * 5, [False] * 3 + [True] * 2]) if padded else None
    wq = waveq.attach(model, bits=8, activation_bits=2)
    model(x)
    with torch.no_grad():
        before = model.eval()(x, src_key_padding_mask=mask)
    wq.finalize()
    with torch.no_grad():
        torch.testing.assert_close(model(x, src_key_padding_mask=mask), before)
        torch.testing.assert_close(copy.deepcopy(model)(x, src_key_padding_mask=mask), before)


def test_torchs_quick_path_of_encoder_layers_is_left_to_plain_ones() -> None:
    """In evaluation without gradients it takes the weights and calls no layer, past every input quantiser."""
    torch.manual_seed(0)
    model, x = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), torch.randn(5, 6, 8)
    wq = waveq.attach(model, bits=3, activation_bits=2)
    waveq.calibrate(model, [x])
    wq.finalize()
    expected = model.eval()(x).detach()
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected)

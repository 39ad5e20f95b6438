"""ONNX files, run by ONNX Runtime."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import waveq
import waveq.zoo
from waveq.exporting.carriers import Carrier, carrier_for, raw_bytes
from waveq.exporting.input_grids import input_grid
from waveq.exporting.onnx_file import TRANSPOSED
from waveq.method.fixed_input import FixedInput
from waveq.quantizers import make_activation_quantizer

pytestmark = pytest.mark.slow


@pytest.fixture
def onnx() -> Any:
    pytest.importorskip("onnxscript", reason="needs waveq[export]")
    pytest.importorskip("onnxruntime", reason="needs waveq[export]")
    return pytest.importorskip("onnx", reason="needs waveq[export]")


def finalised(model: nn.Module, x: Tensor, bits: Any, **options: Any) -> waveq.Policy:
    wq = waveq.attach(model, bits=bits, total_steps=2, **options)
    model.train()(x)
    wq.finalize()
    model.eval()
    return wq.policy()


def run(path: Path, x: Tensor) -> Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])


def weights_in(onnx: Any, path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """What DequantizeLinear makes of the codes."""
    graph = onnx.load(path).graph
    tensors = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    found = {}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in tensors:
            codes, scale = tensors[node.input[0]].astype(np.float32), tensors[node.input[1]]
            axis = next((each.i for each in node.attribute if each.name == "axis"), 0)
            shape = [1] * codes.ndim
            if scale.ndim:
                shape[axis] = -1
            name, weight = node.output[0], codes * scale.reshape(shape)
            found[name.removesuffix(TRANSPOSED)] = weight.T if name.endswith(TRANSPOSED) else weight
    return found


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("simplenet5", {"quantizer": "lsq", "activation_bits": 4}),
        ("simplenet5", {"quantizer": "dorefa", "scale": "max"}),
        ("resnet20", {"quantizer": "wrpn", "scale": "max", "granularity": "channel", "activation_bits": 8}),
        ("mobilenet-v2", {"quantizer": "midrise", "scale": "max"}),
    ],
)
def test_networks_run_and_their_weights_are_equal(onnx: Any, name: str, options: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = waveq.zoo.build(name), torch.randn(4, 3, 32, 32)
    layers = list(waveq.layers.quantizable(model))
    bits = {layer: 2 + i % 4 for i, layer in enumerate(layers)}
    policy = finalised(model, x, bits, **options)
    made = waveq.export(model, policy, tmp_path / "net.onnx", to="onnx", sample=x)
    found = weights_in(onnx, tmp_path / "net.onnx")
    for layer in layers:
        assert np.array_equal(found[f"{layer}.weight"], model.get_submodule(layer).weight.detach().numpy())  # type: ignore[operator]
    # inputs on a rounding boundary may come out one level away, in float64 as well: deep networks have many
    assert made.difference <= (1e-5 if name == "simplenet5" or "activation_bits" not in options else 0.1) * made.largest
    more = torch.randn(7, 3, 32, 32)  # another length of the batch
    with torch.no_grad():
        assert float((run(tmp_path / "net.onnx", more) - model(more)).abs().max()) <= 0.1 * made.largest
    assert made.file_bytes < 0.3 * made.float_bytes + 200_000


@pytest.mark.parametrize(
    "options", [{"quantizer": "lsq", "activation_bits": 3}, {"quantizer": "dorefa", "scale": "max"}]
)
def test_qonnx_says_every_bit_and_its_executor_agrees(onnx: Any, options: Any, tmp_path: Path) -> None:
    pytest.importorskip("qonnx.core.onnx_exec", reason="needs qonnx")
    torch.manual_seed(0)
    model, x = waveq.zoo.build("simplenet5"), torch.randn(4, 3, 32, 32)
    bits = {layer: 2 + i for i, layer in enumerate(waveq.layers.quantizable(model))}
    made = waveq.export(model, finalised(model, x, bits, **options), tmp_path / "net.onnx", to="qonnx", sample=x)
    extra = options["quantizer"] == "dorefa"  # no zero: one more bit
    assert made.carriers == {layer: f"{count + extra} bits" for layer, count in bits.items()}
    assert made.difference <= 1e-5 * made.largest
    graph = onnx.load(tmp_path / "net.onnx").graph
    assert sum(node.op_type == "Quant" for node in graph.node) == len(bits) + 4 * ("activation_bits" in options)


class Attentive(nn.Module):
    """Tokens to classes: an embedding, attention, linear layers on three axes."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(50, 32)
        self.encoder = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.encoder(self.tokens(x)).mean(dim=1))
        return found


@pytest.mark.parametrize("options", [{"quantizer": "lsq", "also": ("tokens",)}, {"quantizer": "wrpn", "scale": "max"}])
@pytest.mark.parametrize("bits", [2, 4])
def test_attention_and_embeddings(onnx: Any, options: Any, bits: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Attentive(), torch.randint(0, 50, (4, 7))
    policy = finalised(model, x, bits, granularity="channel" if "scale" in options else None, **options)
    made = waveq.export(model, policy, tmp_path / "net.onnx", to="onnx", sample=x)
    assert made.difference <= 1e-5 * made.largest
    assert "encoder.self_attn.in_proj_weight" in made.carriers
    found = weights_in(onnx, tmp_path / "net.onnx")
    for name, weight in found.items():
        assert np.array_equal(weight, model.get_parameter(name).detach().numpy())
    assert set(found) == {name if name.endswith("weight") else f"{name}.weight" for name in policy}
    assert str(Path(__file__).parent).encode() not in (tmp_path / "net.onnx").read_bytes()  # no paths of this machine


class TiedLinear(nn.Module):
    """Two modules hold one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode, self.out = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)
        self.decode.weight = self.encode.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.decode(self.encode(x).relu()).relu())


class TiedEmbedding(nn.Module):
    """Rows that are looked up, and multiplied with at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.decode = nn.Embedding(20, 8), nn.Linear(8, 20, bias=False)
        self.decode.weight = self.words.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.words(x).relu())


@pytest.mark.parametrize("to", ["onnx", "qonnx", "c"])
@pytest.mark.parametrize(
    ("model", "x"), [(TiedLinear(), torch.randn(3, 8)), (TiedEmbedding(), torch.arange(6).reshape(2, 3))]
)
def test_a_weight_that_two_modules_hold_is_exported_once(
    onnx: Any, model: nn.Module, x: Tensor, to: str, tmp_path: Path
) -> None:
    if to == "qonnx":
        pytest.importorskip("qonnx", reason="needs qonnx")
    if to == "c" and not x.is_floating_point():
        pytest.skip("C takes float32 alone")
    model = deepcopy(model)
    policy = finalised(model, x, 3)
    path = tmp_path / ("net.h" if to == "c" else "net.onnx")
    made = waveq.export(model, policy, path, to=to, sample=x)
    assert made.difference <= 1e-6
    if to == "onnx":
        held = [each.name for each in onnx.load(path).graph.initializer if each.name.endswith("_codes")]
        assert len(held) == len(policy)


def test_metadata_types_and_opset(onnx: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(4, 8)
    policy = finalised(model, x, {"0": 2, "2": 3, "4": 9}, quantizer="lsq")
    made = waveq.export(model, policy, tmp_path / "net.onnx", to="onnx", sample=x)
    assert made.carriers == {"0": "int2", "2": "int4", "4": "int16"}
    graph = onnx.load(tmp_path / "net.onnx")
    assert [(each.domain, each.version) for each in graph.opset_import] == [("", 25)]
    told = {each.key: json.loads(each.value) for each in graph.metadata_props}
    assert told["waveq.bits"] == dict(policy)
    assert told["waveq.policy"] == policy.to_json()
    assert set(told["waveq.versions"]) == {"waveq", "torch", "onnx"}
    made = waveq.export(model, policy, tmp_path / "older.onnx", to="onnx", sample=x, opset=21)
    assert made.carriers == {"0": "int4", "2": "int4", "4": "int16"}


def test_what_cannot_be_held_is_refused_and_nothing_is_written(onnx: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(4, 8)
    policy = finalised(model, x, {"0": 3, "2": 9}, quantizer="lsq")
    path = tmp_path / "net.onnx"

    def refused(match: str, given: Any = policy, sample: Any = x, **options: Any) -> None:
        with pytest.raises(ValueError, match=match):
            waveq.export(model, given, to="onnx", path=path, sample=sample, **options)
        assert not list(tmp_path.iterdir())

    refused("opset must be 18 or more", opset=11)
    refused("codes of 9 bits need opset 21 of ONNX, not 20", opset=20)
    refused("needs sample=", sample=None)
    refused("one at least", sample=x[:0])
    model[2] = nn.Linear(8, 2)  # replaced since
    refused("layer '2': its weights are no multiples of a scale at 9 bits")


def test_a_grouped_transposed_convolution_by_channel_is_refused(onnx: Any, tmp_path: Path) -> None:
    model, x = nn.Sequential(nn.ConvTranspose2d(4, 4, 2, groups=2)), torch.randn(2, 4, 3, 3)
    policy = finalised(model, x, 4, quantizer="wrpn", scale="max", granularity="channel", skip=())
    with pytest.raises(ValueError, match="transposed convolution in groups"):
        waveq.export(model, policy, tmp_path / "net.onnx", to="onnx", sample=x)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", ["dorefa", "pact", "range", "lsq", "dsq"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("signed", [False, True])
def test_input_grids_are_those_of_the_quantisers(method: str, bits: int, signed: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(500)
    quantizer = make_activation_quantizer(method, bits)
    quantizer.train()(x.abs(), signed=signed)
    fixed = FixedInput(bits, signed=signed, quantizer=quantizer)
    if method == "dsq" and signed:
        with pytest.raises(ValueError, match="no whole multiples of a scale"):
            input_grid("fc", fixed)
        return
    grid = input_grid("fc", fixed)
    codes = torch.round(x / grid.scale).clamp(grid.low, grid.high)
    torch.testing.assert_close(codes * grid.scale, fixed(x), rtol=1e-6, atol=1e-7)


def test_inputs_without_a_scale_are_refused() -> None:
    with pytest.raises(ValueError, match=r"inputs of layer 'fc' \('lqnets', 2 bits, without a sign\)"):
        input_grid("fc", FixedInput(2, signed=False, quantizer=make_activation_quantizer("lqnets", 2)))
    with pytest.raises(ValueError, match="1 bits, with a sign"):
        input_grid("fc", FixedInput(1, signed=True))


def test_small_types_are_packed_as_onnx_packs_them(onnx: Any) -> None:
    codes = np.array([[-2, 1, 0], [-1, 1, 1]])
    for carrier in (Carrier(2, 25), Carrier(4, 21), Carrier(8, 1), Carrier(16, 21)):
        kind = getattr(onnx.TensorProto, carrier.name(signed=True))
        tensor = onnx.TensorProto(data_type=kind, dims=codes.shape, raw_data=raw_bytes(codes, carrier))
        assert onnx.numpy_helper.to_array(tensor).astype(int).tolist() == codes.tolist()


def test_the_smallest_type_of_an_opset() -> None:
    assert [carrier_for(bits, None).bits for bits in (1, 2, 3, 4, 5, 8, 9)] == [2, 2, 4, 4, 8, 8, 16]
    assert [carrier_for(bits, 18).bits for bits in (1, 8)] == [8, 8]


@pytest.mark.slow
def test_one_sample_is_enough(onnx: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(4, 8)
    policy = finalised(model, x, {"0": 3, "2": 4}, quantizer="lsq")
    waveq.export(model, policy, tmp_path / "net.onnx", to="onnx", sample=x[:1])
    torch.testing.assert_close(run(tmp_path / "net.onnx", x), model(x), rtol=1e-4, atol=1e-5)

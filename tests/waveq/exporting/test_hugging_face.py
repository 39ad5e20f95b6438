"""Folders of Hugging Face: packed as compressed-tensors packs, and loaded by transformers where it is installed."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import waveq
from waveq.exporting.hugging_face import pack_words, packed_tensors, quantization_config
from waveq.layers import quantizable


def unpacked(words: np.ndarray[Any, Any], bits: int, columns: int) -> list[list[int]]:
    """Slowly, one code after the other: each row is one long number."""
    rows = [int.from_bytes(row.tobytes(), "little") for row in words]
    return [[(row >> bits * i & 2**bits - 1) - 2 ** (bits - 1) for i in range(columns)] for row in rows]


@pytest.mark.slow
@given(st.integers(1, 8), st.integers(1, 3), st.integers(1, 40), st.data())
def test_rows_are_packed_from_the_lowest_bit_on(bits: int, rows: int, columns: int, data: st.DataObject) -> None:
    code = st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    codes = [data.draw(st.lists(code, min_size=columns, max_size=columns)) for _ in range(rows)]
    words = pack_words(np.array(codes, np.int8), bits)
    assert words.dtype == np.int32
    assert words.shape == (rows, -(-columns * bits // 32))
    assert unpacked(words, bits, columns) == codes


def weights_of(config: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a reader of the format makes of it: the layers that the groups' targets match."""
    found = {}
    for key, packed in tensors.items():
        name, _, what = key.rpartition(".")
        if what != "weight_packed":
            continue
        groups = config["config_groups"].values()
        (group,) = [each for each in groups if any(re.match(one[3:], name) for one in each["targets"])]
        rows, columns = tensors[f"{name}.weight_shape"].tolist()
        codes = torch.tensor(unpacked(packed.numpy(), group["weights"]["num_bits"], columns))
        scale = tensors[f"{name}.weight_scale"]
        assert scale.shape == ((rows, 1) if group["weights"]["strategy"] == "channel" else (1,))
        found[name] = scale * codes
    return found


BITS = {"0": 2, "1": 3, "2": 5, "3": 6, "4": 7}


def layers(**options: Any) -> tuple[nn.Module, dict[str, Any]]:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(9, 9) for _ in BITS), nn.Linear(9, 2))
    wq = waveq.attach(model, bits={**BITS, "5": 8 - (options["quantizer"] == "dorefa")}, **options)
    wq.finalize()
    return model, waveq.integers(model, wq.policy())


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"quantizer": "lsq", "granularity": "channel"},
        {"quantizer": "wrpn", "scale": "max"},
        {"quantizer": "dorefa", "scale": "max"},
    ],
)
def test_every_bit_width_comes_back_bit_by_bit(options: Any, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch", reason="needs safetensors")
    model, found = layers(**options)
    tensors = packed_tensors(found, {})
    safetensors.save_file(tensors, tmp_path / "model.safetensors")
    read = weights_of(quantization_config(found, {}), safetensors.load_file(tmp_path / "model.safetensors"))
    assert list(read) == list(found)
    for name, weight in read.items():
        assert torch.equal(weight, model.get_submodule(name).weight)  # type: ignore[arg-type]
    extra = options["quantizer"] == "dorefa"  # no zero: one more bit
    told = {group["weights"]["num_bits"] for group in quantization_config(found, {})["config_groups"].values()}
    assert told == {bits + extra for bits in (*BITS.values(), 8 - extra)}


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    model = nn.Sequential(nn.Linear(4, 4))
    wq = waveq.attach(model, quantizer="lsq", bits=3, skip=())
    wq.finalize()
    with pytest.raises(ImportError, match=r"needs the package transformers: pip install 'waveq\[hf\]'"):
        waveq.export(model, wq.policy(), tmp_path / "net", to="hf", sample=torch.randn(2, 4))
    assert not list(tmp_path.iterdir())


@pytest.fixture
def transformers() -> Any:
    pytest.importorskip("compressed_tensors", reason="needs waveq[hf]")
    return pytest.importorskip("transformers", reason="needs waveq[hf]")


def bert(transformers: Any) -> tuple[Any, Tensor]:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=99,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=40,
        max_position_embeddings=16,
        num_labels=3,
    )
    return transformers.BertForSequenceClassification(config).eval(), torch.randint(0, 99, (3, 8))


def finalised(model: Any, x: Tensor, bits: Any, **options: Any) -> waveq.Policy:
    wq = waveq.attach(model, bits=bits, **{"skip": (), **options})
    model.train()(x)
    wq.finalize()
    model.eval()
    return wq.policy()


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"quantizer": "lsq", "granularity": "channel"},
        {"quantizer": "wrpn", "scale": "max", "activation_bits": 4, "activation_quantizer": "lsq"},
        {"quantizer": "dorefa", "scale": "max"},
    ],
)
def test_from_pretrained_equals_ours(transformers: Any, options: Any, tmp_path: Path) -> None:
    model, x = bert(transformers)
    names = list(quantizable(model))
    policy = finalised(model, x, {name: 2 + i % 6 for i, name in enumerate(names)}, **options)
    made = waveq.export(model, policy, tmp_path / "net", to="hf", sample=x)
    assert made.difference <= 1e-6 * made.largest
    extra = options["quantizer"] == "dorefa"
    assert made.carriers[names[1]] == f"int{3 + extra} packed in int32"
    assert made.file_bytes == sum(each.stat().st_size for each in (tmp_path / "net").iterdir())
    assert waveq.Policy.load(tmp_path / "net" / "policy.json") == policy
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "net")
    with torch.no_grad():
        torch.testing.assert_close(loaded(x).logits, model(x).logits, rtol=0.0, atol=1e-6 * made.largest)
    for name in names:
        assert torch.equal(loaded.get_submodule(name).weight, model.get_submodule(name).weight)
    config = json.loads((tmp_path / "net" / "config.json").read_text())["quantization_config"]
    targets = [target for group in config["config_groups"].values() for target in group["targets"]]
    assert sorted(targets) == sorted(f"re:^{re.escape(name)}$" for name in names)
    assert any("input_activations" in group for group in config["config_groups"].values()) == (
        "activation_bits" in options
    )


@pytest.mark.slow
def test_other_layers_stay_in_floating_point_by_name(transformers: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=99, hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=40
    )
    model, x = transformers.BertForMaskedLM(config).eval(), torch.randint(0, 99, (3, 8))
    also = ("bert.embeddings.position_embeddings",)
    policy = finalised(model, x, 4, quantizer="lsq", also=also)
    made = waveq.export(model, policy, tmp_path / "net", to="hf", sample=x)
    assert made.carriers["bert.embeddings.position_embeddings"] == "float32 (Embedding)"
    assert made.carriers["cls.predictions.decoder"] == "float32 (tied to bert.embeddings.word_embeddings.weight)"
    assert made.carriers["bert.encoder.layer.0.output.dense"] == "int4 packed in int32"
    assert made.difference <= 1e-6 * made.largest


@pytest.mark.slow
def test_what_cannot_be_held_is_refused_and_nothing_is_written(transformers: Any, tmp_path: Path) -> None:
    def refused(match: str, model: Any, policy: Any, x: Tensor, error: type[Exception] = ValueError) -> None:
        with pytest.raises(error, match=match):
            waveq.export(model, policy, tmp_path / "net", to="hf", sample=x)
        assert not list(tmp_path.iterdir())

    plain = nn.Sequential(nn.Linear(4, 4))
    refused("for models of transformers, .* not for Sequential", plain, *_finished(plain))
    model, x = bert(transformers)
    policy = finalised(model, x, 8, quantizer="dorefa", scale="max")
    refused("takes 9 bits as whole numbers, one more than the policy's because its grid has no zero", model, policy, x)
    model, x = bert(transformers)
    policy = finalised(model, x, 9, quantizer="lsq")
    refused("takes 9 bits as whole numbers, and target 'hf' has 8 at most", model, policy, x)
    model, x = bert(transformers)
    policy = finalised(model, x, 4, quantizer="lsq", activation_bits=4, activation_quantizer="range")
    refused("lie on the levels -7 to 7, to which target 'hf' would add -8", model, policy, x)
    model, x = bert(transformers)
    policy = finalised(model.to(torch.bfloat16), x, 4, quantizer="lsq")
    refused("is in bfloat16", model, policy, x)
    model, x = bert(transformers)
    policy = finalised(model, x, 4, quantizer="lsq")
    refused("names layer 'fc', which the model does not have", model, {**policy, "fc": 3}, x)
    model.classifier = nn.Linear(24, 3)
    refused("layer 'classifier': its weights are no multiples of a scale at 4 bits", model, policy, x)
    with pytest.raises(ValueError, match="opset is for target 'onnx', not for 'hf'"):
        waveq.export(model, policy, tmp_path / "net", to="hf", sample=x, opset=21)


def _finished(model: nn.Module) -> tuple[waveq.Policy, Tensor]:
    return finalised(model, torch.randn(2, 4), 3, quantizer="lsq"), torch.randn(2, 4)


@pytest.mark.slow
def test_a_folder_that_exists_is_left_alone(transformers: Any, tmp_path: Path) -> None:
    model, x = bert(transformers)
    policy = finalised(model, x, 4, quantizer="lsq")
    with pytest.raises(FileExistsError, match="exists already"):
        waveq.export(model, policy, tmp_path, to="hf", sample=x)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_what_transformers_cannot_load_is_refused_in_one_sentence(transformers: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.MambaConfig(vocab_size=99, hidden_size=16, num_hidden_layers=1, state_size=4, use_cache=False)
    model, x = transformers.MambaForCausalLM(config).eval(), torch.randint(0, 99, (2, 6))
    policy = finalised(model, x, 4, quantizer="lsq")  # its forward pass reads the weights of its layers itself
    with pytest.raises(ValueError, match="from_pretrained of MambaForCausalLM does not load what was exported"):
        waveq.export(model, policy, tmp_path / "net", to="hf", sample=x)
    assert not list(tmp_path.iterdir())

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.docs_blocks import first_python_block
from waveq import Policy


def full() -> Policy:
    return Policy(
        {"conv1": 8, "layer1.0": 3, "fc": 4},
        activation_bits={"fc": 4},
        betas={"layer1.0": 1.9},
        scales={"conv1": 0.01},
        weight_counts={"conv1": 10, "layer1.0": 100, "fc": 50},
        skipped=("head",),
        quantizer="dorefa",
        provenance={"preset": "paper", "steps": 12},
    )


def test_it_is_a_mapping() -> None:
    policy = full()
    assert dict(policy) == {"conv1": 8, "layer1.0": 3, "fc": 4}
    assert policy == dict(policy)
    assert list(policy) == ["conv1", "layer1.0", "fc"]
    assert len(policy) == 3
    assert "fc" in policy
    assert policy.get("missing") is None


def test_totals_by_hand() -> None:
    policy = full()
    assert policy.mean_bits == 5.0
    assert policy.weight_bytes == (80 + 300 + 200) / 8
    with pytest.raises(ValueError, match="does not say how many weights each layer has"):
        _ = Policy({"a": 2}).weight_bytes


def test_it_cannot_be_changed() -> None:
    bits = {"a": 2}
    policy = Policy(bits)
    bits["a"] = 5
    assert policy["a"] == 2
    with pytest.raises(TypeError):
        policy["a"] = 3  # type: ignore[index]
    with pytest.raises(TypeError):
        policy.betas["a"] = 3.0  # type: ignore[index]


def test_round_trip_through_a_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "policy.json"
    full().save(path)
    again = Policy.load(path)
    assert again == full()
    assert again.to_json() == full().to_json()
    assert [file.name for file in path.parent.iterdir()] == ["policy.json"]


@given(st.dictionaries(st.text(min_size=1, max_size=8), st.integers(1, 9), min_size=1, max_size=6))
def test_any_names_survive_the_file(tmp_path_factory: pytest.TempPathFactory, bits: dict[str, int]) -> None:
    path = tmp_path_factory.mktemp("policy") / "p.json"
    Policy(bits).save(path)
    assert Policy.load(str(path)) == bits


def test_a_plain_object_is_a_policy(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"conv1": 8, "fc": 3}')
    assert Policy.load(tmp_path / "p.json") == {"conv1": 8, "fc": 3}


def test_maps_of_other_tools_are_read_and_written_as_the_page_says() -> None:
    exec(compile(first_python_block("export.md", "Bits from other tools, and for them"), "export.md", "exec"), {})


def test_copies_and_pickles() -> None:
    for again in (copy.deepcopy(full()), pickle.loads(pickle.dumps(full())), copy.copy(full())):
        assert again.to_json() == full().to_json()


def test_numpy_bits() -> None:
    policy = Policy({"a": np.uint8(3), "b": np.int64(4)})  # type: ignore[dict-item]
    assert json.loads(json.dumps(policy.to_json()))["bits"] == {"a": 3, "b": 4}


def test_repr_names_layers_and_mean() -> None:
    assert repr(full()) == "Policy(conv1: 8, layer1.0: 3, fc: 4; mean 5.00 bits)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bits": {}}, "at least one layer"),
        ({"bits": {"fc": 0}}, r"the bits of layer 'fc' must be a whole number from 1 to 9 .* not 0"),
        ({"bits": {"fc": 10}}, "not 10"),
        ({"bits": {"fc": 3.0}}, "not 3.0"),
        ({"bits": {"fc": True}}, "not True"),
        ({"bits": {"fc": 3}, "betas": {"fx": 2.0}}, "betas names layers that the policy does not have: fx"),
        ({"bits": {"fc": 3}, "activation_bits": {"fc": 9}}, "activation bits of layer 'fc' must be .* 1 to 8, not 9"),
        ({"bits": {"fc": 3}, "betas": {"fc": float("nan")}}, r"betas\['fc'\] must be a finite number, not nan"),
        ({"bits": {"fc": 3}, "scales": {"fc": "big"}}, r"scales\['fc'\] must be a finite number, not 'big'"),
        (
            {"bits": {"fc": 3}, "weight_counts": {"fc": -1}},
            r"weight_counts\['fc'\] must be a number of weights, not -1",
        ),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Policy(arguments.pop("bits"), **arguments)


def test_bits_must_be_a_mapping() -> None:
    with pytest.raises(TypeError, match="bits must be a mapping of layers to total bits, not 4"):
        Policy(4)  # type: ignore[arg-type]


HEAD = '"format": "waveq-policy/1"'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("\ufeff{", "not valid JSON"),
        ("[1, 2]", "expected a JSON object, found list"),
        ("null", "expected a JSON object, found NoneType"),
        ("{}", "at least one layer"),
        ('{"fc": "4"}', r"field 'bits.fc' is '4': .*integer"),
        ('{"fc": 4.5}', r"field 'bits.fc' is 4.5"),
        ('{"fc": null}', r"field 'bits.fc' is None"),
        ('{"fc": true}', r"field 'bits.fc' is True"),
        ('{"fc": 12}', "the bits of layer 'fc' must be a whole number from 1 to 9"),
        ('{"fc": 3, "fc": 4}', "the key 'fc' is given twice"),
        ('{"bits": {"fc": 4}}', "field 'format' is missing; .*one written by hand is layers and bits alone"),
        ("{" + HEAD + "}", "field 'bits' is missing"),
        ("{" + HEAD + ', "bits": {}}', "at least one layer"),
        ('{"format": "waveq-policy/9", "bits": {"fc": 4}}', "field 'format' is 'waveq-policy/9'"),
        ("{" + HEAD + ', "bits": [4]}', r"field 'bits' is \[4\]"),
        ("{" + HEAD + ', "bits": {"fc": 4}, "beta": {}}', r"unknown field 'beta'; did you mean 'betas'\?"),
        ("{" + HEAD + ', "bits": {"fc": 4}, "betas": {"fc": "x"}}', r"field 'betas.fc' is 'x'"),
        ("{" + HEAD + ', "bits": {"fc": 4}, "betas": {"fc": NaN}}', "NaN is no finite number"),
        (
            "{" + HEAD + ', "bits": {"fc": 4}, "betas": {"fx": 1.0}}',
            "betas names layers that the policy does not have: fx",
        ),
        ("{" + HEAD + ', "bits": {"fc": 4}, "weight_counts": {"fc": -3}}', r"weight_counts\['fc'\]"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_broken_files_are_told_by_name_and_field(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "policy.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        Policy.load(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 500


def test_binary_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match=r"weights\.pt: damaged, or not UTF-8 text"):
        Policy.load(tmp_path / "weights.pt")
    with pytest.raises(FileNotFoundError):
        Policy.load(tmp_path / "nothing.json")


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    full().save(path)
    with pytest.raises(TypeError):
        Policy({"a": 2}, provenance={"when": object()}).save(path)
    assert Policy.load(path) == full()

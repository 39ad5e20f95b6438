"""Training configs: recipes against the paper's table, text from a command line, errors in one sentence."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from waveq.method.options import Method
from waveq.train.config import RUNTIME_FIELDS, TrainConfig, load_recipe, parse_config
from waveq.train.recipe_files import recipe_names

# Table 4: network, data, epochs by phase, batch, rate; momentum 0.9 and decay 1e-4 everywhere
TABLE_4 = {
    "simplenet5-cifar10": ("simplenet5", "cifar10", (59, 74, 44), 128, 1e-3),
    "vgg11-cifar10": ("vgg11", "cifar10", (83, 104, 62), 128, 1e-4),
    "svhn8-svhn": ("svhn8", "svhn", (36, 45, 27), 128, 1e-2),
    "resnet20-cifar10": ("resnet20", "cifar10", (32, 40, 24), 128, 1e-2),
    "alexnet-imagenet": ("alexnet", "imagenet", (28, 35, 21), 256, 1e-2),
    "resnet18-imagenet": ("resnet18", "imagenet", (32, 40, 24), 256, 1e-2),
    "mobilenet-v2-imagenet": ("mobilenet-v2", "imagenet", (41, 52, 31), 256, 1e-2),
}


def test_there_is_a_recipe_for_every_row_and_for_the_small_sets() -> None:
    assert set(recipe_names()) == {*TABLE_4, "digits", "fashion-mnist"}


@pytest.mark.parametrize("name", TABLE_4)
def test_recipe_is_the_row_of_table_4(name: str) -> None:
    model, dataset, phases, batch, rate = TABLE_4[name]
    config = load_recipe(name)
    assert (config.model, config.dataset, config.batch_size, config.lr) == (model, dataset, batch, rate)
    assert (config.momentum, config.weight_decay, config.optimizer, config.bits) == (0.9, 1e-4, "sgd", "learn")
    assert config.epochs == sum(phases)
    # the schedule's own cut, at T/3 and 3T/4, gives the row's phases to an epoch
    rise, fall = config.epochs / 3, 3 * config.epochs / 4
    assert phases == pytest.approx((rise, fall - rise, config.epochs - fall), abs=1)


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_name_what_the_zoo_has(name: str) -> None:
    from waveq.zoo import network
    from waveq.zoo.datasets.data import source

    config = load_recipe(name)
    assert network(config.model).name == config.model
    assert source(config.dataset).name == config.dataset
    assert load_recipe(name, seed=7).seed == 7


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"epoch": 3}, r"^x: no field is called 'epoch'; did you mean 'epochs'\?$"),
        ({"lr": -1}, r"^x: lr is -1: input should be greater than 0$"),
        ({"precision": "16"}, r"^x: precision is '16': input should be '32', 'bf16' or '64'; did you mean 'bf16'\?$"),
        ({"bits": "lern"}, r"^x: bits is 'lern': 'learn', a number of bits, bits by layer, or a policy file"),
        ({"bits": 99}, r"^x: bits must be from 1 to 9, not 99$"),
        ({"bits": {"fc": 12}}, r"^x: bits must be from 1 to 9, not 12$"),
        ({"first_last": 10}, r"^x: first_last must be from 1 to 9, not 10$"),
        ({"activation_bits": {"fc": 9}}, r"^x: activation_bits must be from 1 to 8, not 9$"),
        ({"batch_size": 33, "devices": 2}, r"^x: batch_size 33 cannot be shared by 2 devices; .* is 34$"),
        ({"epochs": 0}, r"^x: bits 'learn' needs epochs"),
        ({"bits": 3, "target": {"mean_bits": 3.0}}, r"^x: target is a budget for learned bits"),
        ({"distill": True}, r"^x: distill needs a float network that can teach: pretrain_epochs"),
        ({"distill_weight": 0.3}, r"^x: distill_weight is for distill, which is off"),
    ],
)
def test_errors_are_one_sentence(fields: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_config(fields, where="x")


def test_bits_as_they_are_written() -> None:
    assert parse_config({"bits": 3}).bits == 3
    assert parse_config({"bits": "policy.json"}).bits == Path("policy.json")
    assert parse_config({"bits": {"conv1": 4}}).bits == {"conv1": 4}


def test_files(tmp_path: Path) -> None:
    config = TrainConfig(bits={"conv1": 4}, layer_costs={"conv1": {2: 1.0, 3: 2.5}, "fc": 3.0}, skip=("a", "b.*"))
    (tmp_path / "config.json").write_text(config.to_json())
    assert load_recipe(tmp_path / "config.json") == config
    (tmp_path / "my.toml").write_text("epochs = 4\nskip = ['fc']\n")
    assert load_recipe(tmp_path / "my.toml").skip == ("fc",)
    (tmp_path / "bad.toml").write_text("epochs = ")
    with pytest.raises(ValueError, match=r"bad\.toml: damaged"):
        load_recipe(tmp_path / "bad.toml")
    with pytest.raises(ValueError, match="did you mean 'fashion-mnist'"):
        load_recipe("fashion-mnst")


@pytest.mark.usefixtures("as_new")
def test_a_recipe_imports_the_modules_that_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_own.py").write_text("")
    (tmp_path / "my.toml").write_text("imports = ['my_own']\n")
    config = load_recipe("my.toml")
    assert "my_own" in sys.modules
    assert parse_config(json.loads(config.to_json())) == config
    with pytest.raises(ValueError, match=r"x: imports is .*'my_own\.py'.*: a module's name is expected"):
        parse_config({"imports": ["my_own.py"]}, where="x")
    with pytest.raises(ValueError, match="no module 'my_other'"):
        parse_config({"imports": ["my_other"]})


def test_runtime_fields_exist_and_change_nothing_that_is_learned() -> None:
    assert set(TrainConfig.model_fields) > RUNTIME_FIELDS
    assert not RUNTIME_FIELDS & {"seed", "lr", "epochs", "batch_size", "devices", "precision", "bits"}


def test_unset_fields_stay_out_of_the_file() -> None:
    assert "lambda_w" not in json.loads(TrainConfig().to_json())


def test_the_method_of_a_stage() -> None:
    config = TrainConfig(
        quantizer="wrpn", skip=("fc",), lambda_w=0.3, lambda_beta=0.1, target={"mean_bits": 3.0}, preset="paper"
    )
    learning = config.method("learn", 70)
    assert (learning.bits, learning.total_steps, learning.lambda_beta) == ("learn", 70, 0.1)
    assert (learning.quantizer, learning.skip, learning.preset) == ("wrpn", ("fc",), "paper")
    fixed = config.method({"conv1": 3}, None)
    assert (fixed.bits, fixed.total_steps, fixed.lambda_w) == ({"conv1": 3}, None, 0.3)
    assert (fixed.lambda_beta, fixed.target) == (None, None)
    assert TrainConfig(rewind=False).method("learn", 10) == Method(quantizer="lsq", total_steps=10)


def test_the_method_where_inputs_learn() -> None:
    config = TrainConfig(bits=4, activation_bits="learn", target={"bitops": 0.4})
    assert config.learns
    learning = config.method(4, 70)
    assert (learning.activation_bits, learning.target) == ("learn", {"bitops": 0.4})
    assert learning.schedule == "search"
    found = learning.with_policy({"conv1": 3}, 10)  # the policy brings its own
    assert (found.activation_bits, found.target) == (None, None)
    assert not TrainConfig(bits=4, activation_bits={"conv1": 4}).learns
    assert TrainConfig(bits=4, activation_bits={"conv1": 4, "conv2": "learn"}).learns_inputs
    assert TrainConfig(bits=4, activation_bits=3).activation_bits == 3


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("epochs", True, "epochs is True: a whole number is expected"),
        ("epochs", "3", "epochs is '3': a whole number is expected"),
        ("epochs", 3.0, "a whole number is expected"),
        ("lr", "0.1", "lr is '0.1': a finite number is expected"),
        ("lr", float("inf"), "lr is inf: input should be a finite number"),
        ("width", float("nan"), "width is nan"),
        ("bits", True, "bits is True: 'learn', or a whole number"),
        ("bits", "3", "'learn', a number of bits"),
        ("bits", {"conv1": True}, "a table of a whole number"),
        ("activation_bits", {"conv1": "4"}, "activation_bits is"),
        ("target", {"mean_bits": "3"}, "a table of a finite number is expected"),
        ("target", 3, "target is 3: a table of a finite number is expected"),
        ("target", {"mean_bits": float("nan")}, "a finite number"),
        ("layer_costs", {"conv1": True}, "layer_costs is"),
        ("layer_costs", {"conv1": {"2": "1"}}, "layer_costs is"),
        ("layer_costs", {"conv1": {2: {4: float("inf")}}}, "layer_costs is"),
        ("layer_costs", {"conv1": -1.0}, r"layer_costs\['conv1'\] must be a positive, finite number, not -1.0"),
        ("layer_costs", {"conv1": {2: {4: 0}}}, r"layer_costs\['conv1'\]\[2\]\[4\] must be a positive"),
        ("layer_costs", {"conv1": {17: 1.0}}, "a whole number from 1 to 16, not 17"),
        ("augment", "yes", "augment is 'yes': true or false is expected"),
        ("augment", 1, "true or false is expected"),
        ("freezing", "2", "a finite number, or 'off' is expected"),
    ],
)
def test_values_are_taken_as_they_are_written(field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_config({field: value})


def test_an_error_names_where_the_value_came_from(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text("lr = -1.0\nbits = 4\n")
    with pytest.raises(ValueError, match=r"^\S*my\.toml: lr is -1\.0: input should be greater than 0$"):
        load_recipe(tmp_path / "my.toml", epochs=3)
    with pytest.raises(ValueError, match=r"^load_recipe: lr is -2: "):
        load_recipe(tmp_path / "my.toml", lr=-2)
    with pytest.raises(ValueError, match=r"^--lr: lr is -2: "):
        load_recipe(tmp_path / "my.toml", lr=-2, sources={"lr": "--lr"})
    with pytest.raises(ValueError, match=r"^--set: no field is called 'momentm'; did you mean 'momentum'\?$"):
        parse_config({"momentm": 1}, sources={"momentm": "--set"})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bits": 4, "target": {"mean_bits": 3.0}}, "--bits, a.toml: target is a budget for learned bits"),
        ({"search_share": 0.5, "bits": 4, "seed": 1}, "a.toml, --bits: search_share is the length of a search"),
        ({"lr": 0.1, "distill_weight": 0.5}, "a.toml: distill_weight is for distill, which is off"),
        (
            {"num_nodes": 2, "batch_size": 9},
            "--num-nodes, a.toml: batch_size 9 cannot be shared by 1 devices on each of num_nodes 2",
        ),
        ({"model": "my:net", "width": 2.0}, "--model, a.toml: width says nothing of my:net"),
    ],
)
def test_of_fields_that_do_not_fit_together_each_is_traced(fields: dict[str, Any], message: str) -> None:
    sources = {"bits": "--bits", "model": "--model", "num_nodes": "--num-nodes", "seed": "--seed", "lr": "--lr"}
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (its text is compared below)
        parse_config(fields, where="a.toml", sources=sources)
    assert str(caught.value).startswith(message)


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    for name, text in [("a.json", '{"epochs": 1, "epochs": 2}'), ("a.toml", "epochs = 1\nepochs = 2\n")]:
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=rf"{name}: .*(twice|overwrite)"):
            load_recipe(tmp_path / name)

"""Headers for C, compiled and run."""

from __future__ import annotations

import copy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import waveq
import waveq.exporting.c_check
import waveq.zoo
from waveq.exporting.c_check import find_compiler, outputs_of_program
from waveq.exporting.c_constants import Constants, literal
from waveq.exporting.c_graph import network_steps
from waveq.exporting.integers import Integers

pytestmark = pytest.mark.slow
compiled = pytest.mark.skipif(find_compiler() is None, reason="needs a C compiler")


def finalised(model: nn.Module, x: Tensor, bits: Any, **options: Any) -> waveq.Policy:
    wq = waveq.attach(model, bits=bits, total_steps=2, **options)
    model.train()(x)
    wq.finalize()
    model.eval()
    return wq.policy()


BITS = {"first": 8, "grouped": 3, "depthwise": 5, "hidden": 2, "head": 4}


class Everything(nn.Module):
    """Every operation that C has."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, (3, 5), stride=(2, 1), padding=(1, 2), bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 8, 3, padding="same", dilation=2, groups=4)
        self.depthwise = nn.Conv2d(8, 8, 4, padding="same", groups=8)
        self.plain_norm = nn.BatchNorm2d(8, affine=False)
        self.left_float = nn.Conv2d(8, 6, 1)
        self.drop = nn.Dropout(0.5)
        self.hidden = nn.Linear(36, 6)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.norm(self.first(x)))
        y = self.grouped(x)
        F.relu_(y)  # in place, and y is read below
        x = F.avg_pool2d(x + y, 3, stride=2, padding=1)
        x = x + F.hardtanh(self.plain_norm(self.depthwise(x)), -0.5, 0.8)
        x = F.max_pool2d(x.clamp(min=-0.4), (2, 3), stride=2, padding=(1, 0), ceil_mode=True)
        x = F.avg_pool2d(x, 2, stride=1, count_include_pad=False, padding=1)
        x = self.left_float(x)
        parts = F.adaptive_avg_pool2d(x, (3, 2)) + F.adaptive_max_pool2d(x, (3, 2))
        averages = x.mean(dim=(2, 3)) + F.adaptive_avg_pool2d(x, 1).flatten(1)
        found: Tensor = self.head(self.drop(self.hidden(parts.reshape(-1, 36))) + averages)
        return found


@compiled
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("quantizer", ["lsq", "wrpn", "dorefa"])
@pytest.mark.parametrize("inputs", [None, 3])
def test_every_operation(quantizer: str, inputs: int | None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Everything(), torch.randn(6, 3, 14, 9)
    scale: dict[str, Any] = {} if quantizer == "lsq" else {"scale": "max", "granularity": "channel"}
    policy = finalised(model, x, BITS, quantizer=quantizer, activation_bits=inputs, skip=("left_float",), **scale)
    made = waveq.export(model, policy, tmp_path / "every-thing.h", to="c", sample=x)
    assert made.difference is not None
    assert made.difference <= 2e-6 * made.largest
    assert "every-thing.c beside it was compiled by" in str(made)


@compiled
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("simplenet5", {"quantizer": "lsq", "activation_bits": 4}),
        ("simplenet5", {"quantizer": "pact", "scale": "max"}),
        ("resnet20", {"quantizer": "midrise", "scale": "max", "granularity": "channel"}),
    ],
)
def test_networks_of_the_zoo_at_one_to_eight_bits(name: str, options: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = waveq.zoo.build(name), torch.randn(4, 3, 32, 32)
    least = 2 if options["quantizer"] == "lsq" else 1
    bits = {layer: least + i % (9 - least) for i, layer in enumerate(waveq.layers.quantizable(model))}
    made = waveq.export(model, finalised(model, x, bits, **options), tmp_path / "net.h", to="c", sample=x)
    assert made.difference is not None
    assert made.difference <= 1e-5 * made.largest
    assert made.carriers == {layer: f"{count} bits packed" for layer, count in bits.items()}


@compiled
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("language", [["gcc", "-std=c99"], ["g++", "-std=c++11", "-x", "c++"]])
def test_the_files_are_c99_and_cpp11_without_a_warning(language: list[str], tmp_path: Path) -> None:
    if shutil.which(language[0]) is None:
        pytest.skip(f"needs {language[0]}")
    torch.manual_seed(0)
    model, x = Everything(), torch.randn(6, 3, 14, 9)
    policy = finalised(model, x, BITS, quantizer="lsq", activation_bits=4, skip=("left_float",))
    waveq.export(model, policy, tmp_path / "net.h", to="c", sample=x)
    strict = ["-Wall", "-Wextra", "-Werror", "-pedantic"]
    subprocess.run([*language, *strict, "net.c", "-o", "net", "-lm"], cwd=tmp_path, check=True)
    given = subprocess.run([tmp_path / "net"], input=x.numpy().tobytes(), capture_output=True, check=True).stdout
    found = torch.from_numpy(np.frombuffer(given, np.float32).copy()).reshape(6, 5)
    torch.testing.assert_close(found, model(x), rtol=1e-5, atol=1e-5)
    cut = subprocess.run([tmp_path / "net"], input=x.numpy().tobytes()[:-4], capture_output=True, check=False)
    assert (cut.returncode, cut.stdout) == (1, given[: 5 * 5 * 4])


@compiled
@pytest.mark.parametrize("bits", range(1, 10))
def test_codes_are_unpacked_as_they_were_packed(bits: int) -> None:
    codes = torch.arange(-(2 ** (bits - 1)), 2 ** (bits - 1)).to(torch.int16)
    codes = torch.cat([codes, codes.flip(0), codes[:3]])
    made = Constants("t")
    name = made.codes("weight", Integers(codes, torch.tensor(1.0), 0.0, bits, None, torch.float32))
    kernels = (Path(waveq.exporting.c_check.__file__).parent / "kernels.h").read_text()
    program = f"""{kernels}
#include <stdio.h>
{made.lines[0]}
int main(void) {{
    waveq_weights weights = {{{name}, NULL, NULL, NULL, {bits}, 0, 0}};
    for (size_t i = 0; i < {len(codes)}; i++) {{
        float code = (float)waveq_code(&weights, i);
        fwrite(&code, sizeof code, 1, stdout);
    }}
}}
"""
    compiler = find_compiler()
    assert compiler is not None
    found = outputs_of_program(compiler, {"a.c": program}, "a.c", torch.zeros(1, 1), len(codes))
    assert found[0].tolist() == codes.tolist()


def test_numbers_read_back_as_they_are() -> None:
    values = torch.cat([torch.randn(200), torch.randn(200) * 1e-30, torch.tensor([0.0, 1.0, -2.0, 1e38, 1e-45])])
    for value in values.tolist():
        assert np.float32(literal(value).removesuffix("f")) == np.float32(value)
        assert {".", "e"} & set(literal(value))  # "1f" is no C


def network(x: Tensor, **options: Any) -> tuple[nn.Module, waveq.Policy]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    return model, finalised(model, x, {"0": 3, "2": 4}, **{"quantizer": "lsq", **options})


@pytest.mark.parametrize("complaint", ["no compiler", "does not compile", "computes something else"])
def test_what_could_not_be_compared_is_told_or_refused(
    complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(4, 8)
    model, policy = network(x)
    if complaint == "no compiler":
        monkeypatch.setenv("PATH", str(tmp_path))
        made = waveq.export(model, policy, tmp_path / "net.h", to="c", sample=x)
        assert made.difference is None
        assert "net.c was not compared with torch: no C compiler was found." in str(made)
        assert {each.name for each in tmp_path.iterdir()} == {"net.h", "net.c"}
        return
    fake = tmp_path / "bin" / "cc"
    fake.parent.mkdir()
    scripts = {
        "does not compile": "echo 'no licence' >&2; exit 3",
        "computes something else": "printf '#!/bin/sh\ncat' > program; chmod +x program",
    }
    fake.write_text(f"#!/bin/sh\n{scripts[complaint]}\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:/bin:/usr/bin")
    told = "cannot be compiled \\(no licence\\)" if complaint == "does not compile" else "gives 32 numbers, not 8"
    with pytest.raises(ValueError, match=told):
        waveq.export(model, policy, tmp_path / "net.h", to="c", sample=x)
    assert {each.name for each in tmp_path.iterdir()} == {"bin"}


class Odd(nn.Module):
    """A layer, and something after it."""

    def __init__(self, after: Any) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.after = after

    def forward(self, x: Tensor) -> Any:
        return self.after(self.fc(x))


@pytest.mark.parametrize(
    ("after", "told"),
    [
        (nn.Sigmoid(), r"target 'c' has no 'sigmoid' \(in after\); it takes convolutions and linear layers"),
        (lambda x: x + 1.0, "no 'add' of a number"),
        (lambda x: x + x[:, :1], "no 'slice'"),
        (lambda x: torch.cat([x, x]), "no 'cat'"),
        (lambda x: x.reshape(-1), "one sample at a time, and no 'reshape' across them"),
        (lambda x: x.double(), "no 'to'|float32 only, not torch.float64"),
        (lambda x: (x, x), "output is one tensor"),
        (nn.BatchNorm1d(4, track_running_stats=False), "no 'batch_norm' without running statistics"),
        (lambda x: x if x.sum() > 0 else -x, "torch.export cannot follow Odd"),
        (nn.Sequential(nn.Unflatten(1, (2, 2)), nn.Linear(2, 3)), "no 'linear' on more axes than one"),
        (nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.MaxPool2d(2, dilation=2, padding=1)), "no dilated 'max_pool2d'"),
        (nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect")), "no 'pad'"),
    ],
)
def test_operations_that_c_has_not_are_named(after: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        network_steps(Odd(after), torch.randn(2, 4))


def test_what_cannot_be_held_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    x = torch.randn(4, 8)
    model, policy = network(x)

    def refused(match: str, given: Any = policy, sample: Any = x, name: str = "net.h", **options: Any) -> None:
        with pytest.raises(ValueError, match=match):
            waveq.export(model, given, to="c", path=tmp_path / name, sample=sample, **options)
        assert not list(tmp_path.iterdir())

    refused(r"a header, whose name ends in \.h, not 'net\.c'", name="net.c")
    refused("needs sample=", sample=None)
    refused("networks with one input, not 2", sample=(x, x))
    refused("opset is for target 'onnx', not for 'c'", opset=21)
    refused("names layer '1', which the model does not have", {"1": 3})
    model.double()
    refused("computes in float32, and '0.weight' is float64", {"0": 3})
    model.float()
    model[1].uncalled = copy.deepcopy(model[0])
    refused("layer '1.uncalled': its weight is not in the exported graph", {"1.uncalled": 3})
    model[2] = nn.Linear(8, 2)  # replaced since
    refused("layer '2': its weights are no multiples of a scale at 4 bits")


def test_sums_that_an_integer_of_32_bits_may_not_hold_are_refused(tmp_path: Path) -> None:
    model, x = nn.Sequential(nn.Linear(70_000, 1, bias=False)), torch.rand(2, 70_000)
    policy = finalised(model, x, {"0": 9}, quantizer="lsq", activation_bits={"0": 8})
    with torch.no_grad():
        model[0].weight.copy_(0.01 * torch.arange(70_000).clamp(max=255)[None])
    with pytest.raises(ValueError, match=r"layer '0': a sum of its codes may reach .* more than an int32_t holds"):
        waveq.export(model, policy, tmp_path / "net.h", to="c", sample=x)
    assert not list(tmp_path.iterdir())

from __future__ import annotations

import pytest
from torch import nn

from waveq._names import nearest
from waveq.layers import QUANTIZABLE, quantizable, resolve_skip


def net() -> nn.Module:
    return nn.ModuleDict(
        {
            "conv1": nn.Conv2d(3, 4, 3),
            "bn": nn.BatchNorm2d(4),
            "layer1": nn.Sequential(nn.Conv1d(1, 1, 1), nn.ReLU(), nn.ConvTranspose3d(1, 1, 1)),
            "embed": nn.Embedding(4, 4),
            "fc": nn.Linear(4, 2),
        }
    )


def test_layers_come_in_named_modules_order() -> None:
    assert list(quantizable(net())) == ["conv1", "layer1.0", "layer1.2", "fc"]


def test_every_linear_and_convolution_counts() -> None:
    for kind in QUANTIZABLE:
        layer = kind(2, 2) if kind is nn.Linear else kind(2, 2, 1)  # type: ignore[call-arg]
        assert list(quantizable(nn.Sequential(layer))) == ["0"]


def test_subclasses_count_and_shared_modules_once() -> None:
    class MyLinear(nn.Linear):
        pass

    shared = MyLinear(2, 2)
    assert list(quantizable(nn.Sequential(shared, shared))) == ["0"]


@pytest.mark.parametrize(
    ("skip", "left"),
    [
        ((), ["conv1", "layer1.0", "layer1.2", "fc"]),
        (("conv1", "fc"), ["layer1.0", "layer1.2"]),
        (["layer1.*"], ["conv1", "fc"]),
        (("*",), []),
        (("layer1.?", "conv1"), ["fc"]),
        (iter(("fc",)), ["conv1", "layer1.0", "layer1.2"]),
    ],
)
def test_skip(skip: tuple[str, ...], left: list[str]) -> None:
    assert list(quantizable(net(), skip)) == left


def test_skip_that_matches_nothing_is_told_the_nearest_name() -> None:
    with pytest.raises(ValueError, match=r"skip names 'conv2', which matches no layer; did you mean 'conv1'\?"):
        quantizable(net(), ("conv2",))
    with pytest.raises(ValueError, match=r"skip names 'zzz', .* \(known: conv1, layer1.0, layer1.2, fc\)"):
        quantizable(net(), ("zzz",))


def test_skip_names_a_container() -> None:
    with pytest.raises(ValueError, match=r"skip names 'layer1', .* write 'layer1\.\*'"):
        quantizable(net(), ("layer1",))


def test_a_string_is_no_sequence_of_names() -> None:
    with pytest.raises(TypeError, match=r"not the string 'fc'; write skip=\('fc',\)"):
        resolve_skip("fc", ["fc"])


def test_nearest() -> None:
    assert nearest("layer1.1", ["layer1.0", "fc"]) == "; did you mean 'layer1.0'?"
    assert nearest("q", ["a", "b"]) == " (known: a, b)"

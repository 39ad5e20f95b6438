"""waveq.export on four networks, every target that applies: bytes, and what the program it is written for makes of it.

LSQ with a scale for each channel, 2, 3, ..., 8 bits in turn, random weights, in two forms: inputs in floating point,
and inputs of 8 bits. The program reads the weights back, which must be equal bit by bit, and runs on samples that the
export has not seen. Targets whose packages are not installed are left out (``pip install 'waveq[export,hf]' qonnx``).
Six minutes of processor time.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import waveq
from benchmarks._report import source, write_json
from benchmarks.lab.tables import markdown
from benchmarks.reach._consumers import CONSUMERS, Consumer, first_output
from waveq.exporting.door import SUFFIXES
from waveq.layers import quantizable

PACKAGES = ("onnxruntime", "qonnx", "transformers", "compressed-tensors", "torchao")
_COLUMNS = (
    "network",
    "target",
    "bytes",
    "float32 bytes",
    "weights equal",
    "difference / largest output",
    "with inputs of 8 bits",
    "argmax equal",
    "run by",
)
_FORMS: Mapping[str, Mapping[str, Any]] = {
    "float inputs": {},
    "inputs of 8 bits": {"activation_bits": 8, "activation_quantizer": "lsq"},
}


@dataclass(frozen=True)
class Outcome:
    """One network in one form by one target.

    Attributes:
        file_bytes: of the file, or of all files of a folder.
        float_bytes: of all the network's tensors in float32.
        weights_equal: layers whose weights the program sees bit by bit as torch has them.
        layers: how many there are.
        difference: the largest, as a share of the largest output.
        argmax_equal: samples on which the program and torch have the same largest output.
        samples: how many there are.
    """

    file_bytes: int
    float_bytes: int
    weights_equal: int
    layers: int
    difference: float
    argmax_equal: int
    samples: int


def _zoo(name: str) -> Callable[[], tuple[nn.Module, Callable[[int], Tensor]]]:
    def make() -> tuple[nn.Module, Callable[[int], Tensor]]:
        import waveq.zoo

        return waveq.zoo.build(name), lambda count: torch.randn(count, 3, 32, 32)

    return make


def _bert() -> tuple[nn.Module, Callable[[int], Tensor]]:
    import transformers

    config = transformers.BertConfig(
        vocab_size=1000,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=512,
        max_position_embeddings=64,
        num_labels=10,
    )
    return transformers.BertForSequenceClassification(config), lambda count: torch.randint(0, 1000, (count, 32))


NETWORKS: Mapping[str, Callable[[], tuple[nn.Module, Callable[[int], Tensor]]]] = {
    "SimpleNet-5": _zoo("simplenet5"),
    "ResNet-20": _zoo("resnet20"),
    "MobileNet-V2": _zoo("mobilenet-v2"),
    "BERT, 2 layers of 128": _bert,
}


def main(argv: list[str]) -> int:
    """Print the table; 1 if something failed or a weight differs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks export", description=__doc__)
    parser.add_argument("--only", default="", help="networks whose name holds this")
    parser.add_argument("--to", choices=CONSUMERS, nargs="*", default=list(CONSUMERS), help="targets")
    parser.add_argument(
        "--json", type=Path, default=None, help="benchmarks/results/export.json for docs/export.md; other rows stay"
    )
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    results = _read(options.json)
    failed: list[str] = []
    absent = {each.package for each in CONSUMERS.values() if importlib.util.find_spec(each.package) is None}
    for name, make in NETWORKS.items():
        if options.only not in name or (make is _bert and "transformers" in absent):
            continue
        wanted = {to: CONSUMERS[to] for to in options.to if CONSUMERS[to].package not in absent}
        results[name] = results.get(name, {}) | _network(name, make, wanted, failed)
    print(markdown(_COLUMNS, _lines(results)))
    for sentence in [*failed, *(f"{package} is not installed" for package in sorted(absent))]:
        print(sentence, file=sys.stderr)
    if options.json:
        everything = {
            name: {to: {form: asdict(each) for form, each in forms.items()} for to, forms in targets.items()}
            for name, targets in results.items()
        }
        table = {"columns": _COLUMNS, "lines": _lines(results)}
        write_json(
            options.json,
            {"table": table, "source": source("export", *PACKAGES), "outcomes": everything, "failed": failed},
            *PACKAGES,
        )
    return 1 if failed else 0


def _read(path: Path | None) -> dict[str, dict[str, dict[str, Outcome]]]:
    if path is None or not path.exists():
        return {}
    return {
        name: {to: {form: Outcome(**each) for form, each in forms.items()} for to, forms in targets.items()}
        for name, targets in json.loads(path.read_text())["outcomes"].items()
    }


def _network(
    name: str, make: Any, consumers: Mapping[str, Consumer], failed: list[str]
) -> dict[str, dict[str, Outcome]]:
    found: dict[str, dict[str, Outcome]] = {}
    for form, options in _FORMS.items():
        model, policy, inputs = finalised(make, options)
        for to, consumer in consumers.items():
            if not reads(consumer, make):
                continue
            try:
                outcome = exported(model, policy, inputs, to, consumer)
            except Exception as error:  # the others are tried all the same
                failed.append(f"{name}, {form}, {to}: {type(error).__name__}: {error}")
                continue
            found.setdefault(to, {})[form] = outcome
            print(f"{name}, {form}, {to}: {outcome}", flush=True)
            if outcome.weights_equal < outcome.layers:
                failed.append(f"{name}, {form}, {to}: weights differ")
    return found


def reads(consumer: Consumer, make: Any) -> bool:
    """Whether a program is for a network."""
    return consumer.reads == "all" or (consumer.reads == "of transformers") == (make is _bert)


def finalised(make: Any, options: Mapping[str, Any]) -> tuple[nn.Module, waveq.Policy, Callable[[int], Tensor]]:
    """A network on its levels, its policy, and inputs for it."""
    torch.manual_seed(0)
    model, inputs = make()
    bits = {layer: 2 + i % 7 for i, layer in enumerate(quantizable(model))}
    wq = waveq.attach(model, quantizer="lsq", granularity="channel", bits=bits, skip=(), **options)
    model.train()(inputs(8))
    wq.finalize()
    return model.eval(), wq.policy(), inputs


def exported(
    model: nn.Module, policy: waveq.Policy, inputs: Callable[[int], Tensor], to: str, consumer: Consumer
) -> Outcome:
    """Export, and ask the program that the file is for."""
    with tempfile.TemporaryDirectory() as folder:
        target: Any = to
        path = Path(folder, f"net.{SUFFIXES[to]}")
        made = waveq.export(model, policy, path, to=target, sample=inputs(4))
        seen = consumer.weights(path, model, tuple(policy))
        x = inputs(consumer.samples)
        expected, found = first_output(model, x), consumer.run(path, model, x)
    largest = float(expected.abs().max())
    return Outcome(
        file_bytes=made.file_bytes,
        float_bytes=4 * sum(each.numel() for each in [*model.parameters(), *model.buffers()]),
        weights_equal=sum(torch.equal(seen[name], model.get_submodule(name).weight) for name in policy),  # type: ignore[arg-type]
        layers=len(policy),
        difference=float((expected - found).abs().max()) / largest,
        argmax_equal=int((expected.argmax(-1) == found.argmax(-1)).sum()),
        samples=len(x),
    )


def _lines(results: Mapping[str, Mapping[str, Mapping[str, Outcome]]]) -> list[list[str]]:
    return [
        [name, f"`{to}`", *_figures(list(forms.values())), CONSUMERS[to].name]
        for name in NETWORKS
        for to in CONSUMERS
        if len(forms := results.get(name, {}).get(to, {})) == len(_FORMS)
    ]


def _figures(forms: list[Outcome]) -> list[str]:
    plain = forms[0]
    return [
        f"{plain.file_bytes:,}",
        f"{plain.float_bytes:,}",
        f"{min(each.weights_equal for each in forms)} of {plain.layers}",
        *(f"{each.difference:.0e}".replace("0e+00", "0") for each in forms),
        ", ".join(f"{each.argmax_equal} of {each.samples}" for each in forms),
    ]
